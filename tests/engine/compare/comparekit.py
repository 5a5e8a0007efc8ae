"""Workspaces with runs and evaluations written by hand, for the tests of comparison."""

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.engine.store.storekit import line, write

DATA = [{"path": "/data/train.csv", "sha256": "ab" * 32}]


def run(
    root: Path,
    run_id: int,
    steps: int = 200,
    loss: Callable[[int], float] = lambda step: 2 * math.exp(-step / 100) + 0.2,
    evaluation: Callable[[int], float] | None = None,
    every: int = 20,
    settings: Mapping[str, Any] | None = None,
    files: Sequence[Mapping[str, str]] = DATA,
    tokens: int = 100,
    seconds: float = 1.0,
    end: str | None = "done",
    saved: Sequence[int] = (),
    samples: Mapping[str, str] | None = None,
    supervised: int = 5000,
    lines: Sequence[bytes] = (),
) -> Path:
    """A run's folder; one point a step, `tokens` and `seconds` each."""
    folder = root / "runs" / str(run_id)
    evaluation = evaluation or loss
    defaults = {"train.seed": 0, "data.val_fraction": 0.1}
    found = [
        line("state", 1000.0, state="starting", pid=1),
        line("data", 1000.0, files=list(files), val={"examples": 500, "supervised": supervised}, val_from="0.1"),
        line("plan", 1000.0, total_steps=steps, settings=defaults | dict(settings or {})),
        line("resume", 1000.0, from_step=-1),
        line("state", 1000.0, state="running", step=0),
    ]  # fmt: skip
    for step in range(1, steps + 1):
        t = 1000.0 + seconds * step
        found.append(line("metric", t, step=step, values={"train/loss": loss(step), "train/tokens": tokens * step}))
        if step % every == 0:
            found.append(line("eval", t, step=step, values={"eval/loss": evaluation(step)}))
            for prompt, text in (samples or {}).items():
                found.append(line("sample", t, step=step, prompt=prompt, text=f"{text} {step}", reference="yes"))
        if step in saved:
            path = f"checkpoints/step-{step:08d}"
            found.append(line("checkpoint", t, step=step, epoch=1.0, path=path, bytes=1000 * step, kept=["latest"]))
    if end:
        found.append(line("state", 1000.0 + seconds * steps, state=end, step=steps))
    write(folder, *found, *lines)
    config = {"run": {"name": f"run {run_id}"}, "model": {"name": "starter"}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def predictions(right: Sequence[int], losses: Sequence[float] | None = None, tokens: int = 5) -> list[dict[str, Any]]:
    """One line for each 0 or 1 in `right`."""
    return [
        {
            "key": 7919 * number,
            "prompt": f"question {number}",
            "reference": "yes",
            "text": "yes" if score else "no",
            "loss": losses[number] if losses else 0.5 * tokens,
            "tokens": tokens,
            "scores": {"exact_match": score},
        }
        for number, score in enumerate(right)
    ]


def evaluation(folder: Path, rows: Sequence[Mapping[str, Any]], run_id: int | None = None, step: int | None = None,
               **changes: Any) -> Path:  # fmt: skip
    """An evaluation folder; `changes` replace fields of result.json."""
    folder.mkdir(parents=True)
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = {"exact_match": sum(row["scores"]["exact_match"] for row in rows) / len(rows)}
    data = {"files": [{"path": "/data/test.csv", "sha256": "ef"}], "examples": len(rows), "key": "same"}
    result = {"t": 1.0, "run": run_id, "step": step, "model": "starter", "name": folder.name, "source": "eval",
              "data": data, "template": "t1", "normalisation": "nfkc", "generation": {"max_new_tokens": 32},
              "scores": scores, "seconds": 1.0}  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result | changes))
    return folder


def judged(root: Path, run_id: int, step: int, rows: Sequence[Mapping[str, Any]], **changes: Any) -> Path:
    name = root / "runs" / str(run_id) / "evaluations" / f"step-{step:08d}-test"
    return evaluation(name, rows, run_id, step, **changes)


def noisy(level: Callable[[int], float], noise: float = 0.1, seed: int = 0) -> Callable[[int], float]:
    """The level with noise on it, the same each time a step is asked for."""
    return lambda step: level(step) + noise * random.Random(seed * 1_000_003 + step).gauss(0, 1)
