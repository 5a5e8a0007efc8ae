"""The runs that screen.py looks at: the same numbers as a finetop workspace and as wandb's offline run files.

    screen_runs.py finetop FOLDER RUNS LONG_STEPS    with finetop's interpreter: journals, imported into a store
    screen_runs.py wandb   FOLDER RUNS LONG_STEPS    with wandb's: logged by wandb's own client, mode offline
    screen_runs.py live-finetop FOLDER PACE RUN...   be the workers of these runs: log PACE steps a second each
    screen_runs.py live-wandb   FOLDER PACE          the same with wandb's client, two runs

The last two print one line `run step time` (monotonic) for every step, just before they log it.
"""

import contextlib
import math
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

STEPS = 100
"""Of each run but the long one."""
NAMES = ("qwen3-8b-sql-lora", "llama-3b-support-qlora", "客服助手-qwen3-1.7b", "gemma-9b-dolly", "smollm-sql-full")
LIVE_STEPS = 100_000
"""What a live run says it will train: its steps are never done while they are watched."""


def name_of(number: int) -> str:
    return f"{NAMES[number % len(NAMES)]}-{number}"


def long_one(runs: int) -> int:
    """The last but two: what opens by itself is a run of the usual length."""
    return runs - 3


def steps_of(number: int, runs: int, long_steps: int) -> int:
    return long_steps if number == long_one(runs) else STEPS


def values_of(number: int, steps: int) -> Iterator[tuple[int, dict[str, float]]]:
    """The six numbers of each training step; six points a step."""
    dice = random.Random(number)
    for step in range(1, steps + 1):
        yield (
            step,
            {
                "train/loss": 0.9 + 1.7 * math.exp(-6 * step / steps) + dice.gauss(0, 0.05),
                "train/lr": 2e-4 * (1 - step / steps),
                "train/grad_norm": abs(dice.gauss(0.5, 0.1)),
                "train/tokens": step * 4096.0,
                "train/tokens_per_s": 11_000 + dice.random() * 800,
                "train/step_s": 2.0 + dice.random() / 10,
            },
        )


def make_finetop(folder: Path, runs: int, long_steps: int) -> None:
    """Finished runs whose times end now."""
    from engine.base.workspace import Workspace
    from engine.runs.journal import Journal
    from engine.settings.resolve import Layer, resolve
    from engine.store import queue, run_lifecycle
    from engine.store.connect import writer
    from engine.store.journal_import import import_journal
    from engine.store.run_records import NewRun

    workspace = Workspace(folder)
    conn = writer(workspace.database)
    given = resolve([Layer("preset quick", {"data.files": ["/data/sql-v3.jsonl"]})])
    flat = given.config.flat()
    now = time.time()

    def new(number: int) -> NewRun:
        return NewRun(
            name=name_of(number),
            settings=flat,
            origins=given.origin,
            model="Qwen/Qwen3-8B",
            data="sql-v3.jsonl",
            method="lora",
            total_steps=steps_of(number, runs, long_steps),
            created=now - (runs - number + 2) * 600,
            estimate_bytes=20 << 30,
        )

    ids = queue.add_all(conn, [new(number) for number in range(runs)])
    for number, run_id in enumerate(ids):
        steps = steps_of(number, runs, long_steps)
        state = "done" if runs - number <= 3 else ("done", "done", "failed", "done", "stopped")[number % 5]
        run_folder = workspace.runs / str(run_id)
        run_folder.mkdir(parents=True)
        (run_folder / "config.json").write_text(given.config.to_json({"origin": given.origin}), "utf-8")
        run_lifecycle.claim(conn, run_id, ("0",))
        end = now - (len(ids) - number) * 600
        lines = []
        for step, values in values_of(number, steps):
            t = end - (steps - step) * 2.0
            lines.append(_line(t, "metric", step=step, values=values))
            if step % max(steps // 2, 1) == 0:
                score = {"eval/loss": values["train/loss"] + 0.03}
                lines.append(_line(t, "eval", step=step, values=score))
                path = f"checkpoints/step-{step:08d}"
                lines.append(
                    _line(t, "checkpoint", step=step, path=path, bytes=168_000_000, kept=["latest"], eval=score)
                )
        reason = {"reason": "out of memory at step 3"} if state == "failed" else {}
        lines.append(_line(end, "state", state=state, step=steps, **reason))
        journal = Journal(run_folder)
        journal.write("state", state="starting", pid=1)
        journal.close()
        with open(run_folder / "journal.jsonl", "a", encoding="utf-8") as file:
            file.writelines(lines)
        import_journal(conn, run_id, run_folder)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()


def _line(t: float, kind: str, **fields: object) -> str:
    import json

    return json.dumps({"t": t, "kind": kind, **fields}, ensure_ascii=False) + "\n"


def make_wandb(folder: Path, runs: int, long_steps: int) -> None:
    """The same runs; the long one's id is `long`."""
    wandb = _wandb(folder)
    for number in range(runs):
        long = number == long_one(runs)
        with wandb.init(id="long" if long else f"r{number:05d}", name=name_of(number), **_quiet(wandb)) as run:
            for step, values in values_of(number, steps_of(number, runs, long_steps)):
                run.log(values, step=step)


def _wandb(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(WANDB_MODE="offline", WANDB_DIR=str(folder), WANDB_SILENT="true")
    import wandb

    return wandb


def _quiet(wandb) -> dict:
    # Nothing beside the numbers: no system metrics, no console.
    return {"project": "bench", "settings": wandb.Settings(x_disable_stats=True, console="off")}


def live_finetop(folder: Path, pace: float, run_ids: list[int]) -> None:
    """A worker as the daemon knows it: holds the run's log, tells its pid, beats, logs."""
    from engine.base.worker_process import locked_log
    from engine.base.workspace import Workspace
    from engine.runs.journal import Journal

    journals = {}
    logs = []  # kept open: the lock lasts as long as the file
    for run_id in run_ids:
        run_folder = Workspace(folder).runs / str(run_id)
        logs.append(locked_log(run_folder))
        journal = journals[run_id] = Journal(run_folder)
        journal.write("beat", next=600, doing="loading", pid=os.getpid())
        journal.write("state", state="starting", pid=os.getpid(), total_steps=LIVE_STEPS)
        journal.write("state", state="running", step=0)
    for step in _paced(pace):
        for run_id, values in _live_values(run_ids, step):
            _tell(run_id, step)
            journals[run_id].metric(step, values)
    for journal in journals.values():
        journal.write("state", state="stopped", step=step)


def live_wandb(folder: Path, pace: float) -> None:
    """Two runs at once; wandb takes a row as complete when it is committed."""
    wandb = _wandb(folder)
    runs = [
        wandb.init(id=f"live{index}", name=f"live-{index}", reinit="create_new", **_quiet(wandb)) for index in (0, 1)
    ]
    for step in _paced(pace):
        for index, values in _live_values([0, 1], step):
            _tell(index, step)
            runs[index].log(values, step=step, commit=True)
    for run in runs:
        run.finish()


def _live_values(run_ids: list[int], step: int) -> Iterator[tuple[int, dict[str, float]]]:
    for run_id in run_ids:
        dice = random.Random(step * 1009 + run_id)
        yield (
            run_id,
            {
                "train/loss": 0.9 + 1.7 * math.exp(-step / 2000) + dice.gauss(0, 0.05),
                "train/lr": 2e-4 * (1 - step / LIVE_STEPS),
                "train/grad_norm": abs(dice.gauss(0.5, 0.1)),
                "train/tokens": step * 4096.0,
                "train/tokens_per_s": 11_000 + dice.random() * 800,
                "train/step_s": 1.0 + dice.random() / 10,
            },
        )


def _paced(pace: float) -> Iterator[int]:
    """Step numbers, `pace` a second, until SIGTERM."""
    over = []
    signal.signal(signal.SIGTERM, lambda number, frame: over.append(number))
    begun, step = time.monotonic(), 0
    while not over:
        step += 1
        yield step
        while not over and (left := begun + step / pace - time.monotonic()) > 0:
            time.sleep(left)


def _tell(run: int, step: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(run, step, time.monotonic(), flush=True)


def main() -> None:
    role, folder, *words = sys.argv[1:]
    if role == "wandb":
        make_wandb(Path(folder), *map(int, words))
    elif role == "live-wandb":
        live_wandb(Path(folder), float(words[0]))
    else:
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        if role == "finetop":
            make_finetop(Path(folder), *map(int, words))
        else:
            live_finetop(Path(folder), float(words[0]), [int(word) for word in words[1:]])


if __name__ == "__main__":
    main()
