"""Whoever is killed, whenever: no run is lost, none is started twice, no number is lost or doubled.

The short form, on scripted workers; tests/faults/run_faults.py does the same to real runs and compares their weights.
"""

import os
import random
import signal
import time

import pytest

from engine.store import queries
from engine.store.run_records import RunState
from tests.engine.daemon.daemonkit import Bench

KILLS = 12
STEPS = 40


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path / "workspace", retry_first_seconds=0.05, retry_growth=1.0)
    yield made
    made.close()


def test_random_kills_of_daemon_and_workers_lose_and_double_nothing(bench):
    dice = random.Random(20)
    runs = [bench.add(new={"retries": 1000}, steps=STEPS, pause=0.02, save=4) for _ in range(6)]
    bench.start()
    for _ in range(KILLS):
        time.sleep(dice.uniform(0.0, 0.5))  # any moment will do; none is waited for
        with bench.reading() as conn:
            pids = [run.pid for run in queries.active(conn) if run.pid]
        if pids and dice.random() < 0.5:
            os.kill(dice.choice(pids), signal.SIGKILL)
        else:
            bench.kill_daemon()
            bench.start()
    bench.until(lambda: all(bench.run(run).state in (RunState.DONE, RunState.INTERRUPTED) for run in runs))
    # A worker that died while no daemon looked has no exit code: interrupted, and tried again like the others.
    ended = [bench.run(run) for run in runs]
    assert [run.state for run in ended] == [RunState.DONE] * len(runs)
    for run in runs:
        assert bench.series(run) == [(step, 1 / step) for step in range(1, STEPS + 1)]
        assert not (bench.workspace.runs / str(run) / "twice").exists()
        assert bench.run(run).attempts == len(bench.starts(run)), bench.log()
