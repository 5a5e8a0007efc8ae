"""A JSON file of one list of rows, of lists in an object, of columns, or of objects one after another -> (line, row).

In a list, reading goes on after an error at the next line that starts a row the way the others do, or, where rows share
a line, at the next object that has the keys of a row.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from engine.base.messages import msg
from engine.formats.column_tables import spread
from engine.formats.json_lines import DuplicateKey, Item, Lines
from engine.formats.json_recovery import Scanner
from engine.formats.list_values import holds_text
from engine.formats.row_errors import Remark, RowError, Section, excerpt

IsRow = Callable[[Iterable[str]], bool]
_DESCRIPTIVE = ("features", "columns", "schema", "fields")
"""Lists of objects that describe the columns, beside the rows (the hub's viewer, pandas)."""


def read_json(lines: Lines, row_names: frozenset[str], is_row: IsRow) -> Iterator[Item]:
    """Rows of a list, of an object that wraps lists of rows, of columns, or of objects written one after another.

    `row_names` are the names columns can have: a list under one of these is a column of a row, under any other name it
    is a list of rows. `is_row` says whether an object with these keys is a row.
    """
    scanner = Scanner(lines, is_row)
    while opening := scanner.peek():
        if opening == ",":
            scanner.position += 1
        elif opening == "[":
            yield from _read_list(scanner)
        elif opening == "{":
            yield from _read_object(scanner, row_names, is_row)
        else:
            line = scanner.line
            try:
                value = scanner.value()
            except (ValueError, RecursionError) as error:
                yield scanner.recover(error, scanner.position, None)
            else:
                yield scanner.checked(line, value)


def _read_list(scanner: Scanner) -> Iterator[Item]:
    """The elements of the list that starts here, up to and with its closing bracket."""
    scanner.position += 1
    scanner.peek()
    # Found once: in a file of one line it is looked for from the end of the row to the start of the file.
    indent = scanner.indent()
    while True:
        opening = scanner.peek()
        if opening == "]":
            scanner.position += 1
            return
        if opening == ",":
            scanner.position += 1
            continue
        if not opening:
            yield RowError(scanner.line, "bad-json", "the file ends before the list is closed by ]; is it complete?")
            return
        line = scanner.line
        try:
            value = scanner.value()
        except (ValueError, RecursionError) as error:
            yield scanner.recover(error, scanner.position, indent)
            if not scanner.peek():
                return
        else:
            yield scanner.checked(line, value)


def _read_object(scanner: Scanner, row_names: frozenset[str], is_row: IsRow) -> Iterator[Item]:
    """The object that starts here as one row; or, where it wraps lists of objects or is a table itself, its rows."""
    line, indent = scanner.line, scanner.indent()
    row: dict[str, Any] = {}
    starts: dict[str, int] = {}
    wrapped: set[str] = set()
    holds_columns = False
    scanner.position += 1
    try:
        while (opening := scanner.peek()) != "}":
            if opening == "," and row:
                scanner.position += 1
                if scanner.peek() == "}":
                    scanner.complain("Expecting property name")
            if scanner.peek() != '"':
                scanner.complain("Expecting property name" if not row or opening == "," else "Expecting ',' delimiter")
            key = scanner.value()
            if scanner.peek() != ":":
                scanner.complain("Expecting ':' delimiter")
            scanner.position += 1
            holds_columns = holds_columns or key.strip().casefold() in row_names
            if scanner.peek() == "[" and not holds_columns and key not in _DESCRIPTIVE and scanner.peek(1) == "{":
                wrapped.add(key)
                yield Section(key)
                yield from _read_list(scanner)
                row[key] = None
            elif key in row:
                raise DuplicateKey(key)
            else:
                starts[key] = scanner.line
                row[key] = scanner.value()
        scanner.position += 1
    except (ValueError, RecursionError) as error:
        yield scanner.recover(error, scanner.position, indent)
        return
    beside = [key for key, value in row.items() if key not in wrapped and key not in _DESCRIPTIVE and holds_text(value)]
    if not wrapped:
        item = scanner.checked(line, row)
        yield from [item] if isinstance(item, RowError) else spread(line, row, starts, is_row) or [item]
    elif beside:
        names = ", ".join(f"'{excerpt(key)}'" for key in beside[:10])
        yield Remark(msg("beside its rows the file holds {names}, from which nothing is learnt", names=names))
