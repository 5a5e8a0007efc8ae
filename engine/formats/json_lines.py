"""JSON values, one to a line -> (line, row); and what is wrong with JSON, in a user's words.

Parsed by the standard library a row at a time, so that an error has a line and a column, and the rows around it are
kept.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from engine.base.messages import msg
from engine.formats.row_errors import Remark, RowError, Section, excerpt

Item = tuple[int, Any] | RowError | Section | Remark
Lines = Iterable[tuple[int, str, tuple[str, str] | None]]

SPACES = " \t\r\n\ufeff"


class DuplicateKey(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise DuplicateKey(_first_repeated(key for key, _ in pairs))
    return row


def _first_repeated(keys: Iterable[str]) -> str:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return ""


def _integer(digits: str) -> int | float:
    # Python refuses to parse more than 4,300 digits; such a number is no label and no text, a float says as much.
    return int(digits) if len(digits) < 4000 else float(digits)


# NaN and Infinity are not JSON, but pandas writes them for empty cells: they are read as null.
DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=lambda name: None)
PLAIN_DECODER = json.JSONDecoder(parse_int=_integer)


def parse(text: str) -> Any:
    """One JSON value, or ValueError (also for duplicate keys); too deep nesting is a ValueError as well."""
    try:
        return DECODER.decode(text)
    except RecursionError:
        raise ValueError("too deeply nested") from None


def read_json_lines(lines: Lines) -> Iterator[Item]:
    """Rows of a file with one JSON value per line; blank lines are skipped."""
    for number, text, fault in lines:
        text = text.strip(SPACES)
        if fault:
            yield RowError(number, *fault, excerpt(text, max(text.find("\ufffd"), text.find("\0"), 0)))
        elif text:
            try:
                try:
                    yield number, DECODER.decode(text)
                except json.JSONDecodeError as error:
                    # A list written without its brackets: every row ends with a comma.
                    if error.msg != "Extra data" or text[error.pos :] != ",":
                        raise
                    yield number, DECODER.decode(text[: error.pos])
            except (ValueError, RecursionError) as error:
                yield row_error_of(error, text, number)


def row_error_of(error: Exception, text: str, line: int) -> RowError:
    if isinstance(error, DuplicateKey):
        at = max(text.find(f'"{error.key}"'), 0)
        return RowError(
            line, "duplicate-key", msg("the key '{key}' appears twice", key=excerpt(error.key)), excerpt(text, at)
        )
    if isinstance(error, RecursionError):
        return RowError(line, "too-deep", "the JSON is nested too deeply", excerpt(text))
    if isinstance(error, json.JSONDecodeError):
        line += error.lineno - 1
        column = error.colno
        start = error.pos - (error.colno - 1)
        end = text.find("\n", error.pos)
        shown = excerpt(text[start : end if end >= 0 else len(text)], error.pos - start)
        return RowError(line, "bad-json", describe(error, column), shown)
    return RowError(line, "bad-json", msg("JSON that cannot be read: {error}", error=error), excerpt(text))


def describe(error: json.JSONDecodeError, column: int) -> str:
    """The parser's complaint in a user's words."""
    text, position = error.doc, error.pos
    remainder = text[position : position + 40].strip(SPACES)
    if error.msg.startswith("Unterminated string"):
        return msg(
            "JSON ends in the middle of a string, column {column}",
            column=len(text.rstrip()) - position + column,
        )
    if not remainder and not error.msg.startswith("Invalid"):
        return msg(
            "JSON ends too early, column {column}: a value, a closing }} or a closing ] is missing", column=column
        )
    if remainder.startswith("'"):
        return msg("single quotes at column {column}; JSON wants double quotes", column=column)
    if error.msg.startswith("Invalid control character"):
        name = {"\n": "line break", "\r": "line break", "\t": "tab"}.get(text[position], "control character")
        return msg(
            "a raw {name} inside a string, column {column}; write it as an escape such as \\n", name=name, column=column
        )
    if "escape" in error.msg:
        return msg(
            "a backslash that begins no valid escape, column {column}; write \\\\ for a backslash", column=column
        )
    if error.msg == "Extra data":
        return msg("more text after the end of the row, column {column}; one row per line", column=column)
    if error.msg.startswith("Expecting ','"):
        return msg("a comma or a closing bracket is missing before column {column}", column=column)
    if error.msg.startswith("Expecting ':'"):
        return msg("a colon is missing before column {column}", column=column)
    if "property name" in error.msg:
        return msg("a key in double quotes is expected at column {column} (a comma too many?)", column=column)
    if error.msg == "Expecting value":
        return msg("no JSON value at column {column}", column=column)
    return f"{error.msg}, column {column}"
