"""A store filled by hand, as the importer would: runs with curves, evaluations, checkpoints and answers."""

import json
import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.settings.resolve import Layer, resolve
from engine.store import queue, run_lifecycle, series
from engine.store.connect import writer
from engine.store.journal_import import import_journal
from engine.store.run_records import NewRun
from engine.store.transactions import write


def line(kind: str, t: float, **fields: Any) -> str:
    return json.dumps({"t": t, "kind": kind, **fields}, ensure_ascii=False) + "\n"


def add_run(
    root: Path,
    name: str = "run",
    steps: int = 200,
    total: int | None = None,
    end: float = 0.9,
    state: str = "done",
    settings: Mapping[str, Any] | None = None,
    answers: Iterable[tuple[str, str | None, str]] = (),
    data_sha: str = "9f2c" * 16,
    eval_every: int = 50,
    seed: int = 0,
) -> int:
    """A run that has logged `steps` steps; `answers` are (prompt, reference, text) at each evaluation."""
    conn = writer(root / "runs.db")
    given = {"data.files": ["/data/sql.jsonl"], "run.name": name, **(settings or {})}
    resolved = resolve([Layer("preset quick", given)])
    run_id = queue.add(
        conn,
        NewRun(
            name=name,
            settings=resolved.config.flat(),
            origins=resolved.origin,
            model=resolved.config.model.name,
            data="sql.jsonl",
            method=resolved.config.method.kind,
            total_steps=total or steps,
        ),
    )
    run_lifecycle.claim(conn, run_id, ("0",))
    folder = root / "runs" / str(run_id)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(resolved.config.to_json({"origin": resolved.origin}), "utf-8")
    dice = random.Random(seed)
    t = 1.79e9 + run_id * 10_000
    lines = [
        line("state", t, state="starting", pid=1),
        line(
            "data",
            t,
            files=[{"path": given["data.files"][0], "sha256": data_sha, "rows": 480, "bad_rows": 0}],
            train={"examples": 432, "tokens": 60_000},
            val={"examples": 48, "tokens": 6000},
            val_from=0.1,
        ),
        line("state", t, state="running", step=0),
    ]
    for step in range(1, steps + 1):
        t += 2.0
        loss = end + 1.7 * math.exp(-step / (steps / 6)) + dice.gauss(0, 0.05)
        values = {
            "train/loss": loss,
            "train/lr": 2e-4 * (1 - step / steps),
            "train/grad_norm": abs(dice.gauss(0.5, 0.1)),
            "train/tokens": step * 4096,
            "train/tokens_per_s": 11_000 + dice.random() * 800,
            "train/step_s": 2.0,
        }
        lines.append(line("metric", t, step=step, values=values))
        if step % eval_every == 0:
            score = end + 0.05 + 1.5 * math.exp(-step / (steps / 6))
            lines.append(line("eval", t, step=step, values={"eval/loss": score, "eval/exact_match": 1 - score / 3}))
            for prompt, reference, text in answers:
                said = {"prompt": prompt, "text": text} | ({} if reference is None else {"reference": reference})
                lines.append(line("sample", t, step=step, **said))
            kept = ["latest", "best"]
            path = f"checkpoints/step-{step:08d}"
            lines.append(line("checkpoint", t, step=step, path=path, bytes=168_000_000, kept=kept))
    if state != "running":
        lines.append(line("state", t, state=state, step=steps))
    (folder / "journal.jsonl").write_text("".join(lines), "utf-8")
    import_journal(conn, run_id, folder)
    conn.close()
    return run_id


def add_long_run(root: Path, points: int) -> int:
    """A live run with so many points of its loss, straight into the store."""
    run_id = add_run(root, name="long", steps=1, total=points * 2, state="running", eval_every=10**9)
    conn = writer(root / "runs.db")
    dice = random.Random(1)
    known = series.summaries(conn, run_id)
    for first in range(2, points + 1, 100_000):
        steps = range(first, min(first + 100_000, points + 1))
        with write(conn):
            series.add_points(
                conn,
                run_id,
                {
                    "train/loss": [(step, 10 / math.sqrt(step) + dice.random()) for step in steps],
                    "time": [(step, 1.79e9 + step * 0.5) for step in steps],
                    "train/tokens": [(step, step * 4096.0) for step in steps],
                },
                known,
            )
            conn.execute("UPDATE runs SET step = ? WHERE id = ?", (steps[-1], run_id))
    conn.close()
    return run_id
