"""Files that are whole, or as they were before."""

import contextlib
import errno
import os
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says when a disk, or the user's share of it, has no room left."""


def atomic_write(path: Path, content: str | bytes, *, mode: int = 0o600, sync: bool = False) -> None:
    """Put a file of this content at `path`, whole or not at all. Raises OSError, and then leaves nothing behind.

    `mode`: what the umask leaves of it. `sync`: return when the content is on the disk, so that not even a power cut
    leaves half a file.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open(new, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk, too, where its file system can say so."""
    with contextlib.suppress(OSError):  # some network drives cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
