"""smoke: does the whole of finetop work on this card at all?

Proves: a LoRA run queued by `finetop add` is forked by the daemon, is given the card, trains on it in bfloat16 on the
packed path, and leaves the same numbers in journal and store; the screen shows it; its checkpoint can be asked,
evaluated, and merged into a model that is verified on this card; `finetop doctor` sees the card.
ok: all of it. Fell short: any part, and the table names it. OUT/screen.txt holds the screen's picture.
"""

import asyncio
import io
import os
from pathlib import Path

from gpu.findings import Findings, Measurement
from gpu.kit import Kit
from gpu.runs import Session, Trained, session, settings

RUN_NAME = "smoke-lora"
COLUMNS, ROWS = 120, 36
EPOCHS = 3


def measurements() -> list[Measurement]:
    return [Measurement("run", 150, whole)]


def whole(kit: Kit) -> Findings:
    findings = Findings()
    fixture = kit.fixture("0.5b")
    with session(kit, "smoke") as one:
        values = {"run.name": RUN_NAME, "optim.learning_rate": 1e-3, "train.epochs": EPOCHS, "train.batch_size": 16}
        run_id = one.add(settings(fixture, values))
        (run,) = one.until_ended(run_id)
        trained = one.trained(run_id)
        findings.check("the run ends as done", run.state == "done", f"{run.state}: {run.reason}")
        look_at_training(kit, findings, one, run_id, trained)
        text = picture(one)
        (kit.out / "screen.txt").write_text(text, "utf-8")
        findings.check("the screen shows the run", RUN_NAME in text and "done" in text, text[:200])
        ask_and_hand_over(findings, one, run_id, kit.first_chats("0.5b", 4))
        report = one.finetop("doctor", must=False).stdout
        if kit.cuda:
            card = trained.model.get("device", "?")
            findings.check("`finetop doctor` names the card", card in report, report.strip().splitlines()[:3])
    return findings


def look_at_training(kit: Kit, findings: Findings, one: Session, run_id: int, trained: Trained) -> None:
    losses = trained.losses
    findings.check("it was forked from the warm process", "forked" in one.started(run_id), one.started(run_id))
    findings.check("the packed path was taken", trained.model.get("path") == "packed", trained.model.get("path"))
    findings.check("journal and store have the same losses", one.stored(run_id, "train/loss") == losses, len(losses))
    epoch = max(1, len(losses) // EPOCHS)
    before, after = sum(losses[:epoch]) / epoch, sum(losses[-epoch:]) / epoch
    findings.check("the loss falls from the first epoch to the last", after < before, f"{before:.4f}, then {after:.4f}")
    findings.figure("loss", f"{before:.3f} to {after:.3f}")
    findings.figure("steps", len(losses))
    if kit.cuda:
        findings.check(
            "it trains on the card", trained.model.get("device") not in (None, "cpu"), trained.model.get("device")
        )
        findings.check("in bfloat16", trained.model.get("autocast") == "bfloat16", trained.model.get("autocast"))
        findings.check("the daemon gave it a card", bool(one.run(run_id).gpus), one.run(run_id).gpus)
        findings.check("the store has the card's readings", bool(one.stored(run_id, "gpu/util")), "none")
        findings.figure("peak memory", trained.memory.get("peak_bytes"), "GB")


def ask_and_hand_over(findings: Findings, one: Session, run_id: int, few: Path) -> None:
    """`few`: a file of a few chats."""
    model = f"{run_id}@latest"
    done = one.finetop("sample", model, "--prompt", "ba", "--max-new-tokens", 8, must=False)
    findings.check("`finetop sample` answers", done.returncode == 0, done.stderr.strip()[-200:])
    words = ("eval", model, "--data", few, "--max-new-tokens", 8, "--metrics", "exact_match")
    done = one.finetop(*words, must=False)
    findings.check("`finetop eval` gives scores", done.returncode == 0, done.stderr.strip()[-200:])
    done = one.finetop("export", model, one.workspace.root / "merged", "--to", "merged", must=False)
    findings.check("`finetop export` verifies the merged model", done.returncode == 0, done.stderr.strip()[-200:])


def picture(one: Session) -> str:
    """The screen on this workspace, as text."""
    for name, value in one.environment.items():
        os.environ[name] = value  # the screen starts processes of its own
    from rich.console import Console

    from tui.app import FinetopApp
    from tui.settings import Settings

    app = FinetopApp(one.workspace, Settings(theme="dark"), readonly=True)

    async def play() -> str:
        async with app.run_test(size=(COLUMNS, ROWS)) as pilot:
            await pilot.pause(3.0)
            console = Console(width=COLUMNS, height=ROWS, file=io.StringIO(), record=True, legacy_windows=False)
            console.print(app.screen._compositor.render_update(full=True))
            return console.export_text()

    return asyncio.run(play())
