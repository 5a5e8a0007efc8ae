"""Room on a disk: whether there is any, and by which limit the system has refused a write."""

import errno
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from engine.base.messages import msg
from engine.base.units import bytes_text

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OS_ERROR = re.compile(r"\bos error (\d+)\b")
"""How libraries written in Rust, safetensors and tokenizers, say an errno."""


class Lack(NamedTuple):
    """Of what there is none left."""

    code: int
    """ENOSPC or EDQUOT."""
    is_inodes: bool
    words: str


def lack_of_room(folder: Path, size: int = 0, files: int = 1, what: str = "it") -> Lack | None:
    """What is known to be lacking for `files` new files of `size` bytes together, named `what`, in a folder that may be
    among them; None where all seems to be there. A quota does not show. Raises OSError where the disk does not answer.
    """
    made = next((path for path in (folder, *folder.parents) if path.is_dir()), folder)
    free_bytes = shutil.disk_usage(made).free
    if not inodes_left(made, files):
        return Lack(errno.ENOSPC, True, no_inodes(folder))
    if free_bytes < size:
        words = msg(
            "{what} needs {size}, {folder} has {free} free",
            what=what,
            size=bytes_text(size),
            folder=folder,
            free=bytes_text(free_bytes),
        )
        return Lack(errno.ENOSPC, False, words)
    return None


def refused(code: int, folder: Path, what: str) -> Lack:
    """The same of a write that the system has refused by that errno although room seemed to be there."""
    if code == errno.EDQUOT:
        return Lack(code, False, msg("the quota is used up in {folder}, no room for {what}", folder=folder, what=what))
    if lack := lack_of_room(folder):
        return lack
    return Lack(code, False, msg("no space left in {folder} for {what}", folder=folder, what=what))


def inodes_left(folder: Path, files: int = 1) -> bool:
    """Whether its file system can hold so many more files; True where it cannot be asked, or sets no limit (btrfs)."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return True
    return disk.f_favail >= files or disk.f_files == 0


def no_inodes(folder: Path) -> str:
    """In words."""
    return msg("no inode left in {folder}: its file system holds no more files", folder=folder)


def refusal(error: BaseException) -> int | None:
    """ENOSPC, EDQUOT or EFBIG where an error comes from such a refusal, however it is wrapped; else None.

    torch raises an error of its own while it handles that of the file.
    """
    for cause in causes(error):
        code = cause.errno if isinstance(cause, OSError) else None
        if code is None and (stated := _OS_ERROR.search(str(cause))):
            code = int(stated[1])
        if code in _REFUSALS:
            return code
    return None


def causes(error: BaseException) -> list[BaseException]:
    """The error, and those that it was raised from or while they were handled."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and all(cause is not earlier for earlier in chain):
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain


def file_size_limit() -> int | None:
    """How large a file of this process may be, in bytes (`ulimit -f`); None without a limit."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if soft == resource.RLIM_INFINITY else soft
