"""Whether the kernel's OOM killer took a process, by what it counts; nothing else tells it from another's SIGKILL.

A victim's own control group counts it (`oom_kill` in memory.events, in version 1 in memory.oom_control), and the group
whose limit was reached counts that (`oom`; in version 1 `memory.failcnt`, of a page that was refused it). Where no
limit was reached the machine's memory had run out. A process of no group is looked for in the machine's own count
(/proc/vmstat), which has those of all groups, too.
"""

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.base import control_groups
from engine.base.control_groups import ControlGroup, groups_of, memory_limits
from engine.base.messages import msg
from engine.base.units import bytes_text

_DYING_SECONDS = 30.0
"""A kill is counted before the victim is gone, which takes the longer the more memory it held."""
_KILLS, _AT_LIMIT = "kills", "at limit"
_MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class OomCounts:
    """What had been counted at one time."""

    taken_at: float
    """By `monotonic()`."""
    counts: Mapping[str, Mapping[str, int]]
    """By the folder of a control group, and for the machine. What a group does not count is not there."""


class OomWatch:
    """Watches one process, or the children of this one. To be made while it is alive: of one that is gone nobody knows
    the groups, and this process's are taken for them."""

    def __init__(self, pid: int | str = "self", since: Mapping[str, Mapping[str, int]] | None = None) -> None:
        """`since`: what `counts` was when the process began, as far as somebody has kept it."""
        self._groups = groups_of("memory", pid) or groups_of("memory")
        current = _count(self._groups)
        self._earlier = self._latest = OomCounts(current.taken_at, {**current.counts, **(since or {})})

    @property
    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """As JSON may have them."""
        return self._latest.counts

    def still_alive(self) -> None:
        """What was counted until a while ago was not this process."""
        if time.monotonic() - self._latest.taken_at >= _DYING_SECONDS:
            self._earlier, self._latest = self._latest, _count(self._groups)

    def verdict(self) -> str:
        """What ran out, in words such as `limit 3.0 GiB of this container`; '' where nobody was killed for memory.

        To be asked of a process that SIGKILL has ended.
        """
        earlier, current = self._earlier.counts, _count(self._groups).counts

        def risen(key: str, name: str) -> bool | None:
            count = current.get(key, {}).get(name)
            return None if count is None else count > earlier.get(key, {}).get(name, 0)

        keys = [str(group.folder) for group in self._groups]
        counting = [key for key in keys if risen(key, _KILLS) is not None]
        if not risen(counting[0] if counting else _MACHINE, _KILLS):
            return ""
        reached = [group for group in self._groups if risen(str(group.folder), _AT_LIMIT)]
        limit = min(memory_limits(reached), key=lambda limit: limit.limit_bytes, default=None)
        return str(limit) if limit else machine_memory()

    def hint(self, code: int) -> str:
        """What to add to the exit code of a child; '' unless it was killed."""
        if code != -signal.SIGKILL:
            return ""
        if not any(_KILLS in counted for counted in self.counts.values()):  # macOS, gVisor, kernels before 4.13
            return "The system kills the largest process when memory runs out: `dmesg` tells."
        if ran_out := self.verdict():
            return msg("Out of memory ({ran_out}): the kernel's OOM killer ended it.", ran_out=ran_out)
        return "Someone sent SIGKILL: the kernel's OOM killer, which does so when memory runs out, has counted nothing."


def oom_reason(ran_out: str, where: str = "") -> str:
    """Why a run ended whose worker it took. `ran_out`: a verdict; `where`: such as ` at step 40`."""
    return msg("out of memory ({ran_out}){where}: the kernel's OOM killer ended it", ran_out=ran_out, where=where)


def machine_memory() -> str:
    """`all 23.5 GiB of this machine`."""
    total_bytes = _entries("proc/meminfo").get("MemTotal:", 0) * 1024
    return msg("all {size} of this machine", size=bytes_text(total_bytes)) if total_bytes else "this machine's memory"


def _count(groups: Sequence[ControlGroup]) -> OomCounts:
    counts = {str(group.folder): counted for group in groups if (counted := _of_group(group))}
    machine = _entries("proc/vmstat")
    if "oom_kill" in machine:
        counts[_MACHINE] = {_KILLS: machine["oom_kill"]}
    return OomCounts(time.monotonic(), counts)


def _of_group(group: ControlGroup) -> dict[str, int]:
    events = group.entries("memory.events") or group.entries("memory.oom_control")
    counted = {}
    if "oom_kill" in events:
        counted[_KILLS] = events["oom_kill"] + events.get("oom_group_kill", 0)
    at_limit = {**events, **group.entries("memory.events.local")}.get("oom", group.number("memory.failcnt"))
    if at_limit is not None:
        counted[_AT_LIMIT] = at_limit
    return counted


def _entries(name: str) -> dict[str, int]:
    return ControlGroup(control_groups.ROOT, "/").entries(name)
