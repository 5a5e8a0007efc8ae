"""Rows of the tables into records."""

import functools
import json
from typing import Any

from engine.store.run_records import Run, RunState

RUN_COLUMNS = ", ".join(Run._fields)
"""The columns of `runs` in the order of Run's fields."""
_STATE, _HELD, _SHARE = (Run._fields.index(name) for name in ("state", "held", "share"))
_LISTS = [Run._fields.index(name) for name in ("tags", "gpus_pinned", "gpus")]
_STATES = {state.value: state for state in RunState}


def run_of(row: tuple[Any, ...]) -> Run:
    values = list(row)
    values[_STATE] = _STATES[values[_STATE]]
    values[_HELD] = bool(values[_HELD])
    values[_SHARE] = bool(values[_SHARE])
    for index in _LISTS:
        values[index] = strings(values[index])
    return Run._make(values)


def mapping(text: str | None) -> dict[str, Any]:
    return json.loads(text) if text else {}


@functools.lru_cache(maxsize=4096)  # a list of runs holds the same few tags and GPUs again and again
def strings(text: str | None) -> tuple[str, ...]:
    return tuple(json.loads(text)) if text else ()
