"""How long a GPU or CPU slot stands empty between two runs: forked from the warm process, and started from nothing.

    python bench/start_latency.py [--runs N] [--config FILE]

Measured to the first optimizer step, as the journal has it. Warm: from the line in which the run before says that it is
done, so that its leaving, the daemon's noticing, the fork and all loading are counted. Cold: from starting
`python -m engine.worker` by hand, on the same settings and with the files in the page cache; nobody has to notice
anything there. Prints JSON.
"""

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.base.worker_process import worker_command, worker_environment  # noqa: E402
from engine.base.workspace import Workspace  # noqa: E402
from engine.daemon import daemon_client  # noqa: E402
from engine.runs import journal  # noqa: E402
from engine.runs.run_folder import create_run  # noqa: E402
from engine.settings.config_file import read_config_file  # noqa: E402
from engine.settings.resolve import Layer, resolve  # noqa: E402
from engine.store import queries  # noqa: E402
from engine.store.connect import reader  # noqa: E402
from engine.store.run_records import RunState  # noqa: E402
from tests.faults.run_faults import queue_run  # noqa: E402

SETTINGS = {
    "model.name": "starter",
    "data.files": [str(ROOT / "presets" / "samples" / "intents.csv")],
    "method.kind": "lora",
    "train.max_steps": 5,
    "train.batch_size": 8,
    "eval.every": 1000,
}
LIMIT_SECONDS = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="how many starts of each kind (default: 5)")
    parser.add_argument("--config", type=Path, help="other settings than the starter model's")
    options = parser.parse_args()
    values = SETTINGS | (read_config_file(options.config) if options.config else {})
    with tempfile.TemporaryDirectory(prefix="finetop-latency-") as scratch:
        cold = cold_starts(Workspace(Path(scratch) / "cold"), values, options.runs)
        warm, how = warm_starts(Workspace(Path(scratch) / "warm"), values, options.runs)
    ratio = statistics.median(cold) / statistics.median(warm)
    print(
        json.dumps(
            {
                "warm_seconds": [round(value, 3) for value in warm],
                "cold_seconds": [round(value, 3) for value in cold],
                "warm_median": round(statistics.median(warm), 3),
                "cold_median": round(statistics.median(cold), 3),
                "ratio": round(ratio, 1),
                "started": how,
            },
            indent=2,
        )
    )


def cold_starts(workspace: Workspace, values: dict[str, Any], count: int) -> list[float]:
    """The first is thrown away: it reads the libraries from the disk."""
    found = []
    for _ in range(count + 1):
        _, folder = create_run(workspace, resolve([Layer("bench", values)]))
        began = time.time()
        subprocess.run(
            worker_command(str(folder)),
            env=worker_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        found.append(first_step(folder) - began)
    return found[1:]


def warm_starts(workspace: Workspace, values: dict[str, Any], count: int) -> tuple[list[float], list[str]]:
    """The first run waits for the warm process to load; each of the others for the one before it."""
    resolved = resolve([Layer("bench", values)])
    ids = [queue_run(workspace, resolved) for _ in range(count + 1)]
    daemon_client.start(workspace)
    try:
        wait_until_done(workspace, ids)
    finally:
        daemon_client.stop(workspace)
    folders = [workspace.runs / str(run_id) for run_id in ids]
    gaps = [first_step(after) - done_at(before) for before, after in itertools.pairwise(folders)]
    with contextlib.closing(reader(workspace.database)) as conn:
        how = [event.message for run_id in ids for event in queries.events(conn, run_id) if event.kind == "start"]
    return gaps, how


def wait_until_done(workspace: Workspace, ids: list[int]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    with contextlib.closing(reader(workspace.database)) as conn:
        while True:
            runs = [queries.run(conn, run_id) for run_id in ids]
            if all(run.state is RunState.DONE for run in runs):
                return
            if time.monotonic() > deadline or any(run.state is RunState.FAILED for run in runs):
                raise SystemExit("\n".join(f"run {run.id}: {run.state} {run.reason or ''}" for run in runs))
            time.sleep(0.2)


def first_step(folder: Path) -> float:
    return next(event["t"] for event in journal.read(folder)[0] if event["kind"] == "metric")


def done_at(folder: Path) -> float:
    return next(e["t"] for e in journal.read(folder)[0] if e["kind"] == "state" and e.get("state") == "done")


if __name__ == "__main__":
    main()
