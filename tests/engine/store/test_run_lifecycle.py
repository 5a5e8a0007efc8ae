"""A run is claimed once, and what its end leaves on record."""

import random
import time

import pytest

from engine.store import queries, queue, run_lifecycle
from engine.store.run_records import NewRun, Outcome, RunState
from engine.store.store_errors import StoreError
from tests.engine.store import storekit

CLAIM_ALL = """
import sys, time
from pathlib import Path
from engine.store import run_lifecycle
from engine.store.connect import writer
conn = writer(Path(sys.argv[1]))
time.sleep(max(0, float(sys.argv[2]) - time.time()))
print(*[run_id for run_id in map(int, sys.argv[3:]) if run_lifecycle.claim(conn, run_id)])
"""


def test_two_processes_never_claim_the_same_run(path, conn):
    ids = queue.add_all(conn, [NewRun() for _ in range(60)])
    start = time.time() + 0.5
    processes = []
    for seed in range(4):
        order = random.Random(seed % 2).sample(ids, len(ids))  # two pairs in the very same order
        processes.append(storekit.process(CLAIM_ALL, path, start, *order))
    claimed = [[int(word) for word in output.split()] for output in storekit.outputs(processes)]
    assert sorted(run for part in claimed for run in part) == ids
    assert all(run.attempts == 1 for run in queries.list_runs(conn))


def test_a_run_from_queue_to_end(conn):
    run_id = queue.add(conn, NewRun(name="a"))
    run = run_lifecycle.claim(conn, run_id, gpus=("0", "GPU-ab"), host="box")
    assert run.state is RunState.STARTING and run.gpus == ("0", "GPU-ab") and run.attempts == 1
    assert run_lifecycle.claim(conn, run_id) is None
    assert run_lifecycle.started(conn, run_id, 4711, 12.5)
    assert run_lifecycle.finish(conn, run_id, RunState.FAILED, "out of memory", "Traceback", 1)
    lost = run_lifecycle.finish(conn, run_id, RunState.DONE)
    assert lost == Outcome(False, run_id, RunState.FAILED, f"run {run_id} has failed")
    ended = queries.run(conn, run_id)
    assert (ended.reason, ended.exit_code, ended.pid) == ("out of memory", 1, None)
    assert queries.error(conn, run_id) == "Traceback"
    assert queue.resume(conn, run_id, from_step=40)
    again = run_lifecycle.claim(conn, run_id)
    assert again.attempts == 2 and again.resume_step == 40 and again.reason is None


def test_held_trashed_and_dependent_runs_cannot_be_claimed(conn):
    first = queue.add(conn, NewRun())
    dependent = queue.add(conn, NewRun(after=(first,)))
    held = queue.add(conn, NewRun(held=True))
    trashed = queue.add(conn, NewRun())
    assert queue.trash(conn, trashed)
    assert all(run_lifecycle.claim(conn, run) is None for run in (dependent, held, trashed))
    assert queries.dependencies(conn) == {dependent: ((first, RunState.QUEUED),)}
    run_lifecycle.claim(conn, first)
    assert run_lifecycle.claim(conn, dependent) is None
    run_lifecycle.finish(conn, first, RunState.DONE)
    assert run_lifecycle.claim(conn, dependent)
    queue.set_waiting(conn, {held: ("held", "held by you")})
    assert queue.release(conn, held) and not queries.run(conn, held).wait_reason
    assert run_lifecycle.claim(conn, held)


def test_a_run_does_not_start_after_one_that_failed_nor_waits_for_one_that_is_not_there(conn):
    first = queue.add(conn, NewRun())
    second = queue.add(conn, NewRun(after=(first,)))
    run_lifecycle.claim(conn, first)
    run_lifecycle.finish(conn, first, RunState.FAILED)
    assert run_lifecycle.claim(conn, second) is None
    with pytest.raises(StoreError, match="no such run"):
        queue.add(conn, NewRun(after=(99,)))


def test_the_wait_after_a_resume_is_no_work_and_why_the_run_had_ended_is_kept(conn):
    run_id = queue.add(conn, NewRun())
    run_lifecycle.claim(conn, run_id)
    run_lifecycle.finish(conn, run_id, RunState.STOPPED, "asked to stop", exit_code=3)
    before = queries.run(conn, run_id)
    assert queue.resume(conn, run_id) and queue.request(conn, run_id, "stop")
    after = queries.run(conn, run_id)
    assert (after.state, after.reason) == (RunState.STOPPED, "asked to stop")
    assert (after.started, after.finished) == (before.started, before.finished)
    untouched = queue.add(conn, NewRun())
    assert queue.request(conn, untouched, "stop")
    assert queries.run(conn, untouched).reason == "taken off the queue" and queries.run(conn, untouched).finished
