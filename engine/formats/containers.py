"""What kind of file this is, by its content, and its rows one by one as (line, row) or Fault.

The file's name is asked only where the content leaves it open: whether 'a,b' in the first line is a header or prose.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from engine.base.errors import DataError
from engine.base.messages import msg
from engine.formats.column_tables import is_table
from engine.formats.columns import KNOWN_NAMES, find_schema, normalise
from engine.formats.delimited import Dialect, find_dialect, read_header, read_table
from engine.formats.encoding import Scan, is_binary, read_lines, suffix, whole_text
from engine.formats.json_document import read_json
from engine.formats.json_lines import Item, parse, read_json_lines
from engine.formats.row_errors import RowError, excerpt

_FOREIGN = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "Unpack it, or save the sheet as CSV in UTF-8."),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", "Save it as CSV in UTF-8."),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it first: gunzip FILE."),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it first: unzstd FILE."),
    (b"\xfd7zXZ", "compressed with xz", "Unpack it first: unxz FILE."),
    (b"BZh", "compressed with bzip2", "Unpack it first: bunzip2 FILE."),
    (b"%PDF", "a PDF", "Extract its text first."),
    (b"SQLite format 3", "an SQLite database", "Export the table as CSV or JSON lines."),
    (b"ARROW1", "an Arrow file", "Save it as Parquet or JSON lines."),
    (b"\x89HDF", "an HDF5 file", "Save it as Parquet or JSON lines."),
)
_FIRST_NESTED = re.compile(r'"([^"\\]*)"\s*:\s*([\[{])\s*(.)')
_HEAD_OF_OBJECT = 2000
_MOST_BAD_TEXT_LINES = 0.1
"""Share of lines that may be left out of a plain-text document before the whole document counts as bad."""


@dataclass(frozen=True, slots=True)
class Container:
    """What a file was recognised as."""

    name: str
    """'jsonl', 'json', 'csv', 'tsv', 'parquet' or 'txt'."""
    dialect: Dialect | None = None


def recognise(scanned: Scan, mapped_columns: frozenset[str] = frozenset()) -> Container:
    """The container of a file, from its first quarter of a megabyte; DataError when it holds no data finetop reads."""
    path, head = scanned.path, scanned.head
    if head.startswith(b"PAR1"):
        return Container("parquet")
    for magic, what, hint in _FOREIGN:
        if head.startswith(magic):
            raise DataError(msg("{path} is {what}", path=path, what=what), hint)
    if not head.strip(b" \t\r\n\0"):
        raise DataError(msg("{path} is empty", path=path), "Give a file with at least one row.")
    if is_binary(scanned):
        raise DataError(
            msg("{path} is not a text file", path=path), "finetop reads JSON lines, JSON, CSV, TSV, Parquet and text."
        )
    lines = _head_lines(scanned)
    filled = [line.strip(" \t\r\n\ufeff\0") for line in lines]
    filled = [line for line in filled if line]
    if not filled:
        raise DataError(msg("{path} is empty", path=path), "Give a file with at least one row.")
    name = _json_container(filled, path, row_test(mapped_columns))
    if name:
        return Container(name)
    table = _table_container(lines, filled, scanned, mapped_columns)
    if table:
        return table
    # A file that is called JSON and holds none: as JSON lines, every line is reported as such.
    return Container("jsonl" if suffix(path) in (".json", ".jsonl", ".ndjson") else "txt")


def _head_lines(scanned: Scan) -> list[str]:
    """The whole lines at the start of the file, with their ends."""
    end = scanned.newline.decode(scanned.encoding)
    lines = [line + end for line in scanned.head_text.split(end)]
    lines[-1] = lines[-1].removesuffix(end)
    if len(lines) > 1 and (not whole_text(scanned) or not lines[-1]):
        lines.pop()
    return lines


def row_test(mapped_columns: frozenset[str]) -> Callable[[Iterable[str]], bool]:
    """Whether an object with these keys is a row: by the names of its columns, or as the mapping says."""

    def is_row(keys: Iterable[str]) -> bool:
        keys = list(keys)
        if mapped_columns and mapped_columns <= set(keys):
            return True
        schema = find_schema(keys)
        return schema is not None and schema.kind != "text"

    return is_row


def _json_container(filled: list[str], path: str, is_row: Callable[[Iterable[str]], bool]) -> str:
    first = filled[0]
    like_rows = sum(line.startswith("{") and line.rstrip(",").endswith("}") for line in filled)
    if first.startswith("{"):
        try:
            row = parse(first.removesuffix(","))
        except ValueError:
            # A broken first row of many, or the first line of an object spread over lines.
            return "jsonl" if like_rows * 2 > len(filled) or _is_one_cut_row(filled) else "json"
        if len(filled) > 1:
            return "jsonl"
        tabular = isinstance(row, dict) and (_wraps(row) or is_table(row, is_row))
        return "json" if tabular or suffix(path) == ".json" else "jsonl"
    if first.startswith("["):
        inside = (first[1:].lstrip() or "".join(filled[1:2]))[:1]
        if inside in ("{", "]", "[", '"') or inside == "" or suffix(path) == ".json":
            return "jsonl" if first.endswith("]") and len(filled) > 1 and filled[1].startswith("[") else "json"
    if like_rows * 2 > len(filled):
        return "jsonl"
    return ""


def _wraps(row: dict) -> bool:
    """Whether an object holds lists of rows under names that are no columns; messages are no rows."""
    for key, value in row.items():
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, dict) and normalise(key) not in KNOWN_NAMES and not first.keys() & {"role", "from"}:
            return True
    return False


def _is_one_cut_row(filled: list[str]) -> bool:
    """Whether the one line that is seen the beginning of is a row, and not a table written as one object."""
    if len(filled) != 1 or filled[0].endswith(("{", ",", "[")):
        return False
    nested = _FIRST_NESTED.search(filled[0][:_HEAD_OF_OBJECT])
    if not nested:
        return True
    # {"messages": [{… is a row; {"train": [{…, {"prompt": ["… and {"0": {… are tables.
    return normalise(nested[1]) in KNOWN_NAMES and nested[2] == "[" and nested[3] == "{"


def _table_container(
    lines: list[str], filled: list[str], scanned: Scan, mapped_columns: frozenset[str]
) -> Container | None:
    recognised = KNOWN_NAMES | {normalise(column) for column in mapped_columns}
    named_table = suffix(scanned.path) in (".csv", ".tsv")
    likeliest = find_dialect(lines)
    if likeliest:
        dialect, header, share = likeliest
        recognised_cells = sum(normalise(cell) in recognised for cell in header)
        # Prose can have as many commas in every line; it does not begin with two names of columns.
        unnamed = suffix(scanned.path) in ("", ".data", ".dat")
        if named_table or recognised_cells >= 2 or (recognised_cells and share >= 0.5) or (share == 1 and unnamed):
            return Container("tsv" if dialect.delimiter == "\t" else "csv", dialect)
    dialect = Dialect("\t" if suffix(scanned.path) == ".tsv" else ",")
    header = read_header([(1, filled[0], None)], dialect) or []
    lone_name = len(header) == 1 and len(filled) > 1 and normalise(header[0]) in recognised
    if named_table or (lone_name and suffix(scanned.path) != ".txt"):
        return Container("tsv" if dialect.delimiter == "\t" else "csv", dialect)
    return None


def read_rows(
    scanned: Scan,
    container: Container,
    advance: Callable[[int], None] | None = None,
    mapped_columns: frozenset[str] = frozenset(),
) -> Iterator[Item]:
    """Every row of the file in order, bad ones as RowError."""
    if container.name == "parquet":
        from engine.formats.columnar import read_parquet

        return read_parquet(scanned.path, scanned.size_bytes, advance)
    lines = read_lines(scanned, advance)
    if container.name == "jsonl":
        return read_json_lines(lines)
    if container.name == "json":
        return read_json(lines, KNOWN_NAMES, row_test(mapped_columns))
    if container.dialect:
        return read_table(lines, container.dialect)
    return _read_document(lines)


def unwrapped(items: Iterator[Item]) -> Iterator[Item]:
    """The rows within what the first row is wrapped in: the hub's viewer, or a list that is a conversation itself."""
    passed = []
    for item in items:
        passed.append(item)
        if isinstance(item, tuple):
            items = itertools.chain(passed, items)
            return map(_row_within, items) if _row_within(item) is not item else items
    return iter(passed)


def _row_within(item: Item) -> Item:
    if not isinstance(item, tuple):
        return item
    line, row = item
    if isinstance(row, dict) and "row_idx" in row and isinstance(row.get("row"), dict):
        return line, row["row"]  # {"row_idx": 0, "row": {...}, "truncated_cells": []}
    if (
        isinstance(row, list)
        and row
        and all(isinstance(cell, dict) and ("role" in cell or "from" in cell) for cell in row)
    ):
        return line, {"messages": row}
    return item


def _read_document(lines) -> Iterator[Item]:
    """The file as one text; lines that are broken are left out of it and reported."""
    kept: list[str] = []
    broken: list[RowError] = []
    for number, text, fault in lines:
        if fault:
            at = max(text.find("\ufffd"), text.find("\0"), 0)
            broken.append(RowError(number, "broken-line", fault[1], excerpt(text, at)))
        else:
            kept.append(text)
    if len(broken) > (len(kept) + len(broken)) * _MOST_BAD_TEXT_LINES:
        first = broken[0]
        message = msg(
            "{broken:,} of {lines:,} lines are broken, the first: {message}",
            broken=len(broken),
            lines=len(kept) + len(broken),
            message=first.message,
        )
        yield RowError(first.line, "bad-encoding", message, first.excerpt)
        return
    for line in broken:
        yield replace(line, message=msg("{fault}; the line is left out", fault=line.message))
    yield 1, {"text": "".join(kept).replace("\r\n", "\n")}
