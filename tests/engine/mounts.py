"""Disks of a few MB, and folders that cannot be written: real mounts, so the tests that use them need root."""

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, size: str, files: int | None = None) -> Iterator[Path]:
    """A file system of that size, such as 16m, at `folder`; of so many inodes, each a file, folder or link."""
    inodes = f",nr_inodes={files}" if files else ""
    with _mounted(folder, "-t", "tmpfs", "-o", f"size={size}{inodes}", "tmpfs"):
        yield folder


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    with _mounted(folder, "--bind", str(folder)):
        _mount("-o", "remount,ro,bind", str(folder))
        yield


def fill_with_files(folder: Path) -> None:
    """Take every inode that is left on a disk."""
    folder.mkdir()
    with pytest.raises(OSError) as refused:
        for number in range(1_000_000):
            (folder / str(number)).touch()
    assert refused.value.errno == errno.ENOSPC


def fill_up(path: Path) -> None:
    """Take every byte that is left on a disk into one file."""
    with pytest.raises(OSError), open(path, "ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@contextlib.contextmanager
def _mounted(folder: Path, *words: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    _mount(*words, str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def _mount(*words: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this machine does not let us mount: {done.stderr.strip()}")
