"""train: are the numbers right on a GPU, and do they come back after a kill?

Proves: step by step, the losses of LoRA in bfloat16 are those of the same run in float32 on the CPU, and in float32 on
the card closer still; those of full fine-tuning are those of a plain loop over transformers' model under torch's own
autocast on this card. A run that is killed and resumed goes on with the losses of one that was not; with
train.deterministic they are the same to the last bit, and two such runs are.
ok: the first loss within 0.3 %, each later one within that and 15 % of the way it has come since; float32: 0.1 % and
1 %; resumed within 0.5 %, deterministic equal. Fell short: otherwise. Figures: how close, and what determinism costs.
(Adam's first steps are the gradient's signs: where a gradient is near nothing, rounding to bfloat16 turns some of them
about, in any program, and the loss falls by a tenth less. Full fine-tuning has many more of them, and is held against
what rounds as it does; its distance from float32 is a figure.)
"""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

from engine.base.worker_process import cores
from engine.runs import journal
from gpu.findings import Findings, Measurement
from gpu.kit import CHATS, Kit
from gpu.records import ROOT, source_hash
from gpu.runs import Trained, prepare, read, settings, start, train, until, work

STEPS, BATCH = 4, 2
LONG_STEPS, KILLED_AFTER = 40, 10
TOLERANCE = {"bfloat16": (3e-3, 0.15), "float32": (1e-3, 0.01)}
"""Of the first loss, and of what the loss has moved since."""
RESUMED_TOLERANCE = 5e-3
LEAST_MOVE = 0.05
"""Of the first loss: where it moves less, the comparison of the later ones means nothing."""


def measurements() -> list[Measurement]:
    return [
        Measurement("lora bfloat16", 70, lambda kit: against_cpu(kit, "lora", "bfloat16")),
        Measurement("full bfloat16", 90, lambda kit: against_cpu(kit, "full", "bfloat16")),
        Measurement("lora float32", 32, lambda kit: against_cpu(kit, "lora", "float32")),
        Measurement("resume", 100, lambda kit: resumed(kit, deterministic=False)),
        Measurement("deterministic", 130, lambda kit: resumed(kit, deterministic=True)),
    ]


def against_cpu(kit: Kit, method: str, dtype: str) -> Findings:
    """`dtype`: the card's; in a rehearsal both are runs on the CPU."""
    findings = Findings()
    fixture = kit.fixture("0.5b")
    rate = {"full": 2e-5, "lora": 5e-4}[method] * (20 if kit.tiny else 1)  # the loss moves, but not to nothing
    values = {"method.kind": method, "optim.learning_rate": rate, "lora.r": 16, "train.batch_size": BATCH}
    # The same chats at each step: the loss moves by what has been learned, and by nothing else.
    values |= {"train.shuffle": False, "data.files": [str(kit.first_chats("0.5b", BATCH, STEPS))]}
    with kit.folder("train") as root:
        truth = reference(kit, root, method, settings(fixture, values | {"model.dtype": "float32"}))
        plain = plain_losses(kit, root, fixture, rate) if method == "full" else truth
        card_dtype = "float32" if dtype == "float32" else "auto" if kit.cuda else "float32"
        ours = train(kit, root, settings(fixture, values | {"model.dtype": card_dtype}))
    if kit.cuda:
        autocast = "None" if dtype == "float32" else "bfloat16"
        findings.check(f"autocast is {autocast}", ours.model["autocast"] == autocast, ours.model["autocast"])
        findings.check("it trains on the card", ours.model["device"] != "cpu", ours.model["device"])
    findings.check("the packed path was taken", ours.model["path"] == "packed", ours.model["path"])
    same_losses(findings, ours.losses, plain, *TOLERANCE[dtype])
    if method == "full":
        for name, losses in (("finetop", ours.losses), ("the plain loop", plain)):
            findings.figure(f"{name} ends", f"{losses[-1]:.3f}, float32 {truth[-1]:.3f}")
    findings.figure("peak memory", ours.memory.get("peak_bytes"), "GB")
    return findings


def reference(kit: Kit, root: Path, method: str, values: dict) -> list[float]:
    """Losses in float32 on the CPU; kept beside the fixture, since two measurements want those of LoRA."""
    path = kit.scratch / f"reference-{kit.size}-{method}.json"
    request = {"source": source_hash(), "settings": values}
    if path.exists() and (kept := json.loads(path.read_text("utf-8"))).get("request") == request:
        return kept["losses"]
    losses = train(kit, root, values, on_cpu=True).losses
    path.write_text(json.dumps({"request": request, "losses": losses}), "utf-8")
    return losses


def plain_losses(kit: Kit, root: Path, fixture: Path, rate: float) -> list[float]:
    """Of as many full steps of a plain loop on the card, weights in float32 and arithmetic in bfloat16; in a rehearsal
    all of it in float32."""
    rows = {"steps": [list(range(BATCH))] * STEPS, "train": True, "learning_rate": rate, "dtype": "float32"}
    folders = {"model": str(fixture / "model"), "fixture": str(fixture), "result": str(root / "plain.json")}
    job = rows | folders | {"device": kit.device, "threads": cores(), "autocast": "bfloat16" if kit.cuda else None}
    (root / "plain-job.json").write_text(json.dumps(job), "utf-8")
    script = ROOT / "bench" / "engines" / "reference.py"
    subprocess.run([sys.executable, str(script), str(root / "plain-job.json")], env=kit.environment(), check=True)
    return [step["loss"] for step in json.loads((root / "plain.json").read_text("utf-8"))["steps"]]


def same_losses(findings: Findings, ours: list[float], truth: list[float], first: float, moved: float) -> None:
    """Step by step: within `first` of the first loss, and `moved` of the distance from it."""
    if not findings.check("as many steps", len(ours) == len(truth) > 1, f"{len(ours)} for {len(truth)}"):
        return
    start = truth[0]
    excess = [abs(a - b) - (first * start + moved * abs(b - start)) for a, b in zip(ours, truth, strict=True)]
    worst = max(range(len(excess)), key=lambda step: math.inf if math.isnan(excess[step]) else excess[step])
    findings.check(
        f"every loss within {first:.1%} of the first and {moved:.0%} of the way from it",
        all(value <= 0 for value in excess),
        f"{ours[worst]} for {truth[worst]} at step {worst + 1}",
    )
    way = max(abs(value - start) for value in truth)
    findings.check("the loss moves", way >= LEAST_MOVE * start, f"{way:.2e} from {start:.3f}")
    findings.figure("first loss off by", f"{abs(ours[0] - start) / start:.1e}")
    if way:
        findings.figure("of the way, off by", max(abs(a - b) for a, b in zip(ours, truth, strict=True)) / way, "%")
    findings.figure("loss", f"{start:.3f} to {truth[-1]:.3f}")


def resumed(kit: Kit, deterministic: bool) -> Findings:
    """The same run whole, and killed and resumed; with dropout, so that the random state matters."""
    findings = Findings()
    fixture = kit.fixture("0.5b")
    values = {"train.batch_size": kit.chats(CHATS) // LONG_STEPS, "train.max_steps": LONG_STEPS}
    values |= {"lora.dropout": 0.05, "lora.r": 16, "optim.learning_rate": 1e-3, "save.every": KILLED_AFTER}
    values |= {"train.deterministic": deterministic}
    with kit.folder("resume") as root:
        whole = train(kit, root, settings(fixture, values))
        killed = kill_and_resume(kit, findings, prepare(root, settings(fixture, values)))
        if deterministic:
            again = train(kit, root, settings(fixture, values))
            findings.check("two runs are equal to the last bit", again.losses == whole.losses, difference(again, whole))
            plain = train(kit, root, settings(fixture, values | {"train.deterministic": False}))
            cost = plain.tokens_per_second() / whole.tokens_per_second()
            findings.figure("time a step, to that without", cost, "x")
    if deterministic:
        findings.check("resumed, it is equal to the last bit", killed.losses == whole.losses, difference(killed, whole))
    else:
        off = difference(killed, whole)
        findings.at_most("resumed, the largest difference", off, RESUMED_TOLERANCE)
        findings.figure("largest difference", f"{off:.1e}" if off else "none")
    return findings


def kill_and_resume(kit: Kit, findings: Findings, folder: Path) -> Trained:
    """SIGKILL some steps after a checkpoint, and once more from there to the end."""
    with start(kit, folder) as worker:

        def far_enough() -> bool:
            steps = [e["step"] for e in journal.read(folder)[0] if e["kind"] == "metric"]
            return (bool(steps) and steps[-1] > KILLED_AFTER) or worker.poll() is not None

        until(far_enough, f"step {KILLED_AFTER + 1}", pause=0.005)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    before = read(folder)
    findings.check("it was killed before its end", before.of("state")[-1]["state"] == "running", before.of("state")[-1])
    after = work(kit, folder)
    at = after.of("resume")[-1]["from_step"]
    findings.check("it goes on from a checkpoint", at >= KILLED_AFTER, at)
    findings.figure("killed after step", before.of("metric")[-1]["step"])
    findings.figure("resumed from", at)
    return after


def difference(one: Trained, other: Trained) -> float:
    """The largest relative one between the losses of two runs; infinite where they have not as many steps."""
    if len(one.losses) != len(other.losses):
        return float("inf")
    return max(abs(a - b) / abs(b) for a, b in zip(one.losses, other.losses, strict=True))
