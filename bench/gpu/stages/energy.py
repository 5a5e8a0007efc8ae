"""energy: are the joules right that finetop reports of a run?

Proves: what the daemon keeps as a run's energy is what the card's own counter says from the start of its worker to its
end, read here beside it.
ok: within 5 % and what the card takes in 2.5 s (the daemon looks once a second, so that the first and the last moments
are not seen), from the counter and not from power now and then. Fell short: otherwise. Figures: joules, mean watts,
joules per thousand tokens. Without a card it is rehearsed against the stand-in driver of the tests, whose counter runs
at 400 W.
"""

import threading
import time
from collections.abc import Callable

from gpu.fake_card import FakeCard
from gpu.findings import Findings, Measurement
from gpu.kit import Kit
from gpu.runs import session, settings

SHARE = 0.05
UNSEEN_SECONDS = 2.5
"""At both ends together."""


def measurements() -> list[Measurement]:
    return [Measurement("counter", 45, beside_the_counter)]


def beside_the_counter(kit: Kit) -> Findings:
    findings = Findings()
    fixture = kit.fixture("0.5b")
    stop = threading.Event()
    with kit.folder("driver") as folder:
        fake = None if kit.cuda else FakeCard(folder)
        ticking = fake.burn(stop) if fake else None
        joules = fake.energy if fake else _counter()
        with session(kit, "energy", warm=kit.cuda, **(fake.environment if fake else {})) as one:
            epochs = 10 if kit.cuda else 4
            run_id = one.add(settings(fixture, {"train.epochs": epochs, "save.every": 0, "train.batch_size": 16}))
            record = Record(joules)
            with record:
                (run,) = one.until_ended(run_id)
            time.sleep(2.5)  # the daemon keeps the totals when the worker is gone
            usage = one.usage(run_id)
            tokens = one.trained(run_id).series("train/tokens")[-1]
        stop.set()
        if ticking:
            ticking.join()
    findings.check("the run ends as done", run.state == "done", f"{run.state}: {run.reason}")
    expected = record.between(run.started, run.finished)
    seconds, held = run.finished - run.started, usage.get("gpu_seconds", 0.0)
    # In a rehearsal the daemon has to wait for a processor: what it did not see at the ends is no fault of its sums.
    judge(findings, usage, expected, seconds, UNSEEN_SECONDS if kit.cuda else seconds - held + UNSEEN_SECONDS)
    findings.figure("seen for", held, "s")
    findings.figure("per 1,000 tokens", 1000 * expected / tokens, "J")
    return findings


class Record:
    """The counter, read ten times a second while the block lasts."""

    def __init__(self, joules: Callable[[], float]) -> None:
        self._joules, self._stop = joules, threading.Event()
        self.seen: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Record":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        while True:
            self.seen.append((time.time(), self._joules()))
            if self._stop.wait(0.1):
                return

    def between(self, start: float, end: float) -> float:
        """Joules from the reading nearest to one moment to that nearest to the other."""
        first = min(self.seen, key=lambda seen: abs(seen[0] - start))
        last = min(self.seen, key=lambda seen: abs(seen[0] - end))
        return last[1] - first[1]


def judge(findings: Findings, usage: dict, expected: float, seconds: float, unseen: float) -> None:
    """`usage`: as the daemon keeps it. `expected`: joules by the counter over these seconds, some of them unseen."""
    seen, mean = usage.get("energy_joules"), expected / seconds
    margin = SHARE * expected + unseen * mean
    right = seen is not None and abs(seen - expected) <= margin
    findings.check(f"the run's joules are the counter's to {margin:.0f} J", right, f"{seen} for {expected}")
    findings.check("they come from the counter", usage.get("energy_from") == "counter", usage.get("energy_from"))
    findings.check("the counter has run", expected > seconds, expected)
    findings.figure("finetop's", seen, "J")
    findings.figure("the counter's", expected, "J")
    findings.figure("over", seconds, "s")
    findings.figure("mean", mean, "W")


def _counter() -> Callable[[], float]:
    """The first card's own, by NVML and not by finetop."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
