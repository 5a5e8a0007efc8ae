"""What the user named -> files to read, in order, and hub datasets; and what of a folder is not read."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.base.errors import DataError, as_utf8
from engine.base.messages import msg
from engine.formats.split_names import TRAIN, TRAINING_USES, USES, part_of_name

DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[^:/\s]+){0,2}")
_METADATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json")
"""What libraries write beside data."""
_MOST_NAMED = 5
_DEEPEST = 4
"""Folders below one that holds no data itself, as in data/en/train-00000-of-00002.parquet."""


@dataclass(frozen=True, slots=True)
class Origin:
    """One file, or one dataset on the hub."""

    name: str
    on_hub: bool = False
    size_bytes: int = 0
    part: str = ""
    """'train', 'validation' or 'test', where a folder's files are such parts."""
    only: str = ""
    """The part of the file that was asked for, as in FILE:test."""
    whole: bool = False
    """Chosen as it is, as in FOLDER:test: splits within it do not matter."""


@dataclass(frozen=True, slots=True)
class Found:
    origins: tuple[Origin, ...]
    left_out: tuple[str, ...]
    """What was found in folders and is not read, in the user's words, a line for each reason."""


def find_origins(source: str | os.PathLike | list, *, plain_text: bool, use: str = "training") -> list[Origin]:
    """Every file that is read for this source; see `find_sources`."""
    return list(find_sources(source, plain_text=plain_text, use=use).origins)


def find_sources(source: str | os.PathLike | list, *, plain_text: bool, use: str = "training") -> Found:
    """Every file behind a path, a folder, a hub name, FILE:PART, FOLDER:PART, or a list of these.

    In a folder the file's name says whether it is data, and of which split. Text files beside tables or JSON are notes
    about the data, so they are read only when there is nothing else or `plain_text` is what is wanted. `use` is a key
    of parts.USES.
    """
    if isinstance(source, (list, tuple)):
        lists = [find_sources(listed, plain_text=plain_text, use=use) for listed in source]
        return Found(
            tuple(origin for listed in lists for origin in listed.origins),
            tuple(line for listed in lists for line in listed.left_out),
        )
    name = os.fspath(source)
    if not name or "\0" in name:
        raise DataError("the data file has no name", "Give a file, a folder or a hub name such as org/name.")
    path = os.path.expanduser(name)
    try:
        if os.path.isdir(path):
            return _in_folder(path, plain_text, use)
        if os.path.exists(path):
            return Found((_file(path),), ())
        bare, only = split_name(path)
        if only and os.path.isdir(bare):
            return _in_folder(bare, plain_text, use, only)
        if only and os.path.exists(bare):
            return Found((replace(_file(bare), only=only),), ())
    except OSError as error:
        raise DataError(
            msg("{name} cannot be read: {strerror}", name=name[:300], strerror=error.strerror or error)
        ) from None
    is_path = name.lower().endswith(DATA_SUFFIXES) or os.path.isdir(os.path.dirname(path))
    if _HUB_NAME.fullmatch(name) and not is_path:
        return Found((Origin(name, on_hub=True),), ())
    raise _not_found(name, path)


def split_name(path: str) -> tuple[str, str]:
    """(path, part) of 'PATH:PART'; the part is '' where none is named."""
    bare, colon, last = path.rpartition(":")
    part = part_of_name(last) if colon and "/" not in last else ""
    return (bare, part) if part and bare else (path, "")


def _file(path: str, part: str = "") -> Origin:
    if not os.path.isfile(path):
        raise DataError(msg("{path} is not a regular file", path=path), "Copy its content to a file first.")
    return Origin(path, size_bytes=os.path.getsize(path), part=part)


def _in_folder(folder: str, plain_text: bool, use: str, only: str = "") -> Found:
    """`only`: the one part that was asked for."""
    entries = [name for name in sorted(os.listdir(folder)) if name[0] != "."]
    names = [name for name in entries if _is_data(os.path.join(folder, name))]
    nested = not names
    if nested:
        names = sorted(os.path.relpath(path, folder) for path in _below(folder, _DEEPEST) if _is_data(path))
    if not names:
        raise _no_data(folder, entries)
    rows = [name for name in names if not name.lower().endswith(".txt")]
    chosen = rows if rows and not plain_text else names
    left_out = _left_out(folder, entries, names, chosen, nested)
    parts = {name: _part_of_path(name) for name in chosen}
    used_parts = _used_parts(folder, set(parts.values()), use, only)
    for part in dict.fromkeys(parts.values()):
        if part not in used_parts:
            unread = [name for name in chosen if parts[name] == part]
            how = msg("; to read them give {folder}:{part}", folder=folder, part=part)
            left_out.append(
                msg(
                    "{folder}: {unread} of the split '{part}' not used: {named}{how}",
                    folder=folder,
                    unread=_count(unread, "file"),
                    part=part,
                    named=_named(unread),
                    how=how,
                )
            )
    kept = [name for name in chosen if parts[name] in used_parts]
    origins = (_file(os.path.join(folder, name), parts[name]) for name in kept)
    if only:
        # One part that was asked for is not a part of anything any more.
        origins = (replace(origin, part="", whole=True) for origin in origins)
    return Found(tuple(origins), tuple(left_out))


def _used_parts(folder: str, parts: set[str], use: str, only: str) -> set[str]:
    """The parts that are read, '' for files that name none. DataError when there are none."""
    if only:
        used_parts = parts & ({only, ""} if only == TRAIN else {only})
        if not used_parts:
            part_names = ", ".join(sorted(parts - {""})) or "none"
            raise DataError(
                msg("{folder} has no files of the split '{only}'", folder=folder, only=only),
                msg("Splits by the names of its files: {part_names}.", part_names=part_names),
            )
        return used_parts
    order, together = USES[use]
    present = [part for part in order if part in parts or (part == TRAIN and "" in parts)]
    if use in TRAINING_USES and TRAIN not in present:
        part_names = " and ".join(f"'{part}'" for part in sorted(parts))
        raise DataError(
            msg(
                "{folder} holds no training data, by the names of its files only {part_names}",
                folder=folder,
                part_names=part_names,
            ),
            msg("To train on a split all the same, name it: {folder}:{parts}.", folder=folder, parts=sorted(parts)[0]),
        )
    used_parts = set(present if together else present[:1])
    return used_parts | {""} if TRAIN in used_parts else used_parts


def _is_data(path: str) -> bool:
    name = os.path.basename(path).lower()
    return name.endswith(DATA_SUFFIXES) and name not in _METADATA and os.path.isfile(path)


def _below(folder: str, depth: int) -> Iterator[str]:
    """Files in the folders within this one."""
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name[0] == "." or (os.path.islink(path) and os.path.isdir(path)):
            continue
        if os.path.isdir(path):
            if depth > 1:
                yield from _below(path, depth - 1)
        else:
            yield path


def _part_of_path(relative: str) -> str:
    """The part that the file's name says, or else the nearest folder that says one."""
    folder, name = os.path.split(relative)
    for piece in (os.path.splitext(name)[0], *reversed(folder.split(os.sep))):
        if part := part_of_name(piece):
            return part
    return ""


def _left_out(folder: str, entries: list[str], names: list[str], chosen: list[str], nested: bool) -> list[str]:
    """What lies in a folder beside the data."""
    lines = []
    paths = [name for name in entries if name not in names]
    folders = [name for name in paths if os.path.isdir(os.path.join(folder, name))]
    other_files = [name for name in paths if name not in folders]
    texts = [name for name in names if name not in chosen]
    if other_files:
        lines.append(
            msg(
                "{folder}: {other_files} of other kinds left out: {named}",
                folder=folder,
                other_files=_count(other_files, "file"),
                named=_named(other_files),
            )
        )
    if texts:
        lines.append(
            msg(
                "{folder}: {texts} beside the data left out: {named}; --objective pretrain learns from them",
                folder=folder,
                texts=_count(texts, "text file"),
                named=_named(texts),
            )
        )
    if folders and not nested:
        lines.append(
            msg(
                "{folder}: {folders} left out: {named}; name those that are data",
                folder=folder,
                folders=_count(folders, "subfolder"),
                named=_named(folders),
            )
        )
    return lines


def _count(names: list[str], what: str) -> str:
    return f"{len(names):,} {what}{'s' * (len(names) != 1)}"


def _named(names: list[str]) -> str:
    shown = ", ".join(as_utf8(name) for name in names[:_MOST_NAMED])
    return shown + (msg(" and {more:,} more", more=len(names) - _MOST_NAMED) if len(names) > _MOST_NAMED else "")


def _no_data(folder: str, entries: list[str]) -> DataError:
    if any(name.endswith(".arrow") for name in entries) or "dataset_dict.json" in entries:
        return DataError(
            msg(
                "{folder} was written by save_to_disk of `datasets` (Arrow files), which finetop does not read",
                folder=folder,
            ),
            "Write it as Parquet: load_from_disk(FOLDER)['train'].to_parquet('train.parquet').",
        )
    beside = msg(" It holds {entries}.", entries=_named(entries)) if entries else " It is empty."
    return DataError(
        msg("no data file in {folder}", folder=folder),
        msg("Files that count end in {data_suffixes}.{beside}", data_suffixes=", ".join(DATA_SUFFIXES), beside=beside),
    )


def _not_found(name: str, path: str) -> DataError:
    import difflib

    folder = os.path.dirname(path)
    try:
        neighbours = sorted(file for file in os.listdir(folder or ".") if not file.startswith("."))
    except (OSError, ValueError):  # ValueError: a name that no file can have, such as half of a surrogate pair
        return DataError(
            msg("{name} does not exist, and neither does the folder {folder}", name=name[:300], folder=folder[:300]),
            "Check the path.",
        )
    near = difflib.get_close_matches(os.path.basename(path), neighbours, n=3, cutoff=0.5)
    if near:
        hint = msg("Did you mean {near}?", near=" or ".join(os.path.join(folder, file) for file in near))
    else:
        data = [neighbour for neighbour in neighbours if neighbour.lower().endswith(DATA_SUFFIXES)]
        hint = (
            msg("Data files there: {files}", files=", ".join(data[:5]))
            if data
            else "There is no data file in that folder."
        )
    return DataError(msg("{name} does not exist", name=name[:300]), hint)
