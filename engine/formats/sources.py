"""What the user named -> files to read, in order, and hub datasets."""

import os
import re
from dataclasses import dataclass

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
    path = os.path.expanduser(name)
    try:
        if os.path.isdir(path):
            return [_file(file) for file in _in_folder(path, plain_text)]
        if os.path.exists(path):
            return [_file(path)]
    except OSError as error:
        raise DataError(f"{name[:300]} cannot be read: {error.strerror or error}") from None
    is_path = name.lower().endswith(DATA_SUFFIXES) or os.path.isdir(os.path.dirname(path))
    if _HUB_NAME.fullmatch(name) and not is_path:
        return [Origin(name, on_hub=True)]
    raise _not_found(name, path)


def _file(path: str) -> Origin:
    if not os.path.isfile(path):
        raise DataError(f"{path} is not a regular file", "Copy its content to a file first.")
    return Origin(path, size_bytes=os.path.getsize(path))


def _in_folder(folder: str, plain_text: bool) -> list[str]:
    names = [name for name in sorted(os.listdir(folder)) if name.lower().endswith(DATA_SUFFIXES) and name[0] != "."]
    rows = [name for name in names if not name.lower().endswith(".txt")]
    if rows and not plain_text:
        names = rows
    files = [path for path in (os.path.join(folder, name) for name in names) if os.path.isfile(path)]
    if not files:
        raise DataError(f"no data file in {folder}", f"Files that count end in {', '.join(DATA_SUFFIXES)}.")
    return files


def _not_found(name: str, path: str) -> DataError:
    import difflib

    folder = os.path.dirname(path)
    try:
        neighbours = sorted(file for file in os.listdir(folder or ".") if not file.startswith("."))
    except OSError:
        return DataError(f"{name[:300]} does not exist, and neither does the folder {folder[:300]}", "Check the path.")
    near = difflib.get_close_matches(os.path.basename(path), neighbours, n=3, cutoff=0.5)
    if near:
        hint = f"Did you mean {' or '.join(os.path.join(folder, file) for file in near)}?"
    else:
        data = [neighbour for neighbour in neighbours if neighbour.lower().endswith(DATA_SUFFIXES)]
        hint = f"Data files there: {', '.join(data[:5])}" if data else "There is no data file in that folder."
    return DataError(f"{name[:300]} does not exist", hint)
