"""Rows of the tables into records."""

import dataclasses
import json
from typing import Any

from engine.store.records import Run, RunState

_NAMES = [field.name for field in dataclasses.fields(Run)]
RUN_COLUMNS = ", ".join(_NAMES)
"""The columns of `runs` in the order of Run's fields."""
_STATE, _TAGS, _PINNED, _GPUS = (_NAMES.index(name) for name in ("state", "tags", "gpus_pinned", "gpus"))
_HELD, _SHARE = _NAMES.index("held"), _NAMES.index("share")
_TEXTS = [_NAMES.index(name) for name in ("sweep", "note", "preset", "model", "data", "method", "objective")]
_STATES = {state.value: state for state in RunState}


def run_of(row: tuple[Any, ...]) -> Run:
    values = list(row)
    values[_STATE] = _STATES[values[_STATE]]
    values[_TAGS] = strings(values[_TAGS])
    values[_PINNED] = strings(values[_PINNED])
    values[_GPUS] = strings(values[_GPUS])
    values[_HELD] = bool(values[_HELD])
    values[_SHARE] = bool(values[_SHARE])
    for index in _TEXTS:
        if values[index] is None:
            values[index] = ""
    return Run(*values)


def mapping(text: str | None) -> dict[str, Any]:
    return json.loads(text) if text else {}


def strings(text: str | None) -> tuple[str, ...]:
    if not text or text == "[]":
        return ()
    return tuple(json.loads(text))
