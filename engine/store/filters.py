"""The filter that lists understand: `state:failed data:sql qwen !tag:old`.

Words are joined by AND; `!` in front turns one around; `field:a,b` is either; quotes keep spaces together; `eval<0.5`
compares a figure. A bare word is looked for in name, model, data, tags, note, group and id. An unknown field is text,
since names may hold a colon; `unknown_words` tells which were.
"""

import contextlib
import re
import shlex
from typing import Any

from engine.base.errors import as_utf8
from engine.base.workspace import LARGEST_INTEGER
from engine.metrics.best_evaluation import LOSS

_COLUMNS = {
    "name": "name",
    "model": "model",
    "data": "data",
    "method": "method",
    "objective": "objective",
    "preset": "preset",
    "sweep": "sweep",
    "group": "sweep",
    "tag": "tags",
    "note": "note",
    "gpu": "gpus",
    "reason": "coalesce(reason, wait_reason, phase, '')",
}
_TEXT = " || ' ' || ".join(f"coalesce({name}, '')" for name in ("name", "model", "data", "tags", "note", "sweep"))
_STATES = {
    "held": "(state = 'queued' AND held)",
    "waiting": "(state = 'queued' AND NOT held)",
    "active": "state IN ('starting', 'running')",
    "run": "state IN ('starting', 'running')",
    "ended": "state IN ('done', 'stopped', 'failed', 'interrupted')",
}
FIELDS = ("state", "id", *_COLUMNS)
_FIGURES = {"eval": "best_eval", "loss": "train_loss", "step": "step", "id": "id"}
_COMPARISON = re.compile(rf"({'|'.join(_FIGURES)})(<=|>=|<|>|=)(-?[\d.]+(?:e[+-]?\d+)?)", re.IGNORECASE)
_LIKE_A_FIELD = re.compile(r"!?[A-Za-z_.]+(:|<|>|=)")
WORDS = ", ".join(f"{field}:" for field in FIELDS) + ", " + ", ".join(f"{name}<" for name in _FIGURES if name != "id")
"""What there is beside plain text, for whoever used another word."""

BADNESS = "CASE WHEN best_by LIKE '%:max' THEN -best_eval ELSE best_eval END"
"""Of a run by what its eval.best names: the smaller, the better."""
_QUEUE_RANK = "CASE WHEN state = 'queued' THEN 1 WHEN state IN ('starting', 'running') THEN 0 ELSE 2 END"
SORTS = {
    "id": "id",
    "name": "name COLLATE NOCASE",
    "state": "state",
    "step": "step",
    "loss": "train_loss",
    "eval": BADNESS,
    "created": "created",
    "started": "started",
    "finished": "finished",
    "seconds": "busy_seconds + coalesce(finished, beat, started) - started",
    "priority": "priority",
    "model": "model COLLATE NOCASE",
    "data": "data COLLATE NOCASE",
    "sweep": "sweep COLLATE NOCASE",
}


def where(text: str) -> tuple[str, list[Any]]:
    """The filter as an SQL condition and its values."""
    conditions, values = [], []
    for word in _words(text):
        inverted = word.startswith("!")
        condition, term_values = _term(word[1:] if inverted else word)
        if not condition:
            continue
        # NULL is neither true nor false: `!model:x` must keep runs without a model.
        conditions.append(f"NOT coalesce({condition}, 0)" if inverted else condition)
        values += term_values
    return " AND ".join(conditions) or "1", values


def unknown_words(text: str) -> list[str]:
    """Words that look like a field or a comparison, and are looked for as text since there is none of that name."""
    return [
        word
        for word in _words(text)
        if _LIKE_A_FIELD.match(word)
        and word.lstrip("!").partition(":")[0].lower() not in FIELDS
        and not _COMPARISON.fullmatch(word.removeprefix("!"))
    ]


def order(sort: str | None, descending: bool) -> str:
    """ORDER BY for a sort key of SORTS; None: running, then the queue in its order, then the last finished first."""
    if sort is None:
        direction = "DESC" if descending else "ASC"
        return (
            f"{_QUEUE_RANK} {direction}, CASE WHEN state = 'queued' THEN -priority END, CASE WHEN state = 'queued'"
            " THEN position END, CASE WHEN finished IS NULL THEN started END, finished DESC, id"
        )
    expression = SORTS[sort]
    # Values of different metrics say nothing about each other: those ranked by the loss first, then by metric.
    group = f"best_by <> '{LOSS.text}', best_by, " if sort == "eval" else ""
    return f"{expression} IS NULL, {group}{expression} {'DESC' if descending else 'ASC'}, id DESC"


def _words(text: str) -> list[str]:
    text = as_utf8(text)
    try:
        return shlex.split(text)
    except ValueError:  # a quote still open while the user types
        return text.replace('"', "").replace("'", "").split()


def _term(word: str) -> tuple[str, list[Any]]:
    field, colon, alternatives_text = word.partition(":")
    field = field.lower()
    if colon and field in FIELDS:
        alternatives = [_match(field, value) for value in alternatives_text.split(",") if value]
        condition = " OR ".join(condition for condition, _ in alternatives)
        return (f"({condition})" if condition else ""), [value for _, values in alternatives for value in values]
    if not word:
        return "", []
    if comparison := _COMPARISON.fullmatch(word):
        name, sign, figure = comparison.groups()
        with contextlib.suppress(ValueError):
            return f"({_FIGURES[name.lower()]} {sign} ?)", [float(figure)]
    return f"({_TEXT} LIKE ? ESCAPE '\\' OR CAST(id AS TEXT) = ?)", [_like(word), word.lstrip("#")]


def _match(field: str, value: str) -> tuple[str, list[Any]]:
    if field == "id":
        low, dash, high = value.partition("-")
        if dash and low.isdecimal() and high.isdecimal():
            return "id BETWEEN ? AND ?", [_within(low), _within(high)]
        return "CAST(id AS TEXT) = ?", [value]
    if field == "state":
        value = value.lower()
        # A beginning is enough: `state:fail`, and half-typed words filter already.
        return (_STATES[value], []) if value in _STATES else ("state LIKE ? ESCAPE '\\'", [_like(value)[1:]])
    return f"{_COLUMNS[field]} LIKE ? ESCAPE '\\'", [_like(value)]


def _within(digits: str) -> int:
    """The number, or the largest that SQLite holds: no run has a larger one."""
    return LARGEST_INTEGER if len(digits) > len(str(LARGEST_INTEGER)) else min(int(digits), LARGEST_INTEGER)


def _like(text: str) -> str:
    return "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
