"""The monitor: two threads at one round per second, and a snapshot that is ready at once.

`latest()` never asks the driver or the kernel anything; it hands out what the rounds have left, with its age. So a
hung driver shows as an old figure and delays nobody. Start it before or after a fork, never between: a forked child
has none of the threads.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from engine.base.messages import msg
from engine.base.units import duration
from engine.monitor.gpu_processes import ProcessFacts, ProcessTable, Run, attribute, described
from engine.monitor.host import DiskReader, HostReader
from engine.monitor.nvml import Device, DriverUnavailable, Nvml
from engine.monitor.polling import Poller, PollResult, Task
from engine.monitor.run_processes import RunReader
from engine.monitor.samples import GpuProcess, GpuSample, RunId, Snapshot

_SCAN, _HOST, _DISK, _PROCESSES, _RUNS = "scan", "host", "disk", "processes", "runs"


class Monitor:
    """Watches the GPUs, the host, and the processes of the runs it is given."""

    def __init__(self, workspace: Path | str = ".", *, period: float = 1.0, table: ProcessTable | None = None) -> None:
        self._nvml = Nvml()
        self._devices: list[Device] = []
        self._gpu_problem: str | None = None
        self._runs: Mapping[RunId, Run] = {}
        self._host, self._disk, self._run_reader = HostReader(), DiskReader(Path(workspace)), RunReader()
        self._table = table or ProcessTable()
        self._gpu_rounds = Poller(self._gpu_plan, period=period, name="monitor-nvml")
        self._host_rounds = Poller(self._host_plan, period=period, name="monitor-host")

    def start(self) -> None:
        self._gpu_rounds.start()
        self._host_rounds.start()

    def stop(self) -> None:
        """Ends the threads after their present round; a thread that hangs is left to die with the process."""
        self._gpu_rounds.stop()
        self._host_rounds.stop()

    def watch(self, runs: Mapping[RunId, Run]) -> None:
        """Sets the live runs: id to (worker pid, its start time)."""
        self._runs = dict(runs)

    def wait(self, rounds: int = 1, seconds: float = 3.0) -> bool:
        """Waits until each thread has done so many rounds, at most so long. For a command that prints once."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._check()
            if min(self._gpu_rounds.finished, self._host_rounds.finished) >= rounds:
                return True
            time.sleep(0.01)
        return False

    def latest(self) -> Snapshot:
        """What is known now, at once."""
        self._check()
        now, runs = time.monotonic(), self._runs
        host_results = self._host_rounds.results
        loads = host_results.get(_RUNS)
        return Snapshot(
            taken_at=time.time(),
            gpus=tuple(self._gpu(device, now, runs) for device in self._devices),
            gpu_problem=self._gpu_problem or self._silence(),
            driver=self._nvml.driver,
            cuda=self._nvml.cuda,
            host=_aged(host_results.get(_HOST), now),
            disk=_aged(host_results.get(_DISK), now),
            runs={run: load for run, load in loads.value.items() if run in runs} if loads else {},
        )

    def _check(self) -> None:
        self._gpu_rounds.check()
        self._host_rounds.check()

    def _silence(self) -> str | None:
        """Said when not even the list of cards comes back."""
        since = self._gpu_rounds.stuck.get(_SCAN)
        if since is not None:
            what = "The search for more GPUs" if self._devices else "The NVIDIA driver"
            return msg("{what} has not answered for {silence}.", what=what, silence=duration(time.monotonic() - since))
        return self._gpu_rounds.failures.get(_SCAN)

    # -- what the threads do -------------------------------------------------------------------------------------

    def _gpu_plan(self) -> Iterator[Task]:
        yield _SCAN, self._scan
        for device in self._devices:
            yield device.uuid, partial(self._nvml.read, device)

    def _scan(self) -> None:
        try:
            # a card that hangs would hang the scan too
            self._devices = self._nvml.devices(rescan=not self._gpu_rounds.stuck)
            self._gpu_problem = None
        except DriverUnavailable as reason:
            self._devices, self._gpu_problem = [], str(reason)

    def _host_plan(self) -> list[Task]:
        return [
            (_HOST, self._host.read),
            (_PROCESSES, lambda: self._table.look(self._gpu_pids())),
            (_RUNS, lambda: self._run_reader.read(self._runs)),
            (_DISK, self._disk.read),
        ]

    def _gpu_pids(self) -> set[int]:
        results = [self._gpu_rounds.results.get(device.uuid) for device in self._devices]
        return {process.pid for result in results if result for process in result.value.processes or ()}

    # -- what is handed out --------------------------------------------------------------------------------------

    def _gpu(self, device: Device, now: float, runs: Mapping[RunId, Run]) -> GpuSample:
        result = self._gpu_rounds.results.get(device.uuid)
        since = self._gpu_rounds.stuck.get(device.uuid)
        failure = self._gpu_rounds.failures.get(device.uuid)
        problem = msg("has not answered for {silence}", silence=duration(now - since)) if since is not None else failure
        if result is None:
            return GpuSample(device.index, device.uuid, problem=problem or "not read yet", **device.facts)
        sample: GpuSample = result.value
        return replace(
            sample,
            age_seconds=round(now - result.at, 3),
            problem=problem or sample.problem,
            processes=None if sample.processes is None else self._named(sample.processes, runs),
        )

    def _named(self, processes: tuple[GpuProcess, ...], runs: Mapping[RunId, Run]) -> tuple[GpuProcess, ...]:
        table = self._host_rounds.results.get(_PROCESSES)
        facts: Mapping[int, ProcessFacts] = table.value if table else {}
        # Seen on the card just now and not looked up yet: nothing can be said about it.
        named = [described(p, facts.get(p.pid, ProcessFacts(p.pid, identified=False))) for p in processes]
        return attribute(named, runs)


def read_once(
    workspace: Path | str, *, runs: Mapping[RunId, Run] | None = None, rounds: int = 1, seconds: float = 4.0
) -> Snapshot:
    """The figures of this moment, for who asks once. Rates and processor shares are differences, and take two rounds.

    `runs` are the live ones, as `Monitor.watch` takes them; rounds come half a second apart; after `seconds` whatever
    is known by then will do, as with a driver that hangs.
    """
    monitor = Monitor(workspace, period=0.5)
    monitor.watch(runs or {})
    monitor.start()
    monitor.wait(rounds, seconds)
    snapshot = monitor.latest()
    monitor.stop()
    return snapshot


def _aged(result: PollResult | None, now: float):
    return None if result is None else replace(result.value, age_seconds=round(now - result.at, 3))
