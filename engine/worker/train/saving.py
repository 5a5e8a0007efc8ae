"""Checkpoints of a run in training: written, named, reported, and those deleted that are no longer kept."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.base.workspace import CHECKPOINTS
from engine.runs.checkpoints import link
from engine.runs.journal import Journal
from engine.settings.schema import SaveConfig
from engine.worker.runtime import checkpoint
from engine.worker.runtime.disk_space import checkpoint_need, refuse_large_files, write_with_room
from engine.worker.runtime.heartbeat import Heartbeat, versions
from engine.worker.runtime.train_state import Schedule, TrainState

_SLOW_BYTES_PER_SECOND = 20e6
"""A slow network drive."""


@dataclass(frozen=True, slots=True)
class Saver:
    """What stays the same from one checkpoint of the run to the next."""

    folder: Path
    """`checkpoints` of the run."""
    journal: Journal
    beat: Heartbeat
    config: SaveConfig
    schedule: Schedule
    model: nn.Module
    tokenizer: Any
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    """Those that are trained."""
    ends: Sequence[int]
    """Tokens at which answers stop."""

    def save(self, state: TrainState, probe_loss: float, manifest: Mapping[str, Any]) -> None:
        """A checkpoint of this step. While the disk has no room for it the run pauses. Raises FileTooLarge."""
        refuse_large_files(self.folder, self.parameters, self.optimizer)
        size, files = checkpoint_need(self.folder, self.parameters, self.optimizer, self.tokenizer)

        def write() -> None:
            self.beat.announce(60 + size / _SLOW_BYTES_PER_SECOND, "saving")
            saved_state = {
                "progress": dataclasses.asdict(state),
                "optimizer": self.optimizer.state_dict(),
                "rng": checkpoint.rng_state(),
                "probe_loss": probe_loss,
                "versions": versions(),
            }
            epoch = self.schedule.epoch_of(state.step)
            content = {**manifest, "trained_dtypes": sorted({str(p.dtype) for p in self.parameters})}
            try:
                saved = checkpoint.save(
                    self.folder, state.step, epoch, self.model, self.tokenizer, saved_state, content, ends=self.ends
                )
                self._publish(saved, state.best_step)
            except Exception:
                checkpoint.clean_up(self.folder)  # a part of it would take the room that is waited for
                raise

        write_with_room(self.journal, self._waiting, self.folder, "a checkpoint", write, size=size, files=files)

    def publish(self, saved: checkpoint.Checkpoint, best_step: int | None) -> None:
        """Name a checkpoint that is on disk, report it, and delete what the retention settings no longer keep."""
        publish = functools.partial(self._publish, saved, best_step)
        write_with_room(self.journal, self._waiting, self.folder, "a checkpoint's names", publish)

    def _publish(self, saved: checkpoint.Checkpoint, best_step: int | None) -> None:
        epoch_end = saved.step > 0 and saved.step % self.schedule.steps_per_epoch == 0
        names = ["latest", *([f"epoch-{saved.step // self.schedule.steps_per_epoch}"] if epoch_end else [])]
        if best_step == saved.step:
            names.append("best")
        for name in names:
            link(self.folder, name, saved.step)
        path = f"{CHECKPOINTS}/{saved.path.name}"
        epoch = round(saved.epoch, 4)
        self.journal.write("checkpoint", step=saved.step, epoch=epoch, path=path, bytes=saved.bytes, kept=names)
        for step in checkpoint.prune(self.folder, self.config):
            self.journal.write("checkpoint-removed", step=step)

    def _waiting(self) -> None:
        self.beat.announce(600, "waiting for disk space")


def last_good(checkpoints: Path) -> str:
    """The newest checkpoint in words."""
    saved_steps = checkpoint.steps(checkpoints)
    return f"step {saved_steps[-1]}" if saved_steps else "none yet"
