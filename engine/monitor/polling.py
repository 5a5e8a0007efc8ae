"""Doing the same few things every second on one thread, and leaving behind whatever hangs.

A call into a sick driver or a dead network disk may never come back, and no thread can be killed. So each task has
a key; while one is stuck, its thread is written off and a new one goes on with the other tasks. When the call does
come back, its result is kept, its thread ends, and the task joins the rounds again.
"""

import threading
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

Task = tuple[Hashable, Callable[[], Any]]

PATIENCE_SECONDS = 2.0
"""No NVML or /proc call takes this long on a healthy machine; PCIe throughput, the slowest, takes 20 ms."""


@dataclass(frozen=True, slots=True)
class PollResult:
    value: Any
    at: float
    """`monotonic()` when the task was done."""


class _Worker:
    """What one thread is doing now: the key of its task and since when."""

    def __init__(self) -> None:
        self.now: tuple[Hashable, float] | None = None


class Poller:
    """Calls every task of `plan()` once per period; `results` holds the last value of each key.

    `plan` may be a generator that decides what comes next when the task before is done. It must not block itself.
    """

    def __init__(
        self, plan: Callable[[], Iterable[Task]], *, period: float = 1.0, patience: float = PATIENCE_SECONDS, name: str
    ) -> None:
        self.results: dict[Hashable, PollResult] = {}
        self.stuck: dict[Hashable, float] = {}
        """Key to `monotonic()` of the call that has not come back."""
        self.failures: dict[Hashable, str] = {}
        """Key to what a task raised; gone when it succeeds again."""
        self.finished = 0
        """Rounds completed."""
        self._plan, self._period, self._patience, self._name = plan, period, patience, name
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._worker: _Worker | None = None

    def start(self) -> None:
        with self._lock:
            self._hire()

    def stop(self) -> None:
        """Asks the thread to end; does not wait, for it may hang."""
        self._ended.set()

    def check(self) -> None:
        """Replaces the thread if its task has been running for too long. Returns at once."""
        with self._lock:
            worker = self._worker
            busy = worker.now if worker else None
            if not busy or self._ended.is_set():
                return
            key, since = busy
            if time.monotonic() - since > self._patience:
                self.stuck[key] = since
                self._hire()

    def _hire(self) -> None:
        worker = self._worker = _Worker()
        threading.Thread(target=self._work, args=(worker,), name=self._name, daemon=True).start()

    def _work(self, worker: _Worker) -> None:
        while self._worker is worker and not self._ended.is_set():
            began = time.monotonic()
            self._round(worker)
            worker.now = None
            self._ended.wait(max(0.0, began + self._period - time.monotonic()))

    def _round(self, worker: _Worker) -> None:
        for key, task in self._plan():
            if key in self.stuck:
                continue
            worker.now = (key, time.monotonic())
            try:
                self.results[key] = PollResult(task(), time.monotonic())
                self.failures.pop(key, None)
            except Exception as error:  # whatever a driver or /proc throws is news, never the end of the monitor
                self.failures[key] = f"{type(error).__name__}: {error}"
            with self._lock:
                if self._worker is not worker:
                    self.stuck.pop(key, None)
                    return
        self.finished += 1
