"""What a worker reports about itself: heartbeats, versions, what it loaded, and how it ended."""

import contextlib
import errno
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine import __version__
from engine.base.disk_room import refusal
from engine.base.errors import EngineError, FileTooLarge, NotFinite, OomKilled, OutOfMemory, first_line
from engine.base.messages import msg
from engine.base.system_errors import refused_write
from engine.plan.throughput import device_label
from engine.runs import journal
from engine.runs.journal import Journal
from engine.runs.resume_run import undo
from engine.worker.model.load import Precision
from engine.worker.model.loss import PackedLoss
from engine.worker.model.out_of_memory import is_out_of_memory

_HEARTBEAT_SECONDS = 5.0
_NO_WRITING = (errno.EACCES, errno.EPERM, errno.EROFS)


class Heartbeat:
    """Signs of life. Each announces when the next will come at the latest, so that slow is not taken for dead."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._last = 0.0

    def announce(self, seconds: float, doing: str) -> None:
        """Beat now, and within `seconds` again; `doing` is shown as the run's phase."""
        self._last = time.monotonic()
        self._journal.write("beat", next=round(seconds, 1), doing=doing)

    def renew(self, seconds: float, doing: str) -> None:
        """Announce again, if the last heartbeat is some seconds old."""
        if time.monotonic() - self._last >= _HEARTBEAT_SECONDS:
            self.announce(seconds, doing)

    def step(self, step_seconds: float) -> None:
        """After an optimizer step that took `step_seconds`."""
        self.renew(max(30.0, 10 * step_seconds), "training")


def versions() -> dict[str, str]:
    """Of finetop, Python and the libraries that decide what is computed."""
    import peft
    import transformers

    return {
        "finetop": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }


def describe(
    model: nn.Module, inner: nn.Module, parameters: list[nn.Parameter], precision: Precision, loss_fn: Any, ranks: int
) -> dict[str, Any]:
    """What was loaded, for the journal."""
    device = torch.cuda.get_device_name(precision.device) if precision.device.type == "cuda" else "cpu"
    return {
        "class": type(inner).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in parameters),
        "device": device_label(device, ranks),
        "ranks": ranks,
        "autocast": str(precision.autocast).removeprefix("torch."),
        "weights": sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()}),
        "path": "packed" if isinstance(loss_fn, PackedLoss) else "plain",
    }


@contextlib.contextmanager
def report_failure(folder: Path) -> Iterator[None]:
    """Write the reason of a failure into the journal, whatever it was, and raise it on."""
    began = time.monotonic()

    def failed(reason: str, hint: str, cause: str) -> None:
        seconds = round(time.monotonic() - began, 1)
        with contextlib.suppress(OSError):
            details = {"hint": hint, "cause": cause, "seconds": seconds}
            writing, (earlier_end, schedule) = Journal(folder), _earlier_end(folder)
            if schedule:
                writing.write("plan", **schedule)
            if earlier_end:
                with contextlib.suppress(EngineError):
                    undo(folder)
                writing.write("state", **earlier_end, refused=reason, **details)
            else:
                writing.write("state", state="failed", reason=reason, **details)

    try:
        yield
    except Exception as error:
        failed(**failure(error))
        raise


def _earlier_end(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """How a run had ended that was to be resumed and did not go on, and its plan where another was written since.

    Both are empty for a run that had not ended, or that went on and failed later.
    """
    events, another_plan = journal.read(folder)[0], False
    earlier_end: dict[str, Any] = {}
    for event in reversed(events):
        if event["kind"] == "plan" and earlier_end:
            schedule = {key: field for key, field in event.items() if key not in ("t", "kind")}
            return earlier_end, schedule if another_plan else {}
        if earlier_end:
            continue
        if event["kind"] == "resume" or event.get("state") == "failed":
            break
        another_plan |= event["kind"] == "plan"
        if event.get("state") in ("done", "stopped"):
            earlier_end = {key: event[key] for key in ("state", "step", "reason") if key in event}
    return earlier_end, {}


def failure(error: Exception) -> dict[str, str]:
    """Reason, hint and cause, as the journal has them."""
    refused, storage = refused_write(error), "file-too-large" if refusal(error) == errno.EFBIG else "disk-full"
    if isinstance(error, EngineError):
        return {"reason": error.message, "hint": error.hint, "cause": storage if refused else _cause(error)}
    # Some say more than a line: torch's CUDA errors add advice for those who write kernels.
    reason, hint, cause = f"{type(error).__name__}: {first_line(error)}", "The log holds the traceback.", "exception"
    if is_out_of_memory(error):
        reason, cause = msg("out of memory: {error}", error=first_line(error)), "out-of-memory"
        hint = "`finetop top` shows who else holds memory."
    elif isinstance(error, OSError) and error.errno in _NO_WRITING and error.filename:
        reason = msg("{filename} cannot be written: {strerror}", filename=error.filename, strerror=error.strerror)
        hint = "It goes on from its last checkpoint once that is fixed."
    elif refused:
        reason, hint, cause = refused.message, f"{refused.hint} It goes on from its last checkpoint.", storage
    return {"reason": reason, "hint": hint, "cause": cause}


def _cause(error: EngineError) -> str:
    if isinstance(error, NotFinite):
        return "not-finite"
    if isinstance(error, OutOfMemory):
        return "out-of-memory"
    if isinstance(error, OomKilled):
        return "oom-killer"
    if isinstance(error, FileTooLarge):
        return "file-too-large"
    return "input" if error.exit_code == 2 else "failed"
