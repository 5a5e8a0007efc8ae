"""What is on record of a worker that is gone: its last word, who started it, what was asked of it."""

from collections.abc import Sequence

from engine.daemon import process_control, retry_policy
from engine.daemon.worker_watch import Worker
from engine.store.run_records import Event, RunState

_ENDS = (RunState.DONE.value, RunState.STOPPED.value, RunState.FAILED.value)


def last_output(worker: Worker, events: Sequence[Event]) -> dict | None:
    """The last state in the journal of this very worker, where it is one that ends a run."""
    last_state, ours = None, False
    for event in events:
        if event.kind == retry_policy.START and event.detail.get("pid") == worker.pid:
            ours = True
        if event.kind != "state":
            continue
        if event.message == RunState.STARTING.value:
            ours, last_state = event.detail.get("pid") == worker.pid, None
        elif event.message in _ENDS:
            # A worker that fails before it starts has not said its pid with a state.
            recent = worker.started is not None and event.time >= worker.started  # a clock may be set: not alone
            last_state = {"state": event.message, **event.detail} if ours or recent else None
    return last_state


def is_ours(worker: Worker, events: Sequence[Event]) -> bool:
    """Whether a daemon started it: by hand, one has no such event."""
    last = next((event for event in reversed(events) if event.kind == retry_policy.START), None)
    return last is not None and last.detail.get("pid") == worker.pid


def signal_sent_before(events: Sequence[Event]) -> str | None:
    """What an earlier daemon had signalled to the worker: the request itself is gone once the journal says stopped."""
    for event in reversed(events):
        if event.kind in ("stop", "kill"):
            return event.kind
        if event.kind == retry_policy.START:
            break
    return None


def rebooted_since_start(worker: Worker, events: Sequence[Event], current_boot: str) -> bool:
    """Whether the machine was started after the worker. Start times serve only where the boot is not on record:
    they move when the clock is set.
    """
    boot = next((event.detail.get("boot") for event in reversed(events) if event.kind == retry_policy.START), None)
    if boot and current_boot:
        return boot != current_boot
    return worker.started is not None and process_control.rebooted_since(worker.started)
