"""How a worker ended: a pure function from what is known to a verdict.

The journal is believed first: it is the worker's own word. What it could not say any more is read off its exit code or
signal, what the kernel counts of its OOM killer, and what was requested.
"""

import enum
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.base.messages import msg
from engine.base.oom_kills import oom_reason
from engine.base.units import duration
from engine.base.worker_process import DONE, STOPPED, signal_name
from engine.store.run_records import RunState

_WRONG_INPUT = 2


class ExitCause(enum.StrEnum):
    """In one word, as events and retries know it."""

    DONE = "done"
    STOPPED = "stopped"
    KILLED = "killed"
    """By request."""
    ASKED = "asked"
    """To save and leave, by something that is not us: a machine that shuts down, an administrator."""
    INPUT = "input"
    NOT_FINITE = "not-finite"
    DISK_FULL = "disk-full"
    GPU_MEMORY = "out-of-memory"
    HOST_MEMORY = "oom-killer"
    FILE_SIZE = "file-too-large"
    EXCEPTION = "exception"
    EXIT = "exit"
    """Left with a code, and its journal has no end."""
    SIGNAL = "signal"
    HUNG = "hung"
    VANISHED = "vanished"
    REBOOT = "reboot"
    NOT_STARTED = "not-started"


RETRYABLE = frozenset(
    {
        ExitCause.DISK_FULL,
        ExitCause.EXCEPTION,
        ExitCause.EXIT,
        ExitCause.SIGNAL,
        ExitCause.HOST_MEMORY,
        ExitCause.HUNG,
        ExitCause.VANISHED,
        ExitCause.REBOOT,
        ExitCause.NOT_STARTED,
    }
    | {ExitCause.GPU_MEMORY, ExitCause.ASKED}
)
"""What may go well another time. Wrong input stays wrong, limits of files too, and a run repeats its NaN to the bit."""


@dataclass(frozen=True, slots=True)
class ExitEvidence:
    """What is known of a worker that is gone."""

    status: int | None = None
    """As wait(2) has it; None where it was no child of ours."""
    last_state: Mapping[str, Any] | None = None
    """The last `state` of its journal, if this attempt wrote one."""
    requested: str | None = None
    """'stop' or 'kill', as requested before it ended."""
    ours: bool = True
    """The queue started it, not a person by hand, who may also have ended it."""
    hung_seconds: float | None = None
    """We killed it after so long a silence."""
    out_of_memory: str = ""
    """What had run out when the kernel's OOM killer took it, as `OomWatch.verdict` has it; '' where it did not."""
    rebooted: bool = False
    """The machine started after the worker did."""
    step: int = 0


@dataclass(frozen=True, slots=True)
class ExitStatus:
    cause: ExitCause
    state: RunState
    reason: str | None
    """None where the journal has it."""
    exit_code: int | None = None
    """Of the process; 128 + the signal's number, as a shell has it."""


def classify_exit(evidence: ExitEvidence) -> ExitStatus:
    """What to call it."""
    status, last_state = evidence.status, evidence.last_state or {}
    code = None if status is None else exit_code(status)
    state = last_state.get("state")
    where = msg(" at step {step}", step=evidence.step) if evidence.step else ""
    if "refused" in last_state:
        cause = ExitCause.INPUT if last_state.get("cause") == "failed" else _exit_cause(last_state, code)
        return ExitStatus(cause, RunState(str(state)), None, code)
    if state == "done":
        return ExitStatus(ExitCause.DONE, RunState.DONE, None, code)
    if state == "stopped" and evidence.ours and not evidence.requested:
        reason = msg("asked to leave by something other than finetop; saved{where}", where=where)
        return ExitStatus(ExitCause.ASKED, RunState.INTERRUPTED, reason, code)
    if state == "stopped":
        return ExitStatus(ExitCause.STOPPED, RunState.STOPPED, None, code)
    if state == "failed":
        return ExitStatus(_exit_cause(last_state, code), RunState.FAILED, None, code)
    if evidence.requested == "kill":
        return ExitStatus(ExitCause.KILLED, RunState.STOPPED, msg("killed by you{where}", where=where), code)
    if evidence.hung_seconds is not None:
        reason = msg(
            "hung: no sign of life for {hung_seconds} beyond what it had promised{where}",
            hung_seconds=duration(evidence.hung_seconds),
            where=where,
        )
        return ExitStatus(ExitCause.HUNG, RunState.FAILED, reason, code)
    if evidence.rebooted:
        return ExitStatus(
            ExitCause.REBOOT, RunState.INTERRUPTED, msg("the machine was restarted{where}", where=where), code
        )
    number = None if status is None else _signal(status)
    if evidence.out_of_memory and (number == signal.SIGKILL or status is None):
        reason = oom_reason(evidence.out_of_memory, where)
        return ExitStatus(ExitCause.HOST_MEMORY, RunState.FAILED, reason, code)
    if evidence.requested == "stop" and number == signal.SIGTERM:
        return ExitStatus(ExitCause.STOPPED, RunState.STOPPED, msg("stopped while loading{where}", where=where), code)
    if number is not None:
        reason = msg(
            "killed by signal {number} ({signal_name}){where}, which finetop did not send",
            number=number,
            signal_name=signal_name(number),
            where=where,
        )
        return ExitStatus(ExitCause.SIGNAL, RunState.FAILED, reason, code)
    if code is None:
        return ExitStatus(ExitCause.VANISHED, RunState.INTERRUPTED, msg("its process vanished{where}", where=where))
    if code == DONE:
        return ExitStatus(
            ExitCause.EXIT,
            RunState.FAILED,
            msg("its process ended without saying that it was done{where}", where=where),
            code,
        )
    if code == STOPPED:
        return ExitStatus(ExitCause.STOPPED, RunState.STOPPED, f"stopped{where}", code)
    if code == _WRONG_INPUT:
        return ExitStatus(ExitCause.INPUT, RunState.FAILED, "could not begin; the log says why", code)
    return ExitStatus(
        ExitCause.EXIT, RunState.FAILED, msg("its process ended with code {code}{where}", code=code, where=where), code
    )


def _exit_cause(last_state: Mapping[str, Any], code: int | None) -> ExitCause:
    causes = {
        "input": ExitCause.INPUT,
        "not-finite": ExitCause.NOT_FINITE,
        "disk-full": ExitCause.DISK_FULL,
        "out-of-memory": ExitCause.GPU_MEMORY,
        "oom-killer": ExitCause.HOST_MEMORY,
        "file-too-large": ExitCause.FILE_SIZE,
        "exception": ExitCause.EXCEPTION,
    }
    return causes.get(str(last_state.get("cause")), ExitCause.INPUT if code == _WRONG_INPUT else ExitCause.EXCEPTION)


def exit_code(status: int) -> int:
    number = _signal(status)
    return status >> 8 & 0xFF if number is None else 128 + number


def _signal(status: int) -> int | None:
    return status & 0x7F or None
