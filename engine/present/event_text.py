"""What an event of a journal says, in one plain sentence: for lists of events, `finetop train`, the screen."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.base.messages import msg
from engine.present.numbers import bytes_text, plain_number
from engine.present.text import first_line
from engine.store.run_records import Event


def event_name(kind: str, message: str = "") -> str:
    """What a list calls an event. A run's first `resume` goes on from nothing: it begins."""
    return "begin" if kind == "resume" and message == _BEGINS else kind


def told_once(events: Sequence[Event]) -> list[Event]:
    """Without each `ended` whose reason a `state` gives already: the daemon says it for the cause that it has found."""
    reasons = {event.detail.get("reason") for event in events if event.kind == "state"} - {None}
    return [event for event in events if event.kind != "ended" or event.message.partition(": ")[2] not in reasons]


def describe_event(kind: str, message: str, detail: Mapping[str, Any]) -> str:
    """From the event's own words, or from its figures where it has none; "" where there is nothing to say.

    `detail` holds the event's other fields, as docs/journal.md describes them. A journal of another version may lack
    some, which is no reason to show nothing else.
    """
    if kind == "state":
        if isinstance(detail.get("refused"), str):
            return msg(
                "{message}, as before: it could not go on: {refused}",
                message=message,
                refused=first_line(detail["refused"]),
            )
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
    return msg(
        "{examples:,} examples, {tokens:,} tokens, {supervised:,} of them trained on",
        examples=train["examples"],
        tokens=train["tokens"],
        supervised=train["supervised"],
    ) + (msg("; {held_out:,} held out", held_out=held_out) if held_out else "")


def _plan(detail: Mapping[str, Any]) -> str:
    epochs = f"{detail['epochs']} epoch" + ("s" if detail["epochs"] != 1 else "")
    return msg(
        "{total_steps:,} steps, {epochs} of {steps_per_epoch:,}, batch {batch_size}, rate {rate}",
        total_steps=detail["total_steps"],
        epochs=epochs,
        steps_per_epoch=detail["steps_per_epoch"],
        batch_size=detail["batch_size"],
        rate=plain_number(detail["settings"]["optim.learning_rate"]),
    )


def _model(detail: Mapping[str, Any]) -> str:
    return msg(
        "{class_}, {parameters:,.1f}M parameters, {trainable:,.2f}M trained ({trainable_share:.1%}), on {device}",
        class_=detail["class"],
        parameters=detail["parameters"] / 1e6,
        trainable=detail["trainable"] / 1e6,
        trainable_share=detail["trainable"] / detail["parameters"],
        device=detail["device"],
    )


def _memory(detail: Mapping[str, Any]) -> str:
    measured = msg("{peak_bytes} at most", peak_bytes=bytes_text(detail["peak_bytes"]))
    if detail.get("reserved_bytes"):
        measured += msg(", {reserved_bytes} taken from the card", reserved_bytes=bytes_text(detail["reserved_bytes"]))
    predicted = f"; {bytes_text(detail['predicted_bytes'])} predicted" if detail.get("predicted_bytes") else ""
    again = ", activations recomputed" if detail.get("activation_checkpointing") else ""
    return msg(
        "{measured}{predicted}; {micro_tokens:,} tokens a pass{again}",
        measured=measured,
        predicted=predicted,
        micro_tokens=detail["micro_tokens"],
        again=again,
    )


_SENTENCES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "data": _data,
    "plan": _plan,
    "model": _model,
    "memory": _memory,
}
