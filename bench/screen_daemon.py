"""Does for the screen what the daemon does, on a machine with four busy GPUs that need not be there.

    screen_daemon.py WORKSPACE RUN...

Holds the daemon's lock, imports the runs' journals four times a second, and writes `daemon.json` and `machine.json`
once a second, with readings that wander as those of real cards do: load by a few percent, heat and power by a little.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.base.atomic_files import atomic_write
from engine.base.workspace import Workspace
from engine.daemon import daemon_client
from engine.daemon.limits import Limits
from engine.store.connect import writer
from engine.store.journal_import import import_journal

GIB = 1 << 30


def main() -> None:
    workspace, runs = Workspace(Path(sys.argv[1])), [int(word) for word in sys.argv[2:]]
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: over.append(number))
    daemon_client.make_private(workspace)
    if daemon_client.take_lock(workspace) is None:
        raise SystemExit("a daemon runs there")
    conn = writer(workspace.database)
    dice = random.Random(0)
    begun, told = time.time(), 0.0
    while not over:
        for run_id in runs:
            import_journal(conn, run_id, workspace.runs / str(run_id))
        if time.time() - told >= 1.0:
            told = time.time()
            about = {"pid": os.getpid(), "started": begun, "t": told, "version": "0", "warm": "ready", "cpu_slots": 1}
            atomic_write(workspace.daemon_state, json.dumps(about))
            atomic_write(workspace.machine_state, json.dumps(machine(told, dice, runs)))
        time.sleep(Limits().tick_seconds)
    conn.close()
    for path in (workspace.daemon_state, workspace.machine_state):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def machine(now: float, dice: random.Random, runs: list[int]) -> dict:
    cards = []
    for index in range(4):
        run = runs[index % len(runs)]
        held = int((62.1 - index * 9) * GIB)
        process = {
            "gpu": f"GPU-{index}", "pid": 2217 + index, "kind": "compute", "memory_bytes": held - GIB, "user": "me",
            "command": "python", "run": run, "identified": True,
        }  # fmt: skip
        cards.append(
            {
                "index": index, "uuid": f"GPU-{index}", "name": "NVIDIA A100-SXM4-80GB", "taken_at": now,
                "age_seconds": 0.2, "utilisation": min(100, dice.randint(93, 101)), "memory_used_bytes": held,
                "memory_total_bytes": 80 * GIB, "temperature_c": 68 + dice.randint(0, 2),
                "power_watts": 390 + dice.randint(-12, 12), "power_limit_watts": 400, "processes": [process],
            }
        )  # fmt: skip
    return {
        "t": now,
        "taken_at": now,
        "gpus": cards,
        "gpu_problem": None,
        "driver": "570.86",
        "cuda": "12.8",
        "host": {
            "taken_at": now, "age_seconds": 0.1, "cpu_percent": 12.0 + dice.random(), "cpu_count": 64,
            "load_1min": 12.1, "memory_used_bytes": 120 * GIB, "memory_total_bytes": 512 * GIB,
        },
        "disk": {
            "path": "/work", "taken_at": now, "age_seconds": 0.1, "free_bytes": 412_000_000_000,
            "total_bytes": 10**12,
        },
        "runs": {},
    }  # fmt: skip


if __name__ == "__main__":
    main()
