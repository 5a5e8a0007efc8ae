"""JSON in its three outfits -> (line, row): one object per line, one list of rows, or objects one after another.

Parsed by the standard library a row at a time, so that an error has a line and a column, and the rows around it are
kept. In a list, reading goes on after an error at the next line that starts a row the way the others do.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from engine.formats.faults import Fault, excerpt

Item = tuple[int, Any] | Fault
Lines = Iterable[tuple[int, str, tuple[str, str] | None]]

_GROW_CHARS = 1 << 20
_SPACES = " \t\r\n\ufeff"


class _DuplicateKey(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        seen: set[str] = set()
        raise _DuplicateKey(next(key for key, _ in pairs if key in seen or seen.add(key)))
    return row


def _integer(digits: str) -> int | float:
    # Python refuses to parse more than 4,300 digits; such a number is no label and no text, a float says as much.
    return int(digits) if len(digits) < 4000 else float(digits)


# NaN and Infinity are not JSON, but pandas writes them for empty cells: they are read as null.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=lambda name: None)
_PLAIN_DECODER = json.JSONDecoder(parse_int=_integer)


def parse(text: str) -> Any:
    """One JSON value, or ValueError (also for duplicate keys); too deep nesting is a ValueError as well."""
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("too deeply nested") from None


def read_json_lines(lines: Lines) -> Iterator[Item]:
    """Rows of a file with one JSON value per line; blank lines are passed over."""
    for number, text, fault in lines:
        text = text.strip(_SPACES)
        if fault:
            yield Fault(number, *fault, excerpt(text, max(text.find("\ufffd"), text.find("\0"), 0)))
        elif text:
            try:
                try:
                    yield number, _DECODER.decode(text)
                except json.JSONDecodeError as error:
                    # A list written without its brackets: every row ends with a comma.
                    if error.msg != "Extra data" or text[error.pos :] != ",":
                        raise
                    yield number, _DECODER.decode(text[: error.pos])
            except (ValueError, RecursionError) as error:
                yield _fault(error, text, number)


def _fault(error: Exception, text: str, line: int) -> Fault:
    if isinstance(error, _DuplicateKey):
        at = max(text.find(f'"{error.key}"'), 0)
        return Fault(line, "duplicate-key", f"the key '{excerpt(error.key)}' appears twice", excerpt(text, at))
    if isinstance(error, RecursionError):
        return Fault(line, "too-deep", "the JSON is nested too deeply", excerpt(text))
    if isinstance(error, json.JSONDecodeError):
        line += error.lineno - 1
        column = error.colno
        start = error.pos - (error.colno - 1)
        end = text.find("\n", error.pos)
        shown = excerpt(text[start : end if end >= 0 else len(text)], error.pos - start)
        return Fault(line, "bad-json", describe(error, column), shown)
    return Fault(line, "bad-json", f"JSON that cannot be read: {error}", excerpt(text))


def describe(error: json.JSONDecodeError, column: int) -> str:
    """The parser's complaint in a user's words."""
    text, position = error.doc, error.pos
    rest = text[position : position + 40].strip(_SPACES)
    if error.msg.startswith("Unterminated string"):
        return f"JSON ends in the middle of a string, column {len(text.rstrip()) - position + column}"
    if not rest and not error.msg.startswith("Invalid"):
        return f"JSON ends too early, column {column}: a value, a closing }} or a closing ] is missing"
    if rest.startswith("'"):
        return f"single quotes at column {column}; JSON wants double quotes"
    if error.msg.startswith("Invalid control character"):
        name = {"\n": "line break", "\r": "line break", "\t": "tab"}.get(text[position], "control character")
        return f"a raw {name} inside a string, column {column}; write it as an escape such as \\n"
    if "escape" in error.msg:
        return f"a backslash that begins no valid escape, column {column}; write \\\\ for a backslash"
    if error.msg == "Extra data":
        return f"more text after the end of the row, column {column}; one row per line"
    if error.msg.startswith("Expecting ','"):
        return f"a comma or a closing bracket is missing before column {column}"
    if error.msg.startswith("Expecting ':'"):
        return f"a colon is missing before column {column}"
    if "property name" in error.msg:
        return f"a key in double quotes is expected at column {column} (a comma too many?)"
    if error.msg == "Expecting value":
        return f"no JSON value at column {column}"
    return f"{error.msg}, column {column}"


def read_json(lines: Lines, row_names: frozenset[str]) -> Iterator[Item]:
    """Rows of a list, of an object that wraps one list of rows, or of objects written one after another.

    `row_names` are the names columns can have: a list under one of these is a column of a row, under any other name it
    is the list of rows.
    """
    scanner = _Scanner(lines)
    while opening := scanner.peek():
        if opening == ",":
            scanner.position += 1
        elif opening == "[":
            yield from _read_list(scanner)
        elif opening == "{":
            yield from _read_object(scanner, row_names)
        else:
            line = scanner.line
            try:
                value = scanner.value()
            except (ValueError, RecursionError) as error:
                yield scanner.recover(error, scanner.position, None)
            else:
                yield scanner.checked(line, value)


def _read_list(scanner: "_Scanner") -> Iterator[Item]:
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
            yield Fault(scanner.line, "bad-json", "the file ends before the list is closed by ]; is it complete?")
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


def _read_object(scanner: "_Scanner", row_names: frozenset[str]) -> Iterator[Item]:
    """The object that starts here as one row; or, where it wraps a list of objects, the rows of that list."""
    line, indent = scanner.line, scanner.indent()
    row: dict[str, Any] = {}
    wraps = False
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
            known = any(name.strip().casefold() in row_names for name in (key, *row))
            if scanner.peek() == "[" and not known and scanner.peek(1) == "{":
                wraps = True
                yield from _read_list(scanner)
                row[key] = None
            elif key in row:
                raise _DuplicateKey(key)
            else:
                row[key] = scanner.value()
        scanner.position += 1
    except (ValueError, RecursionError) as error:
        yield scanner.recover(error, scanner.position, indent)
        return
    if not wraps:
        yield scanner.checked(line, row)


class _Scanner:
    """A window of text over the lines of a file; it grows until it holds a whole value and forgets what is read.

    `position` is the next character to read. What lies before it is dropped when the window grows, so that memory
    follows the largest row and not the file.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = iter(lines)
        self._text = ""
        self._ended = False
        self._lost = False
        self._counted = 0
        self._line = 1
        self._dropped_columns = 0
        """How much of the window's first line has been dropped, when that line is too long to keep."""
        self._faults: dict[int, tuple[str, str]] = {}
        self.position = 0

    @property
    def line(self) -> int:
        """The line number at `position`."""
        if self.position >= self._counted:
            self._line += self._text.count("\n", self._counted, self.position)
        else:
            self._line -= self._text.count("\n", self.position, self._counted)
        self._counted = self.position
        return self._line

    def indent(self) -> int | None:
        """How far `position` is indented, when it is the first thing on its line."""
        start = self._text.rfind("\n", 0, self.position) + 1
        before = self._text[start : self.position]
        return len(before) if not before.strip(_SPACES) else None

    def peek(self, ahead: int = 0) -> str:
        """The next character that is not space, '' at the end; `ahead=1` looks behind the next one.

        Looking at the next one moves `position` to it.
        """
        at = self.position + ahead
        while True:
            while at < len(self._text) and self._text[at] in _SPACES:
                at += 1
            if at < len(self._text):
                if not ahead:
                    self.position = at
                return self._text[at]
            if self._ended:
                if not ahead:
                    self.position = at
                return ""
            at -= self._grow()

    def value(self, decoder: json.JSONDecoder = _DECODER) -> Any:
        """The JSON value at `position`; moves behind it."""
        wanted = _GROW_CHARS
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self.position)
                if end < len(self._text) or self._ended:
                    self.position = end
                    return value
            except json.JSONDecodeError as error:
                # Near the window's end any error may come from the cut; further in it is the user's.
                cut = error.pos + 16 >= len(self._text) or error.msg.startswith("Unterminated string")
                if self._ended or not cut:
                    raise
            self._grow(wanted)
            wanted *= 2

    def checked(self, line: int, value: Any) -> Item:
        """The row, or the fault of a line it covers that was not valid in the file's encoding."""
        if self._faults:
            last = self.line
            hit = [number for number in self._faults if number <= last]
            faults = [(number, self._faults.pop(number)) for number in hit]
            for number, fault in faults:
                if number >= line:
                    return Fault(number, *fault, excerpt(value))
        return line, value

    def recover(self, error: Exception, start: int, indent: int | None) -> Fault:
        """The fault in the value at `start`, with `position` moved to the next row, or to the end if none is found."""
        if not isinstance(error, json.JSONDecodeError):
            fault = _fault(error, self._text[start : start + 400], self.line)
            try:
                # The value is well-formed JSON, so its end can be found.
                self.value(_PLAIN_DECODER)
                return fault
            except (ValueError, RecursionError):
                return self._or_lost(fault, self._skip_to_row(indent))
        at = min(error.pos, len(self._text))
        next_row = self._next_row(start, at, indent)
        message = ""
        if next_row >= 0:
            at = len(self._text[:next_row].rstrip(_SPACES))
            message = "JSON ends too early, column {}: a value, a closing }} or a closing ] is missing"
        elif error.msg.startswith("Expecting"):
            # What is missing is missing where the text before ends, not where the parser met something else.
            before = len(self._text[:at].rstrip(_SPACES))
            at = max(before, start) if "\n" in self._text[before:at] else at
        line_start = self._text.rfind("\n", 0, at) + 1
        line_end = self._text.find("\n", at)
        shown = self._text[line_start : line_end if line_end >= 0 else len(self._text)]
        column = at - line_start + 1 + (0 if line_start else self._dropped_columns)
        self.position = at
        line = self.line
        message = message.format(column) if message else describe(error, column)
        code, message = self._faults.pop(line, ("bad-json", message))
        fault = Fault(line, code, message, excerpt(shown, at - line_start))
        if next_row >= 0:
            self.position = next_row
            return fault
        self.position = max(at, start)
        return self._or_lost(fault, self._skip_to_row(indent))

    def _next_row(self, start: int, stop: int, indent: int | None) -> int:
        """Where a row begins between `start` and `stop`, both inside what should be one row; -1 if none does."""
        feed = self._text.find("\n", start, stop)
        while feed >= 0:
            opening = self._row_opening(feed + 1, indent)
            if opening >= 0:
                return opening
            feed = self._text.find("\n", feed + 1, stop)
        return -1

    def _row_opening(self, line_start: int, indent: int | None) -> int:
        """The index of the { that opens a row on this line, as far indented as rows are; -1 if there is none."""
        at = line_start
        while at < len(self._text) and self._text[at] in " \t":
            at += 1
        spaces = at - line_start
        fits = spaces <= 1 if indent is None else spaces == indent
        return at if fits and self._text[at : at + 1] == "{" else -1

    def _or_lost(self, fault: Fault, found: bool) -> Fault:
        message = fault.message if found or not self._lost else f"{fault.message}; nothing after it could be read"
        return Fault(fault.line, fault.code, message, fault.excerpt)

    def complain(self, message: str) -> None:
        """Raise what the parser would say at `position`."""
        raise json.JSONDecodeError(message, self._text, self.position)

    def _skip_to_row(self, indent: int | None) -> bool:
        """Move to the next line that begins a row at this indent; False (and at the end) when there is none."""
        while True:
            feed = self._text.find("\n", self.position)
            while feed < 0 and not self._ended:
                self._grow()
                feed = self._text.find("\n", self.position)
            if feed < 0:
                self._lost = bool(self._text[self.position + 1 :].strip(_SPACES + "]}"))
                self.position = len(self._text)
                return False
            self.position = feed + 1
            while len(self._text) - self.position < 1000 and not self._ended:
                self._grow()
            opening = self._row_opening(self.position, indent)
            if opening >= 0:
                self.position = opening
                return True

    def _grow(self, chars: int = _GROW_CHARS) -> int:
        """Read on; returns how many characters were dropped from the front."""
        parts = []
        while chars > 0 and not self._ended:
            item = next(self._lines, None)
            if item is None:
                self._ended = True
                break
            number, text, fault = item
            if fault:
                self._faults[number] = fault
            # A carriage return that ends lines would hide them from the line count.
            parts.append(text[:-1] + "\n" if text.endswith("\r") else text)
            chars -= len(text)
        # Keep the current line whole: errors show it, and its indent is asked for.
        line_start = self._text.rfind("\n", 0, self.position) + 1
        keep = line_start if self.position - line_start < _GROW_CHARS else self.position
        self._dropped_columns = (0 if line_start else self._dropped_columns) + keep - line_start
        _ = self.line
        self._text = self._text[keep:] + "".join(parts)
        self._counted -= keep
        self.position -= keep
        return keep
