"""What the operating system refuses, in words: what, where, and what to do."""

import errno
import os
from pathlib import Path

from engine.base.disk_room import causes, inodes_left, no_inodes, refusal
from engine.base.errors import EngineError
from engine.base.messages import msg

_LONGEST_SHOWN = 120


def system_error(error: OSError, path: str | Path | None = None) -> EngineError:
    """The same refusal for a user. `path`: what was read or written, where the error does not name it."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(path or "")
    shown = name if len(name) <= _LONGEST_SHOWN else f"{name[: _LONGEST_SHOWN - 1]}…"
    folder = str(Path(name).parent) if name else "the disk that is written to"
    code = error.errno
    if code == errno.ENOSPC and name and not inodes_left(Path(name).parent):
        return EngineError(
            no_inodes(Path(folder)),
            "`df -i` shows how many there are; delete files, then try again. Nothing was lost.",
        )
    if code == errno.ENOSPC:
        return EngineError(
            msg("no space left in {folder}", folder=folder), "Free some, then try again. Nothing was lost."
        )
    if code == errno.EDQUOT:
        return EngineError(
            msg("the quota is used up in {folder}", folder=folder),
            "`quota -s` shows it; delete files of yours, then try again. Nothing was lost.",
        )
    if code == errno.EFBIG:
        return EngineError(
            msg("{path} would be larger than a file may be here", path=shown),
            "`ulimit -f` shows the limit of this shell; some file systems have one of their own.",
        )
    hint = {
        errno.EROFS: "Choose another folder.",
        errno.EACCES: "Choose another folder, or ask its owner.",
        errno.EPERM: "Choose another folder.",
        errno.ENAMETOOLONG: "Choose a shorter name.",
        errno.EIO: "The disk or the network behind it fails: `dmesg` says more. Copy the data away first.",
        errno.ESTALE: "The network file system has lost it: mount it again.",
        errno.EMFILE: "`ulimit -n` shows how many files may be open.",
    }.get(code or 0, "")
    reason = error.strerror or type(error).__name__
    return EngineError(f"{shown}: {reason}" if shown else reason, hint)


def refused_write(error: BaseException, folder: Path | None = None) -> EngineError | None:
    """The same for a write that failed for want of room, however a library has wrapped it; None for other errors.

    `folder`: where it was, if the error does not say.
    """
    code = refusal(error)
    if code is None:
        return None
    name = next((cause.filename for cause in causes(error) if isinstance(cause, OSError) and cause.filename), None)
    if name is None and folder is not None:
        name = str(folder / "file")
    return system_error(OSError(code, os.strerror(code), name))
