"""What an event of a journal says, in one plain sentence: for lists of events, `finetop train`, the screen."""

from collections.abc import Callable, Mapping
from typing import Any

from engine.base.units import bytes_text
from engine.present.text import first_line


def event_name(kind: str, message: str = "") -> str:
    """What a list calls an event. A run's first `resume` goes on from nothing: it begins."""
    return "begin" if kind == "resume" and message == _BEGINS else kind


def describe_event(kind: str, message: str, detail: Mapping[str, Any]) -> str:
    """From the event's own words, or from its figures where it has none; "" where there is nothing to say.

    `detail` holds the event's other fields, as docs/journal.md describes them. A journal of another version may lack
    some, which is no reason to show nothing else.
    """
    if kind == "state":
        if isinstance(detail.get("refused"), str):
            return f"{message}, as before: it could not go on: {first_line(detail['refused'])}"
        # Only the first line of a reason is a sentence; the others say where.
        return f"{message}: {first_line(detail['reason'])}" if isinstance(detail.get("reason"), str) else message
    if message or kind not in _SENTENCES:
        return message
    try:
        return _SENTENCES[kind](detail)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return ""


_BEGINS = "starts from the beginning"
"""The store's words for a resume from no checkpoint."""


def _data(detail: Mapping[str, Any]) -> str:
    train, held_out = detail["train"], detail["val"]["examples"]
    return f"{train['examples']:,} examples, {train['tokens']:,} tokens, {train['supervised']:,} of them trained on" + (
        f"; {held_out:,} held out" if held_out else ""
    )


def _plan(detail: Mapping[str, Any]) -> str:
    epochs = f"{detail['epochs']} epoch" + ("s" if detail["epochs"] != 1 else "")
    return (
        f"{detail['total_steps']:,} steps, {epochs} of {detail['steps_per_epoch']:,}, batch {detail['batch_size']}, "
        f"rate {detail['settings']['optim.learning_rate']:g}"
    )


def _model(detail: Mapping[str, Any]) -> str:
    return (
        f"{detail['class']}, {detail['parameters'] / 1e6:,.1f}M parameters, {detail['trainable'] / 1e6:,.2f}M trained "
        f"({detail['trainable'] / detail['parameters']:.1%}), on {detail['device']}"
    )


def _memory(detail: Mapping[str, Any]) -> str:
    measured = f"{bytes_text(detail['peak_bytes'])} at most"
    if detail.get("reserved_bytes"):
        measured += f", {bytes_text(detail['reserved_bytes'])} taken from the card"
    predicted = f"; {bytes_text(detail['predicted_bytes'])} predicted" if detail.get("predicted_bytes") else ""
    again = ", activations recomputed" if detail.get("activation_checkpointing") else ""
    return f"{measured}{predicted}; {detail['micro_tokens']:,} tokens a pass{again}"


_SENTENCES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "data": _data,
    "plan": _plan,
    "model": _model,
    "memory": _memory,
}
