"""monitor: are the figures of the card right, and is the memory of a run told as its own?

Proves: while a run trains, `finetop top --json` says of the card what nvidia-smi says just before and after it, and
attributes the memory of the run's process to the run, as nvidia-smi and torch's own allocator have it.
ok: name, UUID, driver and memory in all equal; memory in use, temperature, power, clock and load within nvidia-smi's
two readings and a margin for what moves in between; the run's memory within 64 MiB of nvidia-smi's for that pid, and
not below what torch had reserved. Fell short: one of them is off, and the table says by how much.
Without a card it is rehearsed against the stand-in driver of the tests.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpu.fake_card import GIB, FakeCard
from gpu.findings import Findings, Measurement
from gpu.kit import Kit
from gpu.runs import Session, session, settings

MIB = 2**20
SLACK_MIB = 64
ROUNDS = 3
FIELDS = ["uuid", "name", "driver_version", "memory.total", "memory.used", "utilization.gpu", "temperature.gpu",
          "power.draw", "clocks.sm"]  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A figure that moves: nvidia-smi's name, ours, our unit in theirs, and how far it may move between readings."""

    theirs: str
    ours: str
    unit: float
    slack: float
    share: float = 0.0
    """Of their larger reading, on top of `slack`."""


MOVING = (
    Figure("memory.used", "memory_used_bytes", MIB, SLACK_MIB),
    Figure("temperature.gpu", "temperature_c", 1, 3),
    Figure("power.draw", "power_watts", 1, 15, 0.25),
    Figure("clocks.sm", "sm_clock_mhz", 1, 60, 0.1),
    Figure("utilization.gpu", "utilisation", 1, 25),
)


def measurements() -> list[Measurement]:
    return [Measurement("readings", 45, beside_nvidia_smi)]


def beside_nvidia_smi(kit: Kit) -> Findings:
    findings = Findings()
    fixture = kit.fixture("0.5b")
    # Long enough to be looked at, and stopped then.
    values = {"train.epochs": 200, "save.every": 0, "run.name": "watched"}
    with kit.folder("driver") as folder:
        fake = None if kit.cuda else FakeCard(folder)
        # A CUDA build of torch in a warm process would take the stand-in's card for real.
        with session(kit, "monitor", warm=kit.cuda, **(fake.environment if fake else {})) as one:
            run_id = one.add(settings(fixture, values))
            pid = one.until_step(run_id, 4).pid
            if fake:
                fake.hold(pid, 2 * GIB)
            for _ in range(ROUNDS):
                before, by_pid = smi(kit, fake), [dict(smi_processes(kit, fake))]
                top = json.loads(one.finetop("top", "--json").stdout)
                compare(findings, top, before, smi(kit, fake))
            whose(kit, findings, one, run_id, top, [*by_pid, dict(smi_processes(kit, fake))])
            one.finetop("stop", run_id)
            one.until_ended(run_id)
    return findings


def smi(kit: Kit, fake: FakeCard | None) -> dict[str, str]:
    if fake:
        return dict(zip(FIELDS, fake.smi(FIELDS), strict=True))
    (line,) = _nvidia_smi(kit, f"--query-gpu={','.join(FIELDS)}", "--id=0")
    return dict(zip(FIELDS, line, strict=True))


def smi_processes(kit: Kit, fake: FakeCard | None) -> list[tuple[int, int]]:
    if fake:
        return fake.smi_processes()
    lines = _nvidia_smi(kit, "--query-compute-apps=pid,used_memory", "--id=0")
    return [(int(pid), int(size)) for pid, size in lines if size.isdigit()]


def _nvidia_smi(kit: Kit, *words: str) -> list[list[str]]:
    command = ["nvidia-smi", *words, "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]


def compare(findings: Findings, top: Mapping[str, Any], before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """One reading of ours against two of theirs around it."""
    card = next((gpu for gpu in top["gpus"] if gpu["uuid"] == before["uuid"]), None)
    if not findings.check("the card nvidia-smi has is there", card is not None, [gpu["uuid"] for gpu in top["gpus"]]):
        return
    findings.check("the same name", card["name"] == before["name"], f"{card['name']} for {before['name']}")
    findings.check("the same driver", top["driver"] == before["driver_version"], top["driver"])
    total = (card["memory_total_bytes"] or 0) // MIB
    findings.check(
        "the same memory in all", total == int(before["memory.total"]), f"{total} for {before['memory.total']}"
    )
    findings.check("no problem is told of the card", not card["problem"] and not card["stale"], card["problem"])
    for figure in MOVING:
        seen = card[figure.ours]
        theirs = [float(reading[figure.theirs]) for reading in (before, after) if _is_number(reading[figure.theirs])]
        if not theirs:  # nvidia-smi has no such figure for this card
            findings.check(f"no {figure.ours}, as nvidia-smi has none", seen is None, seen)
            continue
        slack = figure.slack + figure.share * max(theirs)
        ours = None if seen is None else seen / figure.unit
        right = ours is not None and min(theirs) - slack <= ours <= max(theirs) + slack
        findings.check(f"{figure.ours} as nvidia-smi's {figure.theirs}", right, f"{ours} for {theirs}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def whose(
    kit: Kit, findings: Findings, one: Session, run_id: int, top: Mapping[str, Any], by_pid: Sequence[Mapping[int, int]]
) -> None:
    """The run's memory by process. `by_pid`: MiB by pid, as nvidia-smi has them just before and after."""
    ours = [process for gpu in top["gpus"] for process in gpu["processes"] or () if process["run"] == run_id]
    pid = one.run(run_id).pid
    pids = [process["pid"] for process in ours]
    if not findings.check("the run's process is told as the run's", pids == [pid], f"{ours}, not {pid}"):
        return
    held = (ours[0]["memory_bytes"] or 0) / MIB
    findings.figure("the run's memory", ours[0]["memory_bytes"], "GB")
    theirs = [reading[pid] for reading in by_pid if pid in reading]
    right = bool(theirs) and min(theirs) - SLACK_MIB <= held <= max(theirs) + SLACK_MIB
    findings.check("its memory as nvidia-smi has it", right, f"{held:.0f} for {theirs}")
    if kit.cuda:
        reserved = one.trained(run_id).memory.get("reserved_bytes")
        findings.check(
            "no less than torch has reserved",
            reserved is not None and held * MIB >= reserved,
            f"{held} MiB for {reserved}",
        )
        if reserved:
            findings.figure("context and kernels", held * MIB - reserved, "GB")
