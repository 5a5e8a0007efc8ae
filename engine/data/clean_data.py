"""Remove what a check found, by kind, and keep a record of what was removed and why."""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.errors import DataError, InputError
from engine.base.messages import msg
from engine.data.check_data import Gathered, gather
from engine.data.check_report import Progress
from engine.data.issue_types import ISSUE_TYPES, REMOVED_BY_DEFAULT
from engine.data.row_writer import Outputs, Seal, one_file, opened_like, proven, rows_of
from engine.formats import Opened


@dataclass(frozen=True, slots=True)
class Cleaned:
    out: Path
    removed_file: Path
    rows: int
    kept: int
    removed: Mapping[str, int]
    """Rows by the first reason each was removed for, in the order of ISSUE_TYPES."""
    left: Mapping[str, int]
    """Rows with finds of other kinds, which are still there."""


def clean(
    source: str,
    out: str | Path,
    *,
    remove: Iterable[str] = REMOVED_BY_DEFAULT,
    force: bool = False,
    mapping: dict[str, str] | None = None,
    format: str = "auto",
    progress: Progress = lambda doing, done, total: None,
    **options: Any,
) -> Cleaned:
    """Write the rows without finds of these kinds to `out`, the others to `out`.removed.jsonl with the reasons.

    Container and columns stay, the encoding becomes UTF-8. Of duplicates the first row is kept; of contradictions none,
    since nobody can know which is right. `options` are `check`'s. Rows that do not parse are always removed. Raises
    DataError when nothing would be left.
    """
    path, out = one_file(source), Path(out).expanduser()
    kinds = known_kinds(remove)
    removed_path = out.with_name(f"{out.name}.removed.jsonl")
    with Outputs({"out": out, "removed": removed_path}, [str(path)], force) as outputs:
        gathered = gather(
            str(path), progress=progress, max_finds=None, whole=True, mapping=mapping, format=format, **options
        )
        marked = _marked(gathered, kinds)
        removed = dict.fromkeys(kinds, 0)
        seal = Seal()
        position = kept = 0
        descriptor = os.open(outputs.temporary["removed"], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as record, contextlib.ExitStack() as opened:
            for item in rows_of(str(path), mapping=mapping, format=format):
                if isinstance(item, Opened):
                    kept_file = opened.enter_context(opened_like(item, outputs.temporary["out"]))
                    continue
                if item.is_line_note:
                    continue
                reasons = marked.get(position, [])
                position += 1
                if not isinstance(item.values, dict) and not reasons:
                    reasons = [("unreadable", item.problem.message if item.problem else "no object")]
                if reasons:
                    removed[reasons[0][0]] = removed.get(reasons[0][0], 0) + 1
                    record.write(_record(item, reasons))
                    continue
                kept_file.write_again(item)
                kept += 1
                if item.example is not None:
                    seal.add(item.example)
            record.flush()
            os.fsync(record.fileno())
        if not seal.count:
            raise DataError(
                msg("{path}: nothing would be left after cleaning", path=path), "Remove fewer kinds with --remove."
            )
        progress("reading the result", 0, 1)
        proven(outputs.temporary["out"], seal, out, mapping=mapping, format=format)
        if not position - kept:
            outputs.temporary["removed"].unlink()
    left = {kind: count for kind, count in gathered.report.counts.items() if kind not in kinds}
    return Cleaned(out, removed_path, position, kept, {kind: count for kind, count in removed.items() if count}, left)


def known_kinds(names: Iterable[str]) -> list[str]:
    """The kinds in the order of ISSUE_TYPES; InputError for a name that is none."""
    names = list(names)
    for name in names:
        if name not in ISSUE_TYPES:
            import difflib

            near = difflib.get_close_matches(name, ISSUE_TYPES, n=1)
            meant = msg("; did you mean '{near}'?", near=near[0]) if near else ""
            raise InputError(
                msg("'{name}' is no kind of find{meant}", name=name, meant=meant),
                msg("Kinds: {kinds}.", kinds=", ".join(ISSUE_TYPES)),
            )
    return [kind for kind in ISSUE_TYPES if kind in names]


def _marked(gathered: Gathered, kinds: list[str]) -> dict[int, list[tuple[str, str]]]:
    """Position of a row -> why it is removed: (kind, message)."""
    marked: dict[int, list[tuple[str, str]]] = {}
    for position, issue in gathered.issues:
        if issue.kind in kinds:
            message = f"{issue.message} {issue.other_file}:{issue.other_line}" if issue.other_line else issue.message
            marked.setdefault(position, []).append((issue.kind, message))
    return marked


def _record(item: Any, reasons: list[tuple[str, str]]) -> bytes:
    entry = {
        "file": item.file,
        "line": item.line,
        "reasons": [{"kind": kind, "message": message} for kind, message in reasons],
    }
    if item.values is not None:
        entry["row"] = item.values
    elif item.problem:
        entry["excerpt"] = item.problem.excerpt
    return (json.dumps(entry, ensure_ascii=False, default=str) + "\n").encode(errors="backslashreplace")
