"""Room for checkpoints: training pauses while the disk has none, and goes on by itself."""

import errno
import shutil
import time
from pathlib import Path

from torch import nn

from engine.journal import Journal
from engine.worker.life import Beat

_WAIT_SECONDS = 5.0


def checkpoint_bytes(parameters: list[nn.Parameter]) -> int:
    """About how much a checkpoint takes: the trained weights and two moments for each, and the tokenizer."""
    return 3 * sum(p.numel() * p.element_size() for p in parameters) + 20_000_000


def wait_for_room(journal: Journal, beat: Beat, folder: Path, size: int) -> None:
    """Return when `folder`'s disk has `size` bytes free; until then beat, and say so once."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (free := shutil.disk_usage(folder).free) >= size:
        return
    message = f"Paused: a checkpoint needs {size / 1e9:.2f} GB, {folder} has {free / 1e9:.2f} GB free."
    journal.write("event", event="disk-full", message=message)
    while shutil.disk_usage(folder).free < size:
        beat.promise(6 * _WAIT_SECONDS, "waiting for disk space")
        time.sleep(_WAIT_SECONDS)
    journal.write("event", event="disk-free", message="There is room again; going on.")


def is_disk_full(error: BaseException) -> bool:
    """The system says it by number, safetensors and torch by text."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)
    return any(sign in text for sign in ("No space left", "Disk quota", "PytorchStreamWriter", "inline_container"))
