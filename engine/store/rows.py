"""Rows of the tables into records, and messages into columns and back.

Of a message the store keeps the English text in one column and template and values, as JSON, in another. The text is
what counts: a template that does not render to it, which belongs to a text that is there no longer, is disregarded.
"""

import functools
import json
from typing import Any

from engine.base.errors import encodable
from engine.base.messages import Message, restored
from engine.store.run_records import Run, RunState

_LARGEST = "1.7976931348623157e308"
_NAN_SINCE = (
    # Looked for only where the last loss is no number, from the end backwards.
    f"CASE WHEN step > 0 AND (train_loss IS NULL OR abs(train_loss) > {_LARGEST}) THEN"
    " (SELECT min(p.step) FROM metric_summary s JOIN metric_keys k ON k.id = s.key_id AND k.key = 'train/loss'"
    " JOIN points p ON p.series = s.id WHERE s.run_id = runs.id AND s.nonfinite > 0 AND p.step > coalesce("
    f"(SELECT f.step FROM points f WHERE f.series = s.id AND abs(f.value) <= {_LARGEST} ORDER BY f.step DESC LIMIT 1),"
    " -1)) END"
)
RUN_COLUMNS = ", ".join(
    (*(_NAN_SINCE if name == "nan_since" else name for name in Run._fields), "reason_template", "wait_template")
)
"""What is read of `runs`, in the order of Run's fields, and the templates of two of them."""
_STATE, _HELD, _SHARE = (Run._fields.index(name) for name in ("state", "held", "share"))
_LISTS = [Run._fields.index(name) for name in ("tags", "gpus_pinned", "gpus")]
_REASON, _WAIT_REASON = (Run._fields.index(name) for name in ("reason", "wait_reason"))
_STATES = {state.value: state for state in RunState}


def run_of(row: tuple[Any, ...]) -> Run:
    """The run of a row of RUN_COLUMNS."""
    *values, reason_template, wait_template = row
    values[_STATE] = _STATES[values[_STATE]]
    values[_HELD] = bool(values[_HELD])
    values[_SHARE] = bool(values[_SHARE])
    for index in _LISTS:
        values[index] = strings(values[index])
    if reason_template:
        values[_REASON] = message_of(values[_REASON], reason_template)
    if wait_template:
        values[_WAIT_REASON] = message_of(values[_WAIT_REASON], wait_template)
    return Run._make(values)


def template_of(text: str | None) -> str | None:
    """Template and values of a message as JSON; None for a plain text."""
    return encodable(json.dumps(text.record(), ensure_ascii=False)) if isinstance(text, Message) else None


@functools.lru_cache(maxsize=4096)  # a list of runs is read again and again
def message_of(text: str | None, template: str) -> str | None:
    """The text as the message it was, if `template` is that of this text."""
    return None if text is None else restored(text, json.loads(template))


def mapping(text: str | None) -> dict[str, Any]:
    """A column of JSON, which is empty where nothing is said."""
    return json.loads(text) if text else {}


@functools.lru_cache(maxsize=4096)  # a list of runs holds the same few tags and GPUs again and again
def strings(text: str | None) -> tuple[str, ...]:
    """A column that holds a JSON list of texts."""
    return tuple(json.loads(text)) if text else ()
