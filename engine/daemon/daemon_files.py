"""The files a daemon holds open: whether they are still the workspace's; and its log, which must not grow for ever."""

import contextlib
import os


def same_file(path: os.PathLike, opened: os.stat_result) -> bool:
    """Whether the path still names that file: it may have been deleted or replaced, or the folder it is in."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # a network drive that is away for a moment
    return (status.st_dev, status.st_ino) == (opened.st_dev, opened.st_ino)


def bound_file(path: os.PathLike, limit: int) -> None:
    """Keep the last quarter of a log that has grown beyond `limit`. It is written with O_APPEND, so in place."""
    with contextlib.suppress(OSError):
        if os.path.getsize(path) <= limit:
            return
        with open(path, "r+b") as file:
            file.seek(-limit // 4, os.SEEK_END)
            kept = file.read()
            file.seek(0)
            file.truncate()
            file.write(kept[kept.find(b"\n") + 1 :])
