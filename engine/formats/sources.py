"""What the user named -> files to read, in order, and hub datasets."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from engine.errors import DataError

DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[^:/\s]+){0,2}")


@dataclass(frozen=True, slots=True)
class Origin:
    """One file, or one dataset on the hub."""

    name: str
    on_hub: bool = False
    size_bytes: int = 0


def find_origins(source: str | os.PathLike | list, *, plain_text: bool) -> list[Origin]:
    """Every file behind a path, a folder, a hub name, or a list of these.

    In a folder the file's name says whether it is data. Text files beside tables or JSON are notes about the data, so
    they are read only when there is nothing else or `plain_text` is what is wanted.
    """
    if isinstance(source, (list, tuple)):
        return [origin for one in source for origin in find_origins(one, plain_text=plain_text)]
    name = os.fspath(source)
    if not name or "\0" in name:
        raise DataError("the data file has no name", "Give a file, a folder or a hub name such as org/name.")
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            return [_file(file) for file in _in_folder(path, plain_text)]
        if path.exists():
            return [_file(path)]
    except OSError as error:
        raise DataError(f"{name[:300]} cannot be read: {error.strerror or error}") from None
    if _HUB_NAME.fullmatch(name) and path.suffix.lower() not in DATA_SUFFIXES and not path.parent.is_dir():
        return [Origin(name, on_hub=True)]
    raise _not_found(name, path)


def _file(path: Path) -> Origin:
    if not path.is_file():
        raise DataError(f"{path} is not a regular file", "Copy its content to a file first.")
    return Origin(str(path), size_bytes=path.stat().st_size)


def _in_folder(folder: Path, plain_text: bool) -> list[Path]:
    files = [
        file
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in DATA_SUFFIXES and not file.name.startswith(".") and file.is_file()
    ]
    rows = [file for file in files if file.suffix.lower() != ".txt"]
    if rows and not plain_text:
        files = rows
    if not files:
        raise DataError(f"no data file in {folder}", f"Files that count end in {', '.join(DATA_SUFFIXES)}.")
    return files


def _not_found(name: str, path: Path) -> DataError:
    import difflib

    try:
        neighbours = sorted(file.name for file in path.parent.iterdir() if not file.name.startswith("."))
    except OSError:
        return DataError(f"{name} does not exist, and neither does the folder {path.parent}", "Check the path.")
    near = difflib.get_close_matches(path.name, neighbours, n=3, cutoff=0.5)
    if not near:
        data = [neighbour for neighbour in neighbours if neighbour.lower().endswith(DATA_SUFFIXES)]
        hint = f"Data files there: {', '.join(data[:5])}" if data else "There is no data file in that folder."
    else:
        hint = f"Did you mean {' or '.join(str(path.parent / file) for file in near)}?"
    return DataError(f"{name} does not exist", hint)
