"""The runs of a form on their way into the queue."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from engine.base.messages import msg, msg_n
from engine.settings.resolve import Resolved
from engine.settings.schema import RunConfig
from tui.screens.new_run_form import Form, group_name

Queue = Callable[[Any], list[int]]
"""Queues by an `engine.control.Control` and returns the ids."""


def queue_call(form: Form, runs: Sequence[Resolved], parent: tuple[int, int | str] | None, held: bool) -> Queue:
    """What queues all runs of a form: new ones, together where they are several, or forks of a checkpoint."""
    if parent is not None:
        return partial(_fork, runs, parent, form.typed, held)
    if len(runs) > 1:
        return lambda control: control.add_all(runs, held=held, sweep=group_name(form))
    return lambda control: [control.add(runs[0], held=held)]


def queueing_words(runs: int) -> str:
    """What is being done meanwhile."""
    return msg_n("queueing {n:,} run …", "queueing {n:,} runs …", runs)


def queued_words(run_ids: Sequence[int], held: bool) -> str:
    """What came of it."""
    held_words = msg_n(", held: h releases it", ", held: h releases them", len(run_ids)) if held else ""
    if len(run_ids) == 1:
        return msg("queued run {run_id}{held_words}", run_id=run_ids[0], held_words=held_words)
    return msg(
        "queued {num_runs} runs, {first} to {last}{held_words}",
        num_runs=len(run_ids),
        first=run_ids[0],
        last=run_ids[-1],
        held_words=held_words,
    )


def _fork(
    runs: Sequence[Resolved], parent: tuple[int, int | str], typed: Mapping[str, str], held: bool, control: Any
) -> list[int]:
    run_id, point = parent
    return [
        control.fork(run_id, str(point), _changes(run.config, typed), _name(run.config, typed), held=held)
        for run in runs
    ]


def _changes(config: RunConfig, typed: Mapping[str, str]) -> dict[str, Any]:
    """The values of what was typed; the name is given apart."""
    flat = config.flat()
    return {path: flat[path] for path in typed if path != "run.name"}


def _name(config: RunConfig, typed: Mapping[str, str]) -> str:
    return config.run.name if "run.name" in typed else ""
