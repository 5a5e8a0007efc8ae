"""What a reader says about a row it cannot use, and how the offending text is shown."""

import json
from dataclasses import dataclass
from typing import Any

from engine.base.escape import escape
from engine.base.messages import msg
from engine.formats.turn_notes import CONTROL_TOKEN, DROPPED

EXCERPT_WIDTH = 100
"""Characters of the user's text shown beside a problem: one terminal line with its indent."""

NOTE_CODES = frozenset({"trailing-turn", "broken-line", *DROPPED, CONTROL_TOKEN})
"""Codes that are reported and counted, while the row itself is kept: something was left out of it."""


@dataclass(frozen=True, slots=True)
class RowError:
    """A row (or a line) that could not be read, found by a container reader."""

    line: int
    code: str
    message: str
    excerpt: str = ""
    rows: int = 1
    """How many rows are lost with it; an estimate where the place of the next row is not found."""


@dataclass(frozen=True, slots=True)
class Section:
    """The rows that follow stand under this key of a JSON object, such as 'train'."""

    key: str


@dataclass(frozen=True, slots=True)
class Remark:
    """Something to say of the file as a whole."""

    message: str


class RowRejected(Exception):
    """A row that was read but is no example; `value` is what to show of it, the whole row when None."""

    def __init__(self, code: str, message: str, value: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.value = value


def excerpt(value: Any, at: int = 0) -> str:
    """The text around character `at`, cut short, with control characters and lone surrogates made visible."""
    if not isinstance(value, str):
        try:
            value = json.dumps(value, ensure_ascii=False, default=repr)
        except (RecursionError, ValueError):
            value = f"({kind(value)})"
    start = max(0, at - EXCERPT_WIDTH // 2) if at > EXCERPT_WIDTH * 3 // 4 else 0
    stop = start + EXCERPT_WIDTH
    cut = value[start:stop].rstrip("\r\n") if stop >= len(value) else value[start:stop]
    return ("…" if start else "") + escape(cut) + ("…" if stop < len(value) else "")


def kind(value: Any) -> str:
    """What a value is, in words: 'a number', 'a list', 'missing'."""
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return f"a {type(value).__name__}"


def unencodable(text: str) -> tuple[str, str] | None:
    """(code, what is wrong) for text that no tokenizer can take: NUL characters and halves of a surrogate pair."""
    if "\0" in text:
        return "nul-byte", msg("a NUL character (position {chr})", chr=text.index(chr(0)) + 1)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(text[error.start]):04x}"
            return "lone-surrogate", msg(
                "half of a surrogate pair ({half}, position {start})", half=half, start=error.start + 1
            )
    return None


def encodable(text: str, where: str) -> str:
    """The text itself, unless no tokenizer could take it."""
    fault = unencodable(text)
    if fault:
        raise RowRejected(fault[0], f"'{where}' holds {fault[1]}", text)
    return text
