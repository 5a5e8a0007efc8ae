"""A window over a JSON file that grows as values need it, and finds its way again after what does not parse."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from engine.base.messages import msg
from engine.formats.json_lines import DECODER, PLAIN_DECODER, SPACES, Item, Lines, describe, row_error_of
from engine.formats.row_errors import RowError, excerpt

_GROW_CHARS = 1 << 20
_REMEMBERED_ROWS = 100
_LONGEST_OPENING = 1000
"""Characters in which a row's brace and its first key are looked for."""
_MOST_TRIES = 100
"""Places that only look like the beginning of a row are parsed; from then on they are counted as lost."""


class Scanner:
    """A window of text over the lines of a file; it grows until it holds a whole value and forgets what is read.

    `position` is the next character to read. What lies before it is dropped when the window grows, so that memory
    follows the largest row and not the file.
    """

    def __init__(self, lines: Lines, is_row: Callable[[Iterable[str]], bool]) -> None:
        self._lines = iter(lines)
        self._is_row = is_row
        self._keys: set[frozenset] = set()
        """Keys of the first rows."""
        self._first_keys: set[str] = set()
        self._rows = 0
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
        leading = self._text[start : self.position]
        return len(leading) if not leading.strip(SPACES) else None

    def peek(self, ahead: int = 0) -> str:
        """The next character that is not space, '' at the end; `ahead=1` looks behind the next one.

        Looking at the next one moves `position` to it.
        """
        at = self.position + ahead
        while True:
            while at < len(self._text) and self._text[at] in SPACES:
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

    def value(self, decoder: json.JSONDecoder = DECODER) -> Any:
        """The JSON value at `position`; moves behind it."""
        value, self.position = self._decoded(decoder)
        return value

    def _decoded(self, decoder: json.JSONDecoder) -> tuple[Any, int]:
        """(the value at `position`, the place behind it)"""
        size_chars = _GROW_CHARS
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self.position)
                if end < len(self._text) or self._ended:
                    return value, end
            except json.JSONDecodeError as error:
                # Near the window's end any error may come from the cut; further in it is the user's.
                cut = error.pos + 16 >= len(self._text) or error.msg.startswith("Unterminated string")
                if self._ended or not cut:
                    raise
            self._grow(size_chars)
            size_chars *= 2

    def checked(self, line: int, value: Any) -> Item:
        """The row, or the fault of a line it covers that was not valid in the file's encoding."""
        if self._faults:
            last = self.line
            hit = [number for number in self._faults if number <= last]
            faults = [(number, self._faults.pop(number)) for number in hit]
            for number, fault in faults:
                if number >= line:
                    return RowError(number, *fault, excerpt(value))
        if self._rows < _REMEMBERED_ROWS and isinstance(value, dict) and value:
            self._rows += 1
            self._keys.add(frozenset(value))
            self._first_keys.add(next(iter(value)))
        return line, value

    def recover(self, error: Exception, start: int, indent: int | None) -> RowError:
        """The fault in the value at `start`, with `position` moved to the next row, or to the end if none is found."""
        if not isinstance(error, json.JSONDecodeError):
            fault = row_error_of(error, self._text[start : start + 400], self.line)
            try:
                # The value is well-formed JSON, so its end can be found.
                self.value(PLAIN_DECODER)
                return fault
            except (ValueError, RecursionError):
                return self._skipped(fault, start, start, indent)
        at = min(error.pos, len(self._text))
        next_row = self._next_row(start, at, indent)
        message = ""
        if next_row >= 0:
            at = len(self._text[:next_row].rstrip(SPACES))
            message = "JSON ends too early, column {}: a value, a closing }} or a closing ] is missing"
        elif error.msg.startswith("Expecting"):
            # What is missing is missing where the text before ends, not where the parser met something else.
            end_before = len(self._text[:at].rstrip(SPACES))
            at = max(end_before, start) if "\n" in self._text[end_before:at] else at
        line_start = self._text.rfind("\n", 0, at) + 1
        line_end = self._text.find("\n", at)
        shown = self._text[line_start : line_end if line_end >= 0 else len(self._text)]
        column = at - line_start + 1 + (0 if line_start else self._dropped_columns)
        self.position = at
        line = self.line
        message = message.format(column) if message else describe(error, column)
        code, message = self._faults.pop(line, ("bad-json", message))
        fault = RowError(line, code, message, excerpt(shown, at - line_start))
        if next_row >= 0:
            self.position = next_row
            return fault
        return self._skipped(fault, start, max(at, start), indent)

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

    def _skipped(self, fault: RowError, start: int, at: int, indent: int | None) -> RowError:
        """The fault of the row at `start`, broken at `at`, with `position` at the next row and what is lost counted."""
        if indent is None:
            resumes, lost = self._skip_to_like(start)
        else:
            opening = self._opening(start)
            self.position = at
            resumes, lost = self._skip_to_row(indent, opening)
        message = fault.message
        if resumes and lost:
            message += msg("; about {lost:,} more rows up to the next sound one are lost with it", lost=lost)
        elif lost:
            message += msg("; about {lost:,} rows after it could not be read", lost=lost)
        elif not resumes and self._lost:
            message += "; nothing after it could be read"
        return RowError(fault.line, fault.code, message, fault.excerpt, 1 + lost)

    def _opening(self, start: int) -> re.Pattern:
        """Matches where a row may begin, with its brace as group 1: an element that begins with a key of theirs."""
        keys = self._first_keys
        if not keys:
            first_key = re.match(r'\{\s*("(?:[^"\\]|\\.)*")\s*:', self._text[start : start + _LONGEST_OPENING])
            keys = {first_key[1][1:-1]} if first_key else set()
        names = "|".join(re.escape(json.dumps(key, ensure_ascii=False)) for key in sorted(keys)) or '"'
        # No \s* behind a line break: in a stretch of empty lines it would be tried from each of them.
        return re.compile(rf"(?:(?:\A|[,\[}}\]])\s*|(?<=\n)[^\S\n]*)(\{{\s*(?:{names}))")

    def _skip_to_like(self, start: int) -> tuple[bool, int]:
        """Move behind `start` to the next object that can only be a row; (is there one, rows skipped before it).

        It begins as rows do, parses, has the keys of a row, and an end that elements have.
        """
        opening = self._opening(start)
        at, lost, tries = start + 1, 0, 0
        while True:
            match = opening.search(self._text, at)
            if match is None:
                if self._ended:
                    self._lost = bool(self._text[at:].strip(SPACES + "]}"))
                    self.position = len(self._text)
                    return False, lost
                self.position = max(at, len(self._text) - _LONGEST_OPENING)
                self._grow()
                at = self.position
                continue
            self.position = match.start(1)
            if tries >= _MOST_TRIES:
                lost += 1
            else:
                try:
                    value, end = self._decoded(DECODER)
                except (ValueError, RecursionError):
                    tries += 1
                    lost += 1
                else:
                    behind = self._text[end : end + _LONGEST_OPENING].lstrip(SPACES)[:1]
                    if behind in ("", ",", "]", "{", "}") and (frozenset(value) in self._keys or self._is_row(value)):
                        return True, lost
            at = self.position + 1

    def complain(self, message: str) -> None:
        """Raise what the parser would say at `position`."""
        raise json.JSONDecodeError(message, self._text, self.position)

    def _skip_to_row(self, indent: int, opening: re.Pattern) -> tuple[bool, int]:
        """Move to the next line that begins a row at this indent; (is there one, rows skipped before it)."""
        lost = 0
        while True:
            feed = self._text.find("\n", self.position)
            while feed < 0 and not self._ended:
                self._grow()
                feed = self._text.find("\n", self.position)
            if feed < 0:
                remainder = self._text[self.position + 1 :]
                self._lost = bool(remainder.strip(SPACES + "]}"))
                self.position = len(self._text)
                return False, lost + len(opening.findall(remainder))
            lost += len(opening.findall(self._text, self.position + 1, feed))
            self.position = feed + 1
            while len(self._text) - self.position < 1000 and not self._ended:
                self._grow()
            begin = self._row_opening(self.position, indent)
            if begin >= 0:
                self.position = begin
                return True, lost

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
