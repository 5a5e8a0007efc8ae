"""Room for what a run writes: training pauses while there is none, and goes on by itself.

What is known beforehand, free bytes and inodes, is waited for without writing. A quota shows only in a write that is
refused: it is tried again, less and less often. A file that may not be as large as it would be is waited for by nobody.
"""

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim import AdamW

from engine.base.disk_room import Lack, file_size_limit, lack_of_room, refusal, refused
from engine.base.errors import FileTooLarge
from engine.base.messages import msg
from engine.base.units import bytes_text, duration
from engine.runs.checkpoints import path_of, steps
from engine.runs.journal import Journal
from engine.worker.runtime.checkpoint import STATE

_WAIT_SECONDS = 5.0
"""Between two looks at the disk."""
_MOST_SECONDS = 300.0
"""Between two tries of a write that was refused: a checkpoint may be tens of GB."""
_SPARE_BYTES = 1_000_000
"""Random state, and the names of tensors."""
_FIRST_FILES = 9
"""In a first checkpoint of one piece."""
_NAMES = 4
"""Beside its files: its folder, and three links."""
_SLOW_TOKENIZER_BYTES = 20_000_000
"""Assumed of one that cannot be asked for its content."""
_T = TypeVar("_T")


def checkpoint_need(
    folder: Path, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, tokenizer: Any
) -> tuple[int, int]:
    """About how many bytes and inodes the next checkpoint in `folder` takes.

    The trained weights and the optimizer's state of them by arithmetic; the rest is as in the checkpoint before, or by
    the tokenizer where there is none.
    """
    files: list[Path] = []
    for step in steps(folder)[-1:]:
        files = list(path_of(folder, step).iterdir())
    small = [file.stat().st_size for file in files if file.suffix != ".safetensors" and file.name != STATE]
    other_bytes = sum(small) if files else _tokenizer_bytes(tokenizer)
    size = _weight_bytes(parameters) + _state_bytes(parameters, optimizer) + other_bytes + _SPARE_BYTES
    return size, (len(files) or _FIRST_FILES) + _NAMES


def refuse_large_files(folder: Path, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Raises FileTooLarge where a file of a checkpoint would surely be larger than files of this process may be.

    The optimizer's state begins with the first step; this says it before.
    """
    limit_bytes, state_bytes = file_size_limit(), _state_bytes(parameters, optimizer)
    if limit_bytes is not None and state_bytes > limit_bytes:
        raise file_too_large(folder, "a checkpoint", state_bytes)


def write_with_room(
    journal: Journal,
    heartbeat: Callable[[], None],
    folder: Path,
    what: str,
    write: Callable[[], _T],
    size: int = 0,
    files: int = 1,
) -> _T:
    """What `write` returns, called when `folder` has room for `what`, and again whenever that was refused.

    `size` bytes in `files` files are known to be needed. The pause is in the journal; `heartbeat` is called meanwhile.
    Raises FileTooLarge where waiting would not help.
    """
    paused: tuple[int, bool] | None = None
    tries_seconds = 0.0
    while True:
        lack, wait_seconds = lack_of_room(folder, size, files, what), _WAIT_SECONDS
        if lack is None:
            try:
                written = write()
            except Exception as error:
                code = refusal(error)
                if code is None:
                    raise
                if code == errno.EFBIG:
                    raise file_too_large(folder, what) from error
                lack = refused(code, folder, what)
                wait_seconds = tries_seconds = min(max(2 * tries_seconds, _WAIT_SECONDS), _MOST_SECONDS)
            else:
                if paused:
                    journal.write("event", event="disk-free", message="There is room again; going on.")
                return written
        if paused != (lack.code, lack.is_inodes):
            paused = lack.code, lack.is_inodes
            journal.write("event", event="disk-full", message=_pause(lack))
        for _ in range(round(wait_seconds / _WAIT_SECONDS)):
            heartbeat()
            time.sleep(_WAIT_SECONDS)


def _pause(lack: Lack) -> str:
    if lack.code == errno.EDQUOT:
        return msg(
            "Paused: {reason}. `quota -s` shows it; tried again now and then, at the latest after {pause}.",
            reason=lack.words,
            pause=duration(_MOST_SECONDS),
        )
    if lack.is_inodes:
        return msg("Paused: {reason}. `df -i` counts them; goes on when some are deleted.", reason=lack.words)
    return msg("Paused: {reason}.", reason=lack.words)


def file_too_large(folder: Path, what: str, size: int | None = None) -> FileTooLarge:
    """The error for a write that is larger than a file may be. `size`: bytes, where they are known."""
    limit_bytes = file_size_limit()
    if limit_bytes is None:
        return FileTooLarge(
            msg("the file system of {folder} holds no file as large as {what} needs", folder=folder, what=what),
            "Choose a workspace on another file system; the last checkpoint there is good to go on from.",
        )
    return FileTooLarge(
        msg(
            "{what} needs a file{size}, and files may have {limit} here (ulimit -f)",
            what=what,
            size=msg(" of {size}", size=bytes_text(size)) if size else " that is larger",
            limit=bytes_text(limit_bytes),
        ),
        "`ulimit -f unlimited`, and start finetop from that shell, its daemon too (`finetop daemon stop` first); in a "
        "systemd unit LimitFSIZE=infinity. Then resume: it goes on from its last checkpoint.",
    )


def _tokenizer_bytes(tokenizer: Any) -> int:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return _SLOW_TOKENIZER_BYTES if backend is None else len(backend.to_str(pretty=True).encode())


def _weight_bytes(parameters: list[nn.Parameter]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)


def _state_bytes(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> int:
    """Before the first step there is none yet: two moments are to come, as wide as the weights or in 8 bits."""
    tensors = (value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value))
    moments = 2 * (_weight_bytes(parameters) if type(optimizer) is AdamW else sum(p.numel() for p in parameters))
    return sum(t.numel() * t.element_size() for t in tensors) or moments
