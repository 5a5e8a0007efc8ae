"""The journal of a run: one JSON line per event, only ever appended to.

Each event is written by one `os.write`, so what was logged is with the kernel and outlives a SIGKILL of the worker.
Kinds and their fields are described in docs/journal.md. Two rules bind every reader, and `read` follows them:
a last line without its newline does not exist yet, and a line that is no JSON object (torn by a crash, then continued)
is skipped. A `resume` line takes back what lies beyond its step; `effective` applies it.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.atomic_files import DISK_FULL
from engine.base.clock import uptime
from engine.base.messages import records, restored
from engine.base.workspace import LOG

NAME = "journal.jsonl"
_DISK_FULL_RETRY_SECONDS = 5.0
_STEP_KINDS = frozenset({"metric", "eval", "sample", "answer", "checkpoint", "event"})
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False).encode


@dataclass(frozen=True, slots=True)
class SampledAnswer:
    """What the model wrote at an evaluation in training."""

    step: int
    prompt: str
    text: str
    reference: str | None
    """The right answer, where the validation data has one."""
    to_example: bool
    """To an example of the validation data (kind `answer`); else to one of `eval.prompts` (kind `sample`)."""


class Journal:
    """Appends events to a run's journal. A full disk makes it wait, so that training pauses and nothing is lost."""

    def __init__(self, folder: Path) -> None:
        self._log, self._path = folder / LOG, folder / NAME
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            self._write_all(b"\n")  # a crash tore the last line: end it, so that the next event stands alone

    def write(self, kind: str, **fields: Any) -> None:
        """One event. JSON has no NaN and no infinity: such a value is null, and named under `nonfinite`.

        A state says how long the log was by then, so that it can be shown between the log's lines, which have no times;
        a step says the time by a clock that nobody sets, too. Fields that are messages keep template and values beside
        their text, under `messages`.
        """
        event = {"t": time.time(), "kind": kind, **fields}
        if templates := records(fields):
            event["messages"] = templates
        if kind in ("metric", "resume"):
            event["up"] = round(uptime(), 3)
        if kind == "state":
            with contextlib.suppress(OSError):
                event["log_bytes"] = self._log.stat().st_size
        try:
            line = _encode(event)
        except ValueError:
            nonfinite: dict[str, str] = {}
            line = _encode(_finite(event, "", nonfinite) | {"nonfinite": nonfinite})
        self._write_all((line + "\n").encode("utf-8", "replace"))

    def metric(self, step: int, values: dict[str, float]) -> None:
        """The numbers of one optimizer step."""
        self.write("metric", step=step, values=values)

    def close(self) -> None:
        os.close(self._fd)

    def _write_all(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise OSError(error.errno, error.strerror, str(self._path)) from error
                time.sleep(_DISK_FULL_RETRY_SECONDS)


def _finite(value: Any, name: str, nonfinite: dict[str, str]) -> Any:
    """`value` with None for each float that is not finite; `nonfinite` takes what they were, by their keys."""
    if isinstance(value, float) and not math.isfinite(value):
        nonfinite[name] = str(value)
        return None
    if isinstance(value, dict):
        return {key: _finite(item, str(key), nonfinite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item, name, nonfinite) for item in value]
    return value


def read(folder: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The whole events from byte `offset` on, their sentences as messages again, and the offset to read from next."""
    try:
        with open(folder / NAME, "rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    whole = data[: data.rfind(b"\n") + 1]
    events = []
    for line in whole.split(b"\n"):
        with contextlib.suppress(ValueError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict) and isinstance(event.get("kind"), str):
                events.append(with_messages(event) if "messages" in event else event)
    return events, offset + len(whole)


def with_messages(event: dict[str, Any]) -> dict[str, Any]:
    """The event's sentences as the messages they were when they were written."""
    templates = event.pop("messages")
    for name, record in templates.items() if isinstance(templates, dict) else ():
        if isinstance(event.get(name), str):
            event[name] = restored(event[name], record)
    return event


def began(folder: Path) -> float | None:
    """When the run began first, in epoch seconds; None where no journal says so."""
    try:
        with open(folder / NAME, "rb") as file:
            event = json.loads(file.readline())
    except (OSError, ValueError):
        return None
    when = event.get("t") if isinstance(event, dict) else None
    return when if isinstance(when, int | float) else None


def sampled_answer(event: Mapping[str, Any]) -> SampledAnswer | None:
    """The answer in an event; None where it is of another kind. Earlier versions wrote `sample` for both kinds, and
    those to examples had a `reference`, if only null."""
    if event["kind"] not in ("answer", "sample"):
        return None
    reference, step = event.get("reference"), event.get("step")
    return SampledAnswer(
        step if isinstance(step, int) else 0,
        str(event.get("prompt", "")),
        str(event.get("text", "")),
        None if reference is None else str(reference),
        event["kind"] == "answer" or "reference" in event,
    )


def effective(events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The events that count: those beyond a later `resume`'s step are dropped, so no step stands twice."""
    kept: list[dict[str, Any]] = []
    for event in events:
        if event["kind"] == "resume":
            last = event.get("from_step", -1)
            kept = [old for old in kept if old["kind"] not in _STEP_KINDS or old.get("step", last) <= last]
        kept.append(event)
    return iter(kept)
