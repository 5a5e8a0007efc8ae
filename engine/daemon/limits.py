"""How long, how often, how much: the daemon's numbers, each with its reason. Tests give it others."""

from dataclasses import dataclass

from engine.base.units import GIB, MIB

IDLE_EXIT = "idle_exit_seconds"
"""Kept with the workspace under this name: every daemon of it leaves after so long without runs."""


@dataclass(frozen=True, slots=True)
class Limits:
    tick_seconds: float = 0.25
    """Between looks at journals and database: a logged value is committed within 0.5 s even when a look falls due
    just before it and the import itself takes a while."""
    schedule_seconds: float = 2.0
    """How often a waiting queue is decided again when nothing but the machine has changed."""
    disk_reserve_bytes: int = GIB
    """Nothing starts below: runs.db and the journals of the runs that go on must have room to be written."""
    trash_seconds: float = 6.0
    """Between two deletions from the trash where a disk is full: a paused run looks for room every 5 s."""
    overdue_seconds: float = 10.0
    """A broken promise is reported so long after: a loaded machine is late by seconds."""
    hung_seconds: float = 900.0
    """A worker silent for so long beyond its promise is killed. Known pauses that are no death (a network drive that
    comes back, a driver reset) end within minutes."""
    retry_first_seconds: float = 30.0
    retry_growth: float = 4.0
    retry_last_seconds: float = 3600.0
    """Pauses before retries: 30 s, 2 min, 8 min, 32 min, then every hour."""
    memory_restarts: int = 4
    """A run that memory ended is started again with half the tokens a pass, so often: then a sixteenth is left."""
    warm_patience_seconds: float = 60.0
    """How long a first run waits for the warm process. It imports what a cold start would import too, and began
    earlier, so waiting is quicker, unless it hangs."""
    warm_idle_seconds: float = 600.0
    """The warm process holds some 500 MB; with nothing queued or running for so long it is let go."""
    engine_wanted_seconds: float = 30.0
    """A server asks again for as long as somebody waits; what nobody has asked for so long is wanted no more."""
    engine_rest_seconds: float = 10.0
    """An engine rests for so long before it gives way: whoever was told to come again comes within that time."""
    engine_busy_seconds: float = 60.0
    """A run that waits for an engine which never rests has its turn then."""
    engine_leave_seconds: float = 60.0
    """For the answers that an engine is writing."""
    unserved_seconds: float = 3.0
    """Without a server nobody can ask an engine; one that is started again takes half a second."""
    clock_seconds: float = 2.0
    """Slewing keeps clock and uptime together; a difference that moves by so much at once is a clock that was set."""
    database_seconds: float = 2.0
    """How long one write waits for another process. A longer lock is waited out in rounds, between which workers are
    still looked after."""
    log_bytes: int = MIB
    """The daemon's log keeps its last quarter when it grows beyond."""
    gpu_history_seconds: float = 90 * 86400.0
    """Readings of GPUs are forgotten then; by that time there is one a minute."""
