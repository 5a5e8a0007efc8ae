"""What a training process keeps up beside its steps: checkpoints, memory, disk, heartbeat, stop signal."""
