"""Data source in, DataReport out: every good row as an Example, every bad one counted and the first ones told."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from engine.errors import DataError, InputError
from engine.formats.columns import FORMATS, ROLES, Shape, find_shape, mapped_shape
from engine.formats.containers import Container, read_rows, recognise
from engine.formats.encoding import Scan, scan
from engine.formats.faults import NOTE_CODES, Fault, RowFault, excerpt, kind
from engine.formats.jsonrows import Item
from engine.formats.report import complaint
from engine.formats.rows import build_example
from engine.formats.sources import Origin, find_origins
from engine.records import DataFile, DataReport, Example, Problem

_PEEK_ROWS = 50
"""Rows looked at before deciding what the columns of a file mean."""
_MOST_SHAPES = 10_000
"""Different sets of columns remembered per file; a file in which every row has its own does not fill the memory."""


def read_data(
    source: str | list[str],
    *,
    mapping: dict[str, str] | None = None,
    format: str = "auto",
    system: str | None = None,
    objective: str = "sft",
    max_problems: int = 20,
    progress: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Read files, folders and hub datasets into examples, with every row that is none counted in the report.

    `mapping` says which column serves as what ({'prompt': 'ask', 'completion': 'answer'}), `system` is put before
    conversations that have no system message, `progress` is called with (bytes read, bytes in all). Raises DataError
    when a source cannot be read at all, its columns mean nothing, or not one row is usable; the error then carries the
    report as `error.report`.
    """
    mapping = mapping or {}
    _check_arguments(mapping, format, objective)
    plain_text = objective == "pretrain" or format == "text"
    origins = find_origins(source, plain_text=plain_text)
    total_bytes = sum(origin.size_bytes for origin in origins)
    reading = _Reading(mapping, format, system, objective, max_problems)
    files = []
    done_bytes = 0
    for origin in origins:

        def advance(bytes_in_file: int, before: int = done_bytes) -> None:
            if progress:
                progress(min(before + bytes_in_file, total_bytes), total_bytes)

        files.append(reading.read(origin, advance))
        done_bytes += origin.size_bytes
    if progress:
        progress(total_bytes, total_bytes)
    report = DataReport(tuple(files), tuple(reading.examples), reading.problems(), dict(reading.counts))
    if not report.examples:
        raise complaint(report, "no usable row")
    return report


def _check_arguments(mapping: dict[str, str], format: str, objective: str) -> None:
    if format not in ("auto", *FORMATS):
        raise InputError(f"'{format}' is no data format", f"Formats: auto, {', '.join(FORMATS)}.")
    if objective not in ("sft", "pretrain"):
        raise InputError(f"'{objective}' is no objective", "Objectives: sft, pretrain.")
    for role in mapping:
        if role not in ROLES:
            raise InputError(
                f"a column cannot be mapped to '{role}'{_nearest(role, ROLES)}", f"Use {', '.join(ROLES)}."
            )


def _nearest(name: str, names: Iterable[str]) -> str:
    import difflib

    by_lower = {one.lower(): one for one in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f"; did you mean '{by_lower[near[0]]}'?" if near else ""


class _Reading:
    """What is gathered while the files of one source are read."""

    def __init__(self, mapping: dict, format: str, system: str | None, objective: str, max_problems: int) -> None:
        self._mapping = mapping
        self._format = format
        self._system = system
        self._objective = objective
        self._max_problems = max_problems
        self._bad: list[tuple[int, Problem]] = []
        self._notes: list[tuple[int, Problem]] = []
        self.examples: list[Example] = []
        self.counts: Counter[str] = Counter()

    def problems(self) -> tuple[Problem, ...]:
        """The first problems in the order they were met; bad rows go before notes when there is no room for all."""
        room = max(self._max_problems - len(self._bad), 0)
        return tuple(problem for _, problem in sorted(self._bad + self._notes[:room], key=lambda numbered: numbered[0]))

    def read(self, origin: Origin, advance: Callable[[int], None]) -> DataFile:
        if origin.on_hub:
            # 2 s and a network, wanted for hub names only.
            from engine.formats.columnar import load_hub

            items: Iterator[Item] = enumerate(load_hub(origin.name), 1)
            return self._read_items(origin.name, items, Container("hub"), None)
        scanned = scan(origin.name)
        container = recognise(scanned, frozenset(self._mapping.values()))
        return self._read_items(origin.name, read_rows(scanned, container, advance), container, scanned)

    def _read_items(self, name: str, items: Iterator[Item], container: Container, scanned: Scan | None) -> DataFile:
        first = []
        first_rows: list[dict] = []
        for item in items:
            first.append(item)
            if not isinstance(item, Fault) and isinstance(item[1], dict):
                first_rows.append(item[1])
            if len(first_rows) >= _PEEK_ROWS:
                break
        if not first:
            raise DataError(f"{name} has no rows", "Give a file with at least one row below the column names.")
        shape = self._file_shape(name, first_rows, container) if first_rows else None
        rows, bad_rows = self._read_rows(name, itertools.chain(first, items), shape)
        return DataFile(
            path=name,
            encoding=scanned.encoding if scanned and container.name != "parquet" else "",
            format=shape.format if shape else "",
            container=container.name,
            columns=dict(shape.columns) if shape and container.name != "txt" else {},
            sha256=scanned.sha256 if scanned else "",
            rows=rows,
            bad_rows=bad_rows,
        )

    def _read_rows(self, name: str, items: Iterable[Item], file_shape: Shape | None) -> tuple[int, int]:
        """(rows, bad rows) of one file; its examples and problems are gathered."""
        shapes: dict[tuple, Shape | None] = {}
        before, rows, bad_rows = len(self.examples), 0, 0
        for item in items:
            if isinstance(item, Fault):
                self._note(name, item.line, item.code, item.message, item.excerpt, is_excerpt=True)
                rows += item.code not in NOTE_CODES
                bad_rows += item.code not in NOTE_CODES
                continue
            line, row = item
            rows += 1
            try:
                if not isinstance(row, dict):
                    message = f'the row is {kind(row)}; it must be an object such as {{"prompt": …, "completion": …}}'
                    raise RowFault("wrong-type", message)
                columns = tuple(row)
                shape = shapes.get(columns)
                if shape is None:
                    shape = self._row_shape(columns, file_shape)
                    if len(shapes) < _MOST_SHAPES:
                        shapes[columns] = shape
                built = build_example(row, shape, self._system, name, line)
            except RowFault as fault:
                self._note(name, line, fault.code, fault.message, fault.value if fault.value is not None else row)
                bad_rows += 1
            except RecursionError:
                self._note(name, line, "too-deep", "the row is nested too deeply", "")
                bad_rows += 1
            else:
                self.examples.append(built.example)
                if built.left_out:
                    message = f"the last {_count(built.left_out, 'message')} left out: no assistant message follows"
                    self._note(name, line, "trailing-turn", message, row)
        assert len(self.examples) - before == rows - bad_rows
        return rows, bad_rows

    def _note(self, file: str, line: int, code: str, message: str, shown: Any, *, is_excerpt: bool = False) -> None:
        self.counts[code] += 1
        gathered = self._notes if code in NOTE_CODES else self._bad
        if len(gathered) < self._max_problems:
            text = shown if is_excerpt else excerpt(shown)
            gathered.append((self.counts.total(), Problem(file, line, code, message, text)))

    def _row_shape(self, columns: tuple, file_shape: Shape) -> Shape:
        """How a row with these columns is read: as the file is, else as another kind of conversation."""
        if self._mapping:
            return mapped_shape(columns, self._mapping) or file_shape
        shape = find_shape(columns, file_shape.format)
        if shape is None and self._format == "auto":
            other = find_shape(columns)
            # A lone text among conversations is a row that lost its answer.
            shape = other if other and other.kind in ("chat", "pair") else None
        return shape or file_shape

    def _file_shape(self, name: str, rows: list[dict], container: Container) -> Shape:
        """What the columns of a file mean, judged by its first rows; DataError when they mean nothing."""
        columns = list(dict.fromkeys(column for row in rows for column in row))
        if container.name == "txt":
            if self._mapping or self._format not in ("auto", "text"):
                raise DataError(f"{name} is plain text; it has no columns", "Leave out --map and the format.")
            shape = find_shape(columns)
        elif self._mapping:
            shape = self._mapped(name, columns)
        else:
            shape = self._found(name, columns, rows)
        if shape.kind == "text" and self._objective == "sft":
            raise DataError(
                f"{name} is plain text: it has no answers to learn from",
                "Use --objective pretrain to learn from the text itself"
                + ("." if container.name == "txt" else _map_hint(columns, ", or say which column is which: ")),
            )
        return shape

    def _mapped(self, name: str, columns: list[str]) -> Shape:
        for role, column in self._mapping.items():
            if column not in columns:
                raise DataError(
                    f"{name} has no column '{column}' (mapped to {role}){_nearest(column, columns)}",
                    f"Its columns: {', '.join(columns)[:500]}",
                )
        shape = mapped_shape(columns, self._mapping)
        if shape is None:
            given = ", ".join(self._mapping)
            raise DataError(f"{name}: mapping {given} is not enough to make an example", _map_hint(columns))
        return shape

    def _found(self, name: str, columns: list[str], rows: list[dict]) -> Shape:
        found = [(tuple(row), find_shape(row, self._format)) for row in rows]
        formats = Counter(shape.format for _, shape in found if shape)
        if formats:
            winner = formats.most_common(1)[0][0]
            of_winner = dict.fromkeys(
                column for keys, shape in found if shape and shape.format == winner for column in keys
            )
            return find_shape(of_winner, winner)
        lower = {column.strip().lower() for column in columns}
        if {"chosen", "rejected"} <= lower and "prompt" in lower:
            raise DataError(f"{name} holds preference pairs (chosen, rejected), which finetop does not train on")
        if self._format != "auto":
            raise DataError(f"{name} does not have the columns of format '{self._format}'", _map_hint(columns))
        raise DataError(f"{name} has no columns that finetop knows", _map_hint(columns))


def _map_hint(columns: list[str], before: str = "Say which column is which: ") -> str:
    shown = ", ".join(excerpt(column) for column in columns[:30]) or "none"
    return f"{before}--map prompt=COLUMN,completion=COLUMN (or text=COLUMN,label=COLUMN). Columns: {shown[:500]}"


def _count(number: int, what: str) -> str:
    return f"{what} is" if number == 1 else f"{number} {what}s are"
