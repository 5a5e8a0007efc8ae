"""Whose process is it: from the pids NVML gives to user, command, and the run it belongs to.

Attribution needs no permission from anyone: a process belongs to a run when the run's worker is among its ancestors
(pid *and* start time, since pids are used again), or leads its session. Ancestors are remembered from the first
sight, so a data loader whose parent has died still counts.

Containers: drivers before about R555 report pids of the host, whatever namespace asks. There a number may name
nothing here, or name the wrong process. Inside a pid namespace a process is therefore believed only when it holds
an NVIDIA device file open; every other pid stays "unknown", never "not ours".
"""

import os
import pwd
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import psutil

from engine.monitor.samples import GpuProcess, RunId

START_TOLERANCE_SECONDS = 2.0
"""psutil adds the boot time, which moves when the clock is set; no kernel hands a pid out again this soon."""

_HOST_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO in the kernel's include/linux/proc_ns.h: fixed since Linux 3.8."""

Run = tuple[int, float | None]
"""A worker's pid and its start time (epoch seconds), or None where that is not known."""


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What does not change while a process lives, read once."""

    pid: int
    identified: bool
    user: str | None = None
    command: str | None = None
    started_at: float | None = None
    lineage: tuple[tuple[int, float], ...] = ()
    session: tuple[int, float | None] | None = None


def described(process: GpuProcess, facts: ProcessFacts) -> GpuProcess:
    """The process with what is known about it."""
    return replace(process, **{field.name: getattr(facts, field.name) for field in fields(facts)})


def attribute(processes: Iterable[GpuProcess], runs: Mapping[RunId, Run]) -> tuple[GpuProcess, ...]:
    """The same processes, each with the run it belongs to, or with None."""
    by_pid = {pid: (run, started) for run, (pid, started) in runs.items()}
    return tuple(replace(process, run=_run_of(process, by_pid)) for process in processes)


def _run_of(process: GpuProcess, by_pid: dict[int, tuple[RunId, float | None]]) -> RunId | None:
    if not process.identified:
        return None
    for pid, started in process.lineage:
        if pid in by_pid and _same_start(by_pid[pid][1], started):
            return by_pid[pid][0]
    if process.session is None:
        return None
    # The kernel gives no pid out again while it names a session, so of a dead leader the number is enough.
    leader, leader_started = process.session
    if leader in by_pid and (leader_started is None or _same_start(by_pid[leader][1], leader_started)):
        return by_pid[leader][0]
    return None


def _same_start(expected: float | None, actual: float) -> bool:
    return expected is None or abs(expected - actual) <= START_TOLERANCE_SECONDS


def in_host_pid_namespace() -> bool:
    try:
        return os.readlink("/proc/self/ns/pid") == _HOST_PID_NAMESPACE
    except OSError:
        return True


class ProcessTable:
    """Remembers the facts of every process seen on a GPU for as long as it lives."""

    def __init__(self, *, device_prefix: str = "/dev/nvidia", host_pids: bool | None = None) -> None:
        self._device_prefix = device_prefix
        self._host_pids = in_host_pid_namespace() if host_pids is None else host_pids
        self._known: dict[int, tuple[psutil.Process, ProcessFacts]] = {}

    def look(self, pids: Iterable[int]) -> dict[int, ProcessFacts]:
        """Facts for each pid. A pid that is not visible here gets facts that say only whether that means anything."""
        present = set(pids)
        for gone in self._known.keys() - present:
            del self._known[gone]
        return {pid: self._facts(pid) for pid in present}

    def _facts(self, pid: int) -> ProcessFacts:
        remembered = self._known.get(pid)
        if remembered is not None and remembered[0].is_running():
            return remembered[1]
        self._known.pop(pid, None)
        try:
            process = psutil.Process(pid)
            facts = self._read(process)
        except psutil.Error:
            # On the host itself only another user's process can be hidden (hidepid) and our workers run as us,
            # so "not ours" is the truth. In a namespace the pid says nothing.
            return ProcessFacts(pid, identified=self._host_pids)
        if facts.identified:
            self._known[pid] = (process, facts)
        return facts

    def _read(self, process: psutil.Process) -> ProcessFacts:
        if not self._host_pids and not self._holds_device(process.pid):
            return ProcessFacts(process.pid, identified=False)
        with process.oneshot():
            started = process.create_time()
            try:
                command = " ".join(process.cmdline()) or process.name()
            except psutil.AccessDenied:
                command = process.name()
            return ProcessFacts(
                pid=process.pid,
                identified=True,
                user=_user_name(process.uids().real),
                command=command,
                started_at=started,
                lineage=((process.pid, started), *_ancestors(process)),
                session=_session(process.pid),
            )

    def _holds_device(self, pid: int) -> bool:
        folder = f"/proc/{pid}/fd"
        try:
            return any(os.readlink(f"{folder}/{fd}").startswith(self._device_prefix) for fd in os.listdir(folder))
        except OSError:
            return False


def _ancestors(process: psutil.Process) -> list[tuple[int, float]]:
    ancestors = []
    for parent in process.parents():
        try:
            ancestors.append((parent.pid, parent.create_time()))
        except psutil.Error:
            break
    return ancestors


def session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _session(pid: int) -> tuple[int, float | None] | None:
    leader = session_of(pid)
    if not leader:
        return None
    try:
        return leader, psutil.Process(leader).create_time()
    except psutil.Error:
        return leader, None


@lru_cache(maxsize=256)
def _user_name(uid: int) -> str:
    # Through LDAP this may take seconds, hence once per user and on the monitor's own thread.
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
