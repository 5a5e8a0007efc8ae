"""The rows of one file after another: to which split each belongs, what it teaches, or why it teaches nothing."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from engine.base.errors import DataError
from engine.base.escape import escape
from engine.base.messages import msg, msg_n
from engine.formats.columns import Schema, find_schema, mapped_schema
from engine.formats.containers import Container, read_rows, recognise, unwrapped
from engine.formats.encoding import Scan, scan
from engine.formats.examples import DataFile, Example, Problem
from engine.formats.json_lines import Item
from engine.formats.layouts import Layout, layout_of
from engine.formats.preference import verdict_columns, worse_rows
from engine.formats.row_counts import FileTally
from engine.formats.row_errors import NOTE_CODES, Remark, RowError, RowRejected, Section, excerpt, kind
from engine.formats.rows import build_example
from engine.formats.schema_detection import file_schema
from engine.formats.sources import Origin
from engine.formats.split_names import TRAIN, USES, part_of_name, part_of_value, split_column

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
    part: str = ""
    """The split it belongs to, where the data has any and more than one is read."""
    rows: int = 1
    """How many rows are lost here, where what follows an error cannot be read either."""
    ignored: tuple[str, ...] = ()
    """Columns (or 'messages[].key') of a good row with text from which nothing is learnt."""

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


class Reading:
    """What is gathered while the files of one source are read."""

    def __init__(
        self, mapping: dict, format: str, system: str | None, objective: str, use: str, max_problems: int | None
    ) -> None:
        self.mapping = mapping
        self.format = format
        self.objective = objective
        self.use = use
        self._system = system
        self._max_problems = max_problems
        """How many problems are kept here; None when each is handed out with its row instead."""
        self._bad: list[tuple[int, Problem]] = []
        self._notes: list[tuple[int, Problem]] = []
        self._told = 0
        self.counts: Counter[str] = Counter()
        """Rows and notes by code."""
        self.splits: set[str] = set()
        """Splits met that have a name."""
        self.trains = False
        """Whether there are rows of the training split, or of none."""

    def problems(self) -> tuple[Problem, ...]:
        """The first problems in the order they were met; bad rows go before notes when there is no room for all."""
        room = max((self._max_problems or 0) - len(self._bad), 0)
        return tuple(problem for _, problem in sorted(self._bad + self._notes[:room], key=lambda numbered: numbered[0]))

    def read(self, origin: Origin, advance: Callable[[int], None]) -> Iterator[Opened | Row | DataFile]:
        if origin.on_hub:
            # 2 s and a network, wanted for hub names only.
            from engine.formats.columnar import load_hub

            return self._read_items(origin, lambda: enumerate(load_hub(origin.name), 1), Container("hub"), None)
        scanned = scan(origin.name)
        mapped = frozenset(self.mapping.values())
        container = recognise(scanned, mapped)
        return self._read_items(origin, lambda: read_rows(scanned, container, advance, mapped), container, scanned)

    def _read_items(
        self, origin: Origin, items_again: Callable[[], Iterator[Item]], container: Container, scanned: Scan | None
    ) -> Iterator[Opened | Row | DataFile]:
        name = origin.name
        items = unwrapped(items_again())
        first = []
        first_rows: list[dict] = []
        for item in items:
            first.append(item)
            if isinstance(item, tuple) and isinstance(item[1], dict):
                first_rows.append(item[1])
            if len(first_rows) >= _PEEK_ROWS:
                break
        if not any(isinstance(item, (tuple, RowError)) for item in first):
            raise DataError(
                msg("{name} has no rows", name=name), "Give a file with at least one row below the column names."
            )
        items = itertools.chain(first, items)
        schema = None
        if first_rows:
            try:
                schema = file_schema(name, first_rows, container.name, self.mapping, self.format, self.objective)
            except DataError as error:  # it names columns, whatever these are called
                raise DataError(escape(error.message), escape(error.hint or "")) from None
        encoding = scanned.encoding if scanned and container.name != "parquet" else ""
        columns = tuple(dict.fromkeys(column for row in first_rows for column in row))
        split = split_column(first_rows)
        used_splits = self._used_splits(origin, items_again, schema, first, columns, split)
        kept_part = USES[self.use][1] and not origin.only and not origin.whole
        training = self.use == "training"
        file = FileTally(name, origin.part, used_splits, kept_part, training, verdict_columns(first_rows), split)
        yield Opened(name, container, encoding, columns)
        yield from self._read_rows(file, items, schema)
        yield DataFile(
            path=name,
            encoding=encoding,
            format=schema.format if schema else "",
            container=container.name,
            columns=dict(schema.columns) if schema and container.name != "txt" else {},
            sha256=scanned.sha256 if scanned else "",
            rows=file.rows,
            bad_rows=file.bad,
            read_rows=file.read,
            set_aside=file.aside.total(),
            ignored=dict(file.ignored.most_common()),
            notes=file.described(),
        )

    def _used_splits(
        self,
        origin: Origin,
        items_again: Callable[[], Iterator[Item]],
        schema: Schema | None,
        first: list[Item],
        columns: tuple[str, ...],
        split: str,
    ) -> frozenset[str] | None:
        """The splits within a file whose rows are used; None where all are."""
        if origin.only:
            return frozenset({origin.only} | ({""} if origin.only == TRAIN else set()))
        order, together = USES[self.use]
        if together and not origin.whole:
            return None if self.use == "all" else frozenset((*order, ""))
        if origin.part or origin.whole:
            return None  # the file itself was chosen
        split = layout_of(columns, schema, True, frozenset(), split).split if schema else ""
        if not split and not any(isinstance(item, Section) and part_of_name(item.key) for item in first):
            return None
        # One of them is wanted, and only the whole file tells which there are.
        present, part = set(), ""
        for item in unwrapped(items_again()):
            if isinstance(item, Section):
                part = part_of_name(item.key)
            elif isinstance(item, tuple) and isinstance(item[1], dict):
                present.add(part_of_value(item[1].get(split)) or part or TRAIN)
        chosen = next((part for part in order if part in present), TRAIN)
        return frozenset({chosen} | ({""} if chosen == TRAIN else set()))

    def _read_rows(self, file: FileTally, items: Iterable[Item], schema_of_file: Schema | None) -> Iterator[Row]:
        layouts: dict[tuple, Layout] = {}
        name, part = file.name, file.part
        rows = read = 0
        worse = ""
        # Most data knows no splits, and nothing is to be counted then.
        plain_used = file.used_splits is None or "" in file.used_splits
        for item in items:
            if not isinstance(item, tuple):
                if isinstance(item, Section):
                    file.sections.append((item.key, rows))
                    part, worse = part_of_name(item.key) or file.part, worse_rows(item.key)
                elif isinstance(item, Remark):
                    file.notes.append(item.message)
                else:
                    row = self._fault(file, item, part)
                    if row:
                        yield row
                continue
            line, row = item
            rows += 1
            row_part = part
            try:
                if not isinstance(row, dict) or schema_of_file is None:
                    message = msg(
                        'the row is {row}; it must be an object such as {{"prompt": …, "completion": …}}', row=kind(row)
                    )
                    raise RowRejected("wrong-type", message)
                columns = tuple(row)
                layout = layouts.get(columns)
                if layout is None:
                    layout = self._layout(columns, schema_of_file, file)
                    if len(layouts) < _MOST_SHAPES:
                        layouts[columns] = layout
                if layout.split:
                    row_part = part_of_value(row[layout.split]) or part
                if row_part or not plain_used:
                    if not self._is_used(file, row_part, 1):
                        continue
                else:
                    self.trains = True
                if worse:
                    raise RowRejected("preference", worse)
                for guard in layout.guards:
                    guard(row)
                built = build_example(row, layout.schema, self._system, name, line)
                ignored = file.not_learnt(row, layout.unused, built)
                if layout.ratings:
                    file.ratings.add(row, layout.ratings)
            except RowRejected as fault:
                file.bad += 1
                shown = fault.value if fault.value is not None else row
                problem = self._note(name, line, fault.code, _numbered(row, fault.message), shown)
                yield Row(name, line, row, problem=problem, part=row_part if file.kept_part else "")
            except RecursionError:
                file.bad += 1
                problem = self._note(name, line, "too-deep", "the row is nested too deeply", "")
                yield Row(name, line, row, problem=problem, part=row_part if file.kept_part else "")
            else:
                read += 1
                note = None
                if built.left_out:
                    message = msg_n(
                        "the last message is left out: no assistant message follows",
                        "the last {n:,} messages are left out: no assistant message follows",
                        built.left_out,
                    )
                    note = self._note(name, line, "trailing-turn", message, row)
                part_told = row_part if row_part and file.kept_part else ""
                yield Row(name, line, row, built.example, note, part_told, ignored=ignored)
        file.note_sections(rows)
        file.rows += rows
        file.read += read

    def _is_used(self, file: FileTally, part: str, rows: int) -> bool:
        """Whether rows of this split are; counted either way."""
        if file.kept_part and part:
            self.splits.add(part)
        self.trains = self.trains or not file.kept_part or part in (TRAIN, "")
        if file.used_splits is None or part in file.used_splits:
            if part:
                file.used[part] += rows
            return True
        file.aside[part or TRAIN] += rows
        return False

    def _fault(self, file: FileTally, fault: RowError, part: str) -> Row | None:
        if fault.code not in NOTE_CODES:
            file.rows += fault.rows
            if not self._is_used(file, part, fault.rows):
                return None
            file.bad += fault.rows
        problem = self._note(
            file.name, fault.line, fault.code, fault.message, fault.excerpt, is_excerpt=True, rows=fault.rows
        )
        return Row(file.name, fault.line, problem=problem, part=part if file.kept_part else "", rows=fault.rows)

    def _note(
        self, file: str, line: int, code: str, message: str, shown: Any, *, is_excerpt: bool = False, rows: int = 1
    ) -> Problem:
        """The problem, counted; its excerpt is made only where it will be shown."""
        self.counts[code] += rows
        self._told += 1
        message = escape(message)
        gathered = self._notes if code in NOTE_CODES else self._bad
        if self._max_problems is not None and len(gathered) >= self._max_problems:
            return Problem(file, line, code, message)
        problem = Problem(file, line, code, message, shown if is_excerpt else excerpt(shown))
        if self._max_problems is not None:
            gathered.append((self._told, problem))
        return problem

    def _layout(self, columns: tuple, schema_of_file: Schema, file: FileTally) -> Layout:
        schema = self._row_schema(columns, schema_of_file)
        return layout_of(columns, schema, bool(self.mapping), file.zero_is_bad, file.split)

    def _row_schema(self, columns: tuple, schema_of_file: Schema) -> Schema:
        """How a row with these columns is read: as the file is, else as another kind of conversation."""
        if self.mapping:
            return mapped_schema(columns, self.mapping) or schema_of_file
        schema = find_schema(columns, schema_of_file.format)
        if schema is None and self.format == "auto":
            other = find_schema(columns)
            # A lone text among conversations is a row that lost its answer.
            schema = other if other and other.kind in ("chat", "pair") else None
        return schema or schema_of_file


def _numbered(row: Any, message: str) -> str:
    """With the row's number, where the line does not tell it."""
    number = getattr(row, "number", 0)
    return f"row {number:,}: {message}" if number else message
