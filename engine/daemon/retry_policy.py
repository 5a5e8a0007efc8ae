"""After a worker's end: whether its run is started again, when, and with what.

A run whose passes lie in the memory that ran out goes on from its last checkpoint with half the tokens a pass, which
changes nothing in what is learned. Other failures, that of a run on a GPU which exhausts the host's memory too, are
tried again as often as the user asked (`run.retries`), after growing pauses.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.base.errors import EngineError
from engine.base.messages import msg
from engine.base.units import duration
from engine.daemon.exit_status import RETRYABLE, ExitCause, ExitStatus
from engine.daemon.limits import Limits
from engine.runs.run_folder import change_run
from engine.settings.resolve import Layer
from engine.store import queue
from engine.store.connect import Connection
from engine.store.run_records import Event, Run

MEMORY_RESTART, RETRY, START = "memory-restart", "retry", "start"
"""Events by which a daemon knows what it, or the one before it, has done already."""
_SMALLEST_PASS = 8
_MARGIN = 1.1
"""Beside its peak a run needs room for the allocator's fragments."""
_LARGEST_SHARE = 0.95
"""No GPU is ever wholly free: driver and display keep some."""


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """The GPU a run was on when it ended, as far as anyone knows."""

    total_bytes: int | None = None
    others_bytes: int = 0
    """Held by processes that are none of ours."""
    peak_bytes: int | None = None
    """The most the run has held."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the run again."""

    event: str
    message: str
    pause_seconds: float
    micro_tokens: int | None = None
    """Tokens per forward pass from now on; None: as before."""


def decide(
    run: Run, exit_status: ExitStatus, events: Sequence[Event], settings: dict, gpu_memory: GpuMemory, limits: Limits
) -> Restart | None:
    """`Restart`, or None where the run stays ended. Pure: `events` are the run's, `settings` its own by path."""
    if exit_status.cause not in RETRYABLE:
        return None
    out_of_memory = exit_status.cause is ExitCause.GPU_MEMORY or (
        exit_status.cause is ExitCause.HOST_MEMORY and not run.gpus
    )
    if out_of_memory and settings.get("run.on_oom") != "fail":
        restart = _after_out_of_memory(run, exit_status.cause, events, settings, gpu_memory, limits)
        if restart:
            return restart
    used = sum(event.kind == RETRY for event in events)
    if used >= run.retries:
        return None
    pause = min(limits.retry_first_seconds * limits.retry_growth**used, limits.retry_last_seconds)
    return Restart(
        RETRY,
        msg("Retry {used} of {retries} in {pause}.", used=used + 1, retries=run.retries, pause=duration(pause)),
        pause,
    )


def _after_out_of_memory(
    run: Run, cause: ExitCause, events: Sequence[Event], settings: dict, gpu_memory: GpuMemory, limits: Limits
) -> Restart | None:
    restarts = [event for event in events if event.kind == MEMORY_RESTART]
    if len(restarts) >= limits.memory_restarts:
        return None
    others = gpu_memory.others_bytes > 0
    tried_smaller = cause is ExitCause.GPU_MEMORY  # within the step, down to a single example; a kill leaves no time
    if restarts and restarts[-1].step == run.step and tried_smaller and not others:
        return None  # the step that did not fit then does not fit now, with the whole GPU to itself
    in_use = _tokens_per_pass(events, settings)
    fewer = max(in_use // 2, _SMALLEST_PASS) if in_use else None
    if fewer is None and not others:
        return None  # not even the model fits
    what = "as it was"
    if fewer:
        what = msg("with {fewer:,} tokens a pass instead of {in_use:,}", fewer=fewer, in_use=in_use)
    when = " once others leave it enough memory" if others else ""
    message = msg(
        "Out of {memory}: goes on from its last checkpoint {what}{when}. The result is the same.",
        memory="GPU memory" if run.gpus else "memory",
        what=what,
        when=when,
    )
    return Restart(MEMORY_RESTART, message, 0.0, fewer)


def _tokens_per_pass(events: Sequence[Event], settings: dict) -> int | None:
    """As the worker last reported; else as set."""
    reported = (event.detail["micro_tokens"] for event in reversed(events) if "micro_tokens" in event.detail)
    tokens = next(reported, None) or settings.get("train.micro_tokens")
    return tokens if isinstance(tokens, int) and tokens > 0 else None


def apply(conn: Connection, run: Run, folder: Path, restart: Restart, gpu_memory: GpuMemory) -> bool:
    """Queue the run again. False where another process was quicker, or its settings cannot be written."""
    if restart.micro_tokens:
        try:
            layer = Layer(MEMORY_RESTART, {"train.micro_tokens": restart.micro_tokens})
            changed = change_run(folder, [layer])
        except EngineError as error:
            queue.note(
                conn, run.id, MEMORY_RESTART, msg("Not started again: {message}", message=error.message), step=run.step
            )
            return False
        queue.put_settings(conn, run.id, changed.config.flat(), changed.origin)
    if restart.event == MEMORY_RESTART and gpu_memory.others_bytes:
        queue.edit(conn, run.id, estimate_bytes=_needed(run, gpu_memory))
    # Where it died before its first step, the checkpoint it was to start from is still the one that was asked for.
    point = run.resume_step if run.resume_step is not None and run.step <= run.resume_step else None
    not_before = time.time() + restart.pause_seconds if restart.pause_seconds else None
    outcome = queue.resume(conn, run.id, point, not_before)
    if outcome:
        queue.note(conn, run.id, restart.event, restart.message, step=run.step)
    return bool(outcome)


def _needed(run: Run, gpu_memory: GpuMemory) -> int | None:
    """What must be free before it is tried again: more than there was, for within its step it had tried with less.

    At least half of what others hold has to go; if that is too little, the next time is waited for longer. None, which
    waits for a GPU without others, where nobody knows how large it is.
    """
    if not gpu_memory.total_bytes:
        return None
    had = gpu_memory.total_bytes - gpu_memory.others_bytes
    peak_bytes = round((gpu_memory.peak_bytes or 0) * _MARGIN)
    needed = max(had + gpu_memory.others_bytes // 2, peak_bytes, run.estimate_bytes or 0)
    return min(needed, round(gpu_memory.total_bytes * _LARGEST_SHARE))
