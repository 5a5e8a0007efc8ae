"""Data source in, DataReport out: every good row as an Example, every bad one counted and the first ones told."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was met: what stood in the file, and the example made of it or why there is none."""

    file: str
    line: int
    values: Any = None
    """The row as parsed, by column name; None when it did not parse."""
    example: Example | None = None
    problem: Problem | None = None
    """Why there is no example; or a note (NOTE_CODES) about one that was kept, or about a line that is no row."""

    @property
    def is_line_note(self) -> bool:
        """Told about a line that is no row of its own."""
        return self.values is None and self.problem is not None and self.problem.code in NOTE_CODES


@dataclass(frozen=True, slots=True)
class Opened:
    """A file about to be read, as recognised; its rows follow."""

    path: str
    container: Container
    encoding: str = ""
    columns: tuple[str, ...] = ()
    """The columns met in its first rows."""


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
    reading = _Reading(mapping, format, system, objective, max_problems)
    files = []
    examples = []
    for item in _stream(source, reading, progress):
        if isinstance(item, DataFile):
            files.append(item)
        elif isinstance(item, Row) and item.example is not None:
            examples.append(item.example)
    report = DataReport(tuple(files), tuple(examples), reading.problems(), dict(reading.counts))
    if not report.examples:
        raise complaint(report, "no usable row")
    return report


def stream_data(
    source: str | list[str],
    *,
    mapping: dict[str, str] | None = None,
    format: str = "auto",
    system: str | None = None,
    objective: str = "sft",
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Opened | Row | DataFile]:
    """The same reading a row at a time, for files larger than the memory: of each file Opened, its rows, its DataFile.

    Every row comes, bad ones with their problem. Raises DataError when a source cannot be read at all or its columns
    mean nothing.
    """
    return _stream(source, _Reading(mapping or {}, format, system, objective, None), progress)


def _stream(
    source: str | list[str], reading: "_Reading", progress: Callable[[int, int], None] | None
) -> Iterator[Opened | Row | DataFile]:
    _check_arguments(reading.mapping, reading.format, reading.objective)
    origins = find_origins(source, plain_text=reading.objective == "pretrain" or reading.format == "text")
    total_bytes = sum(origin.size_bytes for origin in origins)
    done_bytes = 0
    for origin in origins:

        def advance(bytes_in_file: int, before: int = done_bytes) -> None:
            if progress:
                progress(min(before + bytes_in_file, total_bytes), total_bytes)

        yield from reading.read(origin, advance)
        done_bytes += origin.size_bytes
    if progress:
        progress(total_bytes, total_bytes)


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

    def __init__(
        self, mapping: dict, format: str, system: str | None, objective: str, max_problems: int | None
    ) -> None:
        self.mapping = mapping
        self.format = format
        self.objective = objective
        self._system = system
        self._max_problems = max_problems
        """How many problems are kept here; None when each is handed out with its row instead."""
        self._bad: list[tuple[int, Problem]] = []
        self._notes: list[tuple[int, Problem]] = []
        self.counts: Counter[str] = Counter()

    def problems(self) -> tuple[Problem, ...]:
        """The first problems in the order they were met; bad rows go before notes when there is no room for all."""
        room = max(self._max_problems - len(self._bad), 0)
        return tuple(problem for _, problem in sorted(self._bad + self._notes[:room], key=lambda numbered: numbered[0]))

    def read(self, origin: Origin, advance: Callable[[int], None]) -> Iterator[Opened | Row | DataFile]:
        if origin.on_hub:
            # 2 s and a network, wanted for hub names only.
            from engine.formats.columnar import load_hub

            items: Iterator[Item] = enumerate(load_hub(origin.name), 1)
            return self._read_items(origin.name, items, Container("hub"), None)
        scanned = scan(origin.name)
        container = recognise(scanned, frozenset(self.mapping.values()))
        return self._read_items(origin.name, read_rows(scanned, container, advance), container, scanned)

    def _read_items(
        self, name: str, items: Iterator[Item], container: Container, scanned: Scan | None
    ) -> Iterator[Opened | Row | DataFile]:
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
        encoding = scanned.encoding if scanned and container.name != "parquet" else ""
        columns = tuple(dict.fromkeys(column for row in first_rows for column in row))
        yield Opened(name, container, encoding, columns)
        rows = bad_rows = 0
        for row in self._read_rows(name, itertools.chain(first, items), shape):
            if not row.is_line_note:
                rows += 1
                bad_rows += row.example is None
            yield row
        yield DataFile(
            path=name,
            encoding=encoding,
            format=shape.format if shape else "",
            container=container.name,
            columns=dict(shape.columns) if shape and container.name != "txt" else {},
            sha256=scanned.sha256 if scanned else "",
            rows=rows,
            bad_rows=bad_rows,
        )

    def _read_rows(self, name: str, items: Iterable[Item], file_shape: Shape | None) -> Iterator[Row]:
        shapes: dict[tuple, Shape | None] = {}
        for item in items:
            if isinstance(item, Fault):
                problem = self._note(name, item.line, item.code, item.message, item.excerpt, is_excerpt=True)
                yield Row(name, item.line, problem=problem)
                continue
            line, row = item
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
                shown = fault.value if fault.value is not None else row
                yield Row(name, line, row, problem=self._note(name, line, fault.code, fault.message, shown))
            except RecursionError:
                problem = self._note(name, line, "too-deep", "the row is nested too deeply", "")
                yield Row(name, line, row, problem=problem)
            else:
                problem = None
                if built.left_out:
                    message = f"the last {_count(built.left_out, 'message')} left out: no assistant message follows"
                    problem = self._note(name, line, "trailing-turn", message, row)
                yield Row(name, line, row, built.example, problem)

    def _note(self, file: str, line: int, code: str, message: str, shown: Any, *, is_excerpt: bool = False) -> Problem:
        """The problem, counted; its excerpt is made only where it will be shown."""
        self.counts[code] += 1
        gathered = self._notes if code in NOTE_CODES else self._bad
        if self._max_problems is not None and len(gathered) >= self._max_problems:
            return Problem(file, line, code, message)
        problem = Problem(file, line, code, message, shown if is_excerpt else excerpt(shown))
        if self._max_problems is not None:
            gathered.append((self.counts.total(), problem))
        return problem

    def _row_shape(self, columns: tuple, file_shape: Shape) -> Shape:
        """How a row with these columns is read: as the file is, else as another kind of conversation."""
        if self.mapping:
            return mapped_shape(columns, self.mapping) or file_shape
        shape = find_shape(columns, file_shape.format)
        if shape is None and self.format == "auto":
            other = find_shape(columns)
            # A lone text among conversations is a row that lost its answer.
            shape = other if other and other.kind in ("chat", "pair") else None
        return shape or file_shape

    def _file_shape(self, name: str, rows: list[dict], container: Container) -> Shape:
        """What the columns of a file mean, judged by its first rows; DataError when they mean nothing."""
        columns = list(dict.fromkeys(column for row in rows for column in row))
        if container.name == "txt":
            if self.mapping or self.format not in ("auto", "text"):
                raise DataError(f"{name} is plain text; it has no columns", "Leave out --map and the format.")
            shape = find_shape(columns)
        elif self.mapping:
            shape = self._mapped(name, columns)
        else:
            shape = self._found(name, columns, rows)
        if shape.kind == "text" and self.objective == "sft":
            raise DataError(
                f"{name} is plain text: it has no answers to learn from",
                "Use --objective pretrain to learn from the text itself"
                + ("." if container.name == "txt" else _map_hint(columns, ", or say which column is which: ")),
            )
        return shape

    def _mapped(self, name: str, columns: list[str]) -> Shape:
        for role, column in self.mapping.items():
            if column not in columns:
                raise DataError(
                    f"{name} has no column '{column}' (mapped to {role}){_nearest(column, columns)}",
                    f"Its columns: {', '.join(columns)[:500]}",
                )
        shape = mapped_shape(columns, self.mapping)
        if shape is None:
            given = ", ".join(self.mapping)
            raise DataError(f"{name}: mapping {given} is not enough to make an example", _map_hint(columns))
        return shape

    def _found(self, name: str, columns: list[str], rows: list[dict]) -> Shape:
        found = [(tuple(row), find_shape(row, self.format)) for row in rows]
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
        if self.format != "auto":
            raise DataError(f"{name} does not have the columns of format '{self.format}'", _map_hint(columns))
        raise DataError(f"{name} has no columns that finetop knows", _map_hint(columns))


def _map_hint(columns: list[str], before: str = "Say which column is which: ") -> str:
    shown = ", ".join(excerpt(column) for column in columns[:30]) or "none"
    return f"{before}--map prompt=COLUMN,completion=COLUMN (or text=COLUMN,label=COLUMN). Columns: {shown[:500]}"


def _count(number: int, what: str) -> str:
    return f"{what} is" if number == 1 else f"{number} {what}s are"
