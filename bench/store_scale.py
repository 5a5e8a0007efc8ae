"""How the store does with many runs and points, and what a point costs here and elsewhere.

    python bench/store_scale.py                       5,000 runs, 1 million points
    python bench/store_scale.py --points 20000000     the size that is promised (about 5 minutes, 600 MB)
    python bench/store_scale.py --peers               also trackio, MLflow on SQLite and wandb offline

Runs log the six numbers of a training step, through a journal and the importer as in real life, and an evaluation
every 100 steps. One run is made long (5 % of all points, at least 100,000 of them). A point is one value of one metric
at one step; its share of the steps' times, the summaries, the pyramid and the events is counted in. What the runs and
their settings take is said apart: it does not grow with the points.

Asked of it (exit code 1 where it is not so): lists, sorts and filters within 100 ms; under 30 bytes a point.
The peers log the same steps with their own client, in an environment of their own (see environments.py); for them the
time is that of the training loop's call, the waiting at the end included, which is what a training run pays. Ours pays
the journal line; the import is the daemon's, and shown beside it.
"""

import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import environments

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.runs.journal import Journal
from engine.store import chart_queries, queries, queue, run_lifecycle
from engine.store.connect import reader, writer
from engine.store.filters import SORTS
from engine.store.journal_import import import_journal
from engine.store.run_records import NewRun, RunState

KEYS = ("train/loss", "train/lr", "train/grad_norm", "train/tokens", "train/tokens_per_s", "train/step_s")
LIST_LIMIT_MS = 100.0
BYTES_LIMIT = 30.0
PEER_STEPS = 1000
environments.ENVIRONMENTS["mlflow"] = environments.Environment(
    ("mlflow-skinny==3.17.2", "sqlalchemy==2.1.9", "alembic==1.20.1"), torch=False
)

PEERS = {
    "trackio": """
import os, sys, trackio
os.environ["TRACKIO_DIR"] = sys.argv[1]
def start(): trackio.init(project="bench", name="run", embed=False)
log, finish = trackio.log, trackio.finish
""",
    "mlflow": """
import os, sys, mlflow
def start():
    mlflow.set_tracking_uri("sqlite:///" + os.path.join(sys.argv[1], "mlflow.db"))
    mlflow.start_run()
def log(values, step): mlflow.log_metrics(values, step=step)
finish = mlflow.end_run
""",
    "wandb": """
import os, sys
os.environ.update(WANDB_MODE="offline", WANDB_DIR=sys.argv[1], WANDB_SILENT="true")
import wandb
def start():
    global log, finish
    run = wandb.init(project="bench", settings=wandb.Settings(x_disable_stats=True, console="off"))
    log, finish = (lambda values, step: run.log(values, step=step)), run.finish
log = finish = None
""",
}
PEER_LOOP = """
import json, random, time
steps = int(sys.argv[2])
def size():
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(sys.argv[1]) for name in names)
start()
def values(step):
    dice = random.Random(step)
    return {"train/loss": 10 / step ** .5 + dice.random(), "train/lr": 1e-4 * (1 - step / 1e6),
            "train/grad_norm": dice.random(), "train/tokens": step * 4096,
            "train/tokens_per_s": 1e4 * dice.random(), "train/step_s": dice.random()}
data = [values(step) for step in range(1, steps + 1)]
log(data[0], step=0)
before, took = size(), []
begun = time.perf_counter()
for step in range(1, steps + 1):
    at = time.perf_counter()
    log(data[step - 1], step=step)
    took.append(time.perf_counter() - at)
finish()
whole = time.perf_counter() - begun
print("RESULT" + json.dumps({"bytes": size() - before, "seconds": whole, "median_call": sorted(took)[len(took) // 2]}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--peers", action="store_true", help="compare with trackio, MLflow on SQLite, wandb offline")
    parser.add_argument("--keep", type=Path, help="keep the database in this folder")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetop-store-") as scratch:
        found = measure(Path(scratch), options.runs, options.points)
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(scratch) / "runs.db", options.keep / "runs.db")
    if options.peers:
        found["peers"] = {name: measure_peer(name) for name in PEERS}
    print(json.dumps(found, indent=2) if options.json else report(found))
    return 0 if found["worst_list_ms"] <= LIST_LIMIT_MS and found["bytes_per_point"] < BYTES_LIMIT else 1


def measure(folder: Path, runs: int, points: int) -> dict:
    path = folder / "runs.db"
    conn = writer(path)
    ids = add_runs(conn, runs)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.stat().st_size
    long_run = ids[0]
    written, seconds = fill(conn, folder, ids, points)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    watch = reader(path)
    found = {
        "runs": len(ids),
        "points": written,
        "bytes_per_point": (size - before) / written,
        "bytes_per_run": before / len(ids),
        "megabytes": size / 1e6,
        "import_microseconds_per_point": seconds / written * 1e6,
    }
    lists = {"list": lambda: queries.list_runs(watch)}
    for text in ("state:failed", "data:sql", "qwen !state:done", "nothing like it"):
        lists[f"filter {text}"] = lambda text=text: queries.list_runs(watch, text)
    for sort in SORTS:
        lists[f"sort by {sort}"] = lambda sort=sort: queries.list_runs(watch, sort=sort, descending=True)
    found["lists_ms"] = {name: milliseconds(call, 7) for name, call in lists.items()}
    found["worst_list_ms"] = max(found["lists_ms"].values())
    whole = queries.series(watch, long_run)["train/loss"]
    asked = {
        "whole run, 200 columns": lambda: chart_queries.chart(watch, long_run, "train/loss", 200),
        "whole run by time": lambda: chart_queries.chart(watch, long_run, "train/loss", 200, x="time"),
        "a tenth of it": lambda: chart_queries.chart(
            watch, long_run, "train/loss", 200, low=whole.last_step // 2, high=whole.last_step * 6 // 10
        ),
        "a short run": lambda: chart_queries.chart(watch, 7, "train/loss", 200),
        "last 100 points": lambda: chart_queries.tail(watch, long_run, "train/loss", 100),
        "summaries of one run": lambda: queries.series(watch, long_run),
    }
    found["chart_points"] = whole.count
    found["charts_ms"] = {name: milliseconds(call, 15) for name, call in asked.items()}
    found |= measure_steps(conn, folder / "live")
    return found


def add_runs(conn, runs: int) -> list[int]:
    settings = {f"group{index // 8}.setting{index}": index for index in range(48)}
    models, sets = (
        ("Qwen/Qwen3-8B", "meta-llama/Llama-3-8B", "google/gemma-9b"),
        ("sql-v3.jsonl", "chat.jsonl", "notes.csv"),
    )
    return queue.add_all(
        conn,
        [
            NewRun(
                name=f"{models[index % 3].split('/')[1].lower()}-run-{index}",
                model=models[index % 3],
                data=sets[index % 2],
                method="lora",
                settings=settings,
                tags=("sweep",) if index % 5 == 0 else (),
                estimate_bytes=index << 20,
                created=1.79e9 + index,
            )
            for index in range(runs)
        ],
    )


def fill(conn, folder: Path, ids: list[int], points: int) -> tuple[int, float]:
    """The number of points, and how long their import took."""
    dice = random.Random(0)
    long_points = max(points // 20, min(points // 2, 100_000))
    steps_each = max((points - long_points) // (len(KEYS) * len(ids)), 1)
    written, seconds = 0, 0.0
    for run_id in ids:
        steps = long_points // len(KEYS) if run_id == ids[0] else max(round(steps_each * dice.uniform(0.5, 1.5)), 1)
        run_folder = folder / str(run_id)
        run_folder.mkdir()
        run_lifecycle.claim(conn, run_id, ("0",))
        state = (RunState.DONE, RunState.DONE, RunState.FAILED, RunState.STOPPED)[run_id % 4]
        with open(run_folder / "journal.jsonl", "w") as file:
            t = 1.79e9 + run_id * 1000
            for step in range(1, steps + 1):
                t += 0.5 + dice.random() / 10
                file.write(metric_line(t, step, dice))
                if step % 100 == 0:
                    value = 2 / math.sqrt(step)
                    file.write(f'{{"t":{t},"kind":"eval","step":{step},"values":{{"eval/loss":{value}}}}}\n')
            file.write(f'{{"t":{t},"kind":"state","state":"{state}","step":{steps}}}\n')
        begun = time.perf_counter()
        # The time of a step is written too, as a series, and is no point that anybody logged.
        written += import_journal(conn, run_id, run_folder).points - steps
        seconds += time.perf_counter() - begun
        shutil.rmtree(run_folder)
    return written, seconds


def metric_line(t: float, step: int, dice: random.Random) -> str:
    noise = dice.random
    return (
        f'{{"t":{t},"kind":"metric","step":{step},"values":{{"train/loss":{10 / math.sqrt(step) + noise()},'
        f'"train/lr":{1e-4 * (1 - step / 1e6)},"train/grad_norm":{noise()},"train/tokens":{step * 4096},'
        f'"train/tokens_per_s":{1e4 * noise()},"train/step_s":{noise()}}}}}\n'
    )


def measure_steps(conn, folder: Path, steps: int = PEER_STEPS) -> dict:
    """One step at a time: the worker's line, and the importer's commit of it."""
    folder.mkdir()
    run_id = queue.add(conn, NewRun(name="live"))
    run_lifecycle.claim(conn, run_id)
    journal = Journal(folder)
    dice = random.Random(1)
    lines, commits = [], []
    for step in range(1, steps + 1):
        values = dict.fromkeys(KEYS, dice.random()) | {"train/loss": 10 / math.sqrt(step) + dice.random()}
        begun = time.perf_counter()
        journal.metric(step, values)
        middle = time.perf_counter()
        import_journal(conn, run_id, folder)
        lines.append(middle - begun)
        commits.append(time.perf_counter() - middle)
    journal.close()
    commits.sort()
    return {
        "journal_line_us": statistics.median(lines) * 1e6,
        "journal_bytes_per_point": (folder / "journal.jsonl").stat().st_size / steps / len(KEYS),
        "committed_step_us": statistics.median(commits) * 1e6,
        "committed_step_p95_us": commits[int(len(commits) * 0.95)] * 1e6,
    }


def measure_peer(name: str, steps: int = PEER_STEPS) -> dict:
    python = environments.python_of(name)
    with tempfile.TemporaryDirectory(prefix=f"finetop-{name}-") as scratch:
        done = subprocess.run(
            [python, "-c", PEERS[name] + PEER_LOOP, scratch, str(steps)],
            cwd=scratch,
            env=os.environ | {"HOME": scratch, "HF_HUB_OFFLINE": "1", "TRACKIO_DIR": scratch},
            capture_output=True,
            text=True,
        )
    result = next((line for line in done.stdout.splitlines() if line.startswith("RESULT")), None)
    if result is None:
        return {"error": (done.stderr or done.stdout).strip()[-400:]}
    found = json.loads(result.removeprefix("RESULT"))
    return {
        "version": environments.versions_of(python, (name, "mlflow-skinny")),
        "bytes_per_point": found["bytes"] / steps / len(KEYS),
        "step_us": found["seconds"] / steps * 1e6,
        "median_call_us": found["median_call"] * 1e6,
    }


def milliseconds(call: Callable[[], object], times: int) -> float:
    """The median; the first call, which warms the page cache, counts as one."""
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e3


def report(found: dict) -> str:
    lines = [
        f"{found['runs']:,} runs, {found['points']:,} points: {found['megabytes']:,.0f} MB,"
        f" {found['bytes_per_point']:.1f} bytes a point (limit {BYTES_LIMIT:.0f});"
        f" {found['bytes_per_run'] / 1000:.1f} kB a run with its 48 settings",
        f"import: {found['import_microseconds_per_point']:.1f} us a point in bulk; a step at a time"
        f" {found['committed_step_us']:.0f} us a commit (95 %: {found['committed_step_p95_us']:.0f})",
        f"a training step pays {found['journal_line_us']:.0f} us for its journal line",
        f"lists of {found['runs']:,} runs, median ms (limit {LIST_LIMIT_MS:.0f}):",
        *(f"  {took:7.1f}  {name}" for name, took in found["lists_ms"].items()),
        f"charts of a run of {found['chart_points']:,} steps, median ms:",
        *(f"  {took:7.2f}  {name}" for name, took in found["charts_ms"].items()),
    ]
    if "peers" in found:
        ours = found["bytes_per_point"], found["journal_line_us"]
        lines += [
            f"{PEER_STEPS:,} steps of {len(KEYS)} metrics elsewhere:",
            f"  {'':22} {'bytes/point':>12} {'us/step':>9}",
            f"  {'finetop (database)':22} {ours[0]:12.1f} {found['committed_step_us']:9.0f}   in the daemon",
            f"  {'finetop (journal)':22} {found['journal_bytes_per_point']:12.1f} {ours[1]:9.0f}"
            "   in the training loop",
        ]
        for name, peer in found["peers"].items():
            if "error" in peer:
                lines.append(f"  {name:22} failed: {peer['error']}")
                continue
            version = next(iter(peer["version"].values()), "")
            lines.append(
                f"  {f'{name} {version}':22} {peer['bytes_per_point']:12.1f} {peer['step_us']:9.0f}"
                f"   {peer['bytes_per_point'] / ours[0]:.1f}x the bytes, {peer['step_us'] / ours[1]:.0f}x the time"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
