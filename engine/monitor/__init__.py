"""What the GPUs and the host are doing, and whose work it is. Start at `monitor.Monitor`; values in `samples`."""
