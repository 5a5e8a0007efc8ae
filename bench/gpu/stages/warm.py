"""warm: does the warm process save the start of a run on a GPU, too?

Proves: a run forked from the daemon's warm process reaches its first step on the card (CUDA cannot be used in a fork
of a process that has begun to use it), and how long after the end of the run before it; beside a worker started from
nothing.
ok: every run but the first was forked, and that is faster. Fell short: otherwise. Figures: both medians.
"""

import statistics

from gpu.findings import Findings, Measurement
from gpu.kit import Kit
from gpu.runs import settings

RUNS = 2


def measurements() -> list[Measurement]:
    return [Measurement("0.5b", 90, first_steps)]


def first_steps(kit: Kit) -> Findings:
    import os

    from start_latency import cold_starts, warm_starts

    from engine.base.workspace import Workspace

    findings = Findings()
    os.environ.update(kit.environment())
    fixture = kit.fixture("0.5b")
    values = settings(fixture, {"train.max_steps": 3, "save.every": 0})
    with kit.folder("warm") as root:
        cold = cold_starts(Workspace(root / "cold"), values, RUNS)
        warm, how = warm_starts(Workspace(root / "warm"), values, RUNS)
    judge(findings, cold, warm, how)
    return findings


def judge(findings: Findings, cold: list[float], warm: list[float], how: list[str]) -> None:
    """Seconds to the first step, from nothing and forked; how each run of the queue was started."""
    forked = [message for message in how if "forked" in message]
    findings.check("all runs after the first were forked", len(forked) >= len(how) - 1 > 0, how)
    ratio = statistics.median(cold) / statistics.median(warm)
    findings.check("forked is faster", ratio > 1, f"{ratio:.2f}x")
    findings.figure("forked", statistics.median(warm), "s")
    findings.figure("from nothing", statistics.median(cold), "s")
    findings.figure("faster", ratio, "x")
