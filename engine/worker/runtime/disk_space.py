"""Room for what a run writes: training pauses while the disk has none, and goes on by itself."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from torch import nn

from engine.base.atomic_files import is_disk_full
from engine.base.messages import msg
from engine.base.units import bytes_text
from engine.runs.journal import Journal
from engine.worker.runtime.heartbeat import Heartbeat

_WAIT_SECONDS = 5.0
_T = TypeVar("_T")


def checkpoint_bytes(parameters: list[nn.Parameter]) -> int:
    """About how much a checkpoint takes: the trained weights and two moments for each, and the tokenizer."""
    return 3 * sum(p.numel() * p.element_size() for p in parameters) + 20_000_000


def wait_for_room(journal: Journal, beat: Heartbeat, folder: Path, size: int) -> None:
    """Return when `folder`'s disk has `size` bytes free; until then send heartbeats, and report the pause once."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (free := shutil.disk_usage(folder).free) >= size:
        return
    message = msg(
        "Paused: a checkpoint needs {size}, {folder} has {free} free.",
        size=bytes_text(size),
        folder=folder,
        free=bytes_text(free),
    )
    journal.write("event", event="disk-full", message=message)
    while shutil.disk_usage(folder).free < size:
        beat.announce(6 * _WAIT_SECONDS, "waiting for disk space")
        time.sleep(_WAIT_SECONDS)
    journal.write("event", event="disk-free", message="There is room again; going on.")


def retry_while_disk_full(
    journal: Journal, heartbeat: Callable[[], None], folder: Path, what: str, write: Callable[[], _T]
) -> _T:
    """What `write` returns; it is called again as long as `folder`'s disk is full. `heartbeat` is called meanwhile."""
    paused = False
    while True:
        try:
            done = write()
        except Exception as error:
            if not is_disk_full(error):
                raise
        else:
            if paused:
                journal.write("event", event="disk-free", message="There is room again; going on.")
            return done
        if not paused:
            paused = True
            journal.write(
                "event",
                event="disk-full",
                message=msg("Paused: there is no room in {folder} for {what}.", folder=folder, what=what),
            )
        heartbeat()
        time.sleep(_WAIT_SECONDS)
