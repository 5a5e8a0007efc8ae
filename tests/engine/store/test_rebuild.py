"""`rebuild`: the folders are the truth about runs."""

import dataclasses
import json

import pytest

from engine.settings.schema import RunConfig
from engine.store import chart_queries, checkpoint_rows, queries, queue, run_lifecycle
from engine.store.connect import reader, writer
from engine.store.journal_import import import_journal
from engine.store.new_run import from_config
from engine.store.rebuild import rebuild
from engine.store.run_records import NewRun, RunState
from engine.store.store_errors import StoreForeign
from tests.engine.store.storekit import line, metric, write

DUMPED = ("runs", "settings", "points", "metric_pyramid", "checkpoints", "evaluations", "samples", "dependencies")


@pytest.fixture
def workspace(tmp_path):
    """Four runs: done with a resume in it, failed, killed in the middle, and waiting."""
    conn = writer(tmp_path / "runs.db")
    config = RunConfig().replace({"run.name": "sql", "data.files": ["/data/sql-v3.jsonl"]})
    journals = {
        1: [
            line("state", 900.0, state="starting"),
            line("state", 901.0, state="running", total_steps=300),
            *(metric(step, loss=1 / step) for step in range(1, 201)),
            line("resume", 2000.0, from_step=100),
            *(metric(step, t=2000.0 + step, loss=2 / step) for step in range(101, 301)),
            line("eval", 2301.0, step=300, values={"eval/loss": 0.5}),
            line("checkpoint", 2302.0, step=300, path="checkpoints/step-00000300", kept=["best", "latest"]),
            line("state", 2303.0, state="done", step=300),
        ],
        2: [line("state", 900.0, state="running"), line("state", 950.0, state="failed", reason="loss became NaN")],
        3: [line("state", 900.0, state="running"), metric(1, loss=1.0)],
        4: [],
    }
    for run_id, lines in journals.items():
        folder = tmp_path / "runs" / str(run_id)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config.to_json())
        after, priority = ((2,), 7) if run_id == 4 else ((), 0)
        new = dataclasses.replace(from_config(json.loads(config.to_json())), after=after, priority=priority)
        queue.add(conn, new, run_id)
        if lines:
            run_lifecycle.claim(conn, run_id)
            import_journal(conn, run_id, write(folder, *lines))
    queue.edit(conn, 1, note="the good one", tags=("keep",))
    checkpoint_rows.pin(conn, 1, 300)
    queue.note(conn, 2, "retry", "tried again")
    queue.set_meta(conn, "seen:kim", "123")
    conn.close()
    return tmp_path


def dump(path, table):
    return set(reader(path).execute(f"SELECT * FROM {table}").fetchall())


def test_a_lost_database_comes_back_with_every_point_state_and_checkpoint(workspace):
    path = workspace / "runs.db"
    before = {table: dump(path, table) for table in DUMPED}
    for suffix in ("", "-wal", "-shm"):
        (workspace / f"runs.db{suffix}").unlink(missing_ok=True)
    found = rebuild(workspace)
    assert (found.runs, found.problems, found.old) == (4, (), None)
    for table in ("points", "metric_pyramid", "settings", "evaluations", "samples"):
        assert dump(path, table) == before[table], table
    conn = reader(path)
    states = {run.id: (run.state, run.held) for run in queries.list_runs(conn)}
    assert states == {
        1: (RunState.DONE, False),
        2: (RunState.FAILED, False),
        3: (RunState.INTERRUPTED, False),
        4: (RunState.QUEUED, True),
    }
    first = queries.run(conn, 1)
    assert (first.name, first.data, first.step, first.finished) == ("sql", "sql-v3.jsonl", 300, 2303.0)
    assert (first.train_loss, first.best_eval, first.total_steps) == (2 / 300, 0.5, 300)
    assert queries.run(conn, 2).reason == "loss became NaN"
    assert [checkpoint.step for checkpoint in queries.checkpoints(conn, 1)] == [300]
    assert chart_queries.at_step(conn, 1, "train/loss", 150).value == 2 / 150


def test_what_only_the_old_database_knew_is_taken_over(workspace):
    found = rebuild(workspace)
    assert found.old.exists()
    conn = reader(workspace / "runs.db")
    first, waiting = queries.run(conn, 1), queries.run(conn, 4)
    assert (first.note, first.tags) == ("the good one", ("keep",))
    assert queries.checkpoints(conn, 1)[0].pinned
    assert (waiting.priority, waiting.held) == (7, False)
    assert queries.dependencies(conn) == {4: ((2, RunState.FAILED),)}
    assert queries.get_meta(conn, "seen:kim") == "123"
    assert "tried again" in [event.message for event in queries.events(conn, 2)]
    assert queue.add(writer(workspace / "runs.db"), NewRun()) == 5


def test_the_id_of_a_run_that_was_deleted_is_not_given_again(workspace):
    conn = writer(workspace / "runs.db")
    assert queue.add(conn, NewRun()) == 5
    assert queue.trash(conn, 5) and queue.purge(conn, 5)
    conn.close()
    rebuild(workspace)
    assert queue.add(writer(workspace / "runs.db"), NewRun()) == 6


def test_what_was_killed_or_taken_off_the_queue_does_not_come_back_to_life(workspace):
    conn = writer(workspace / "runs.db")
    queue.request(conn, 4, "stop")
    run_lifecycle.finish(conn, 3, RunState.STOPPED, "killed by you at step 1")
    conn.close()
    rebuild(workspace)
    conn = reader(workspace / "runs.db")
    told = {run_id: (queries.run(conn, run_id).state, queries.run(conn, run_id).reason) for run_id in (3, 4)}
    assert told == {3: ("stopped", "killed by you at step 1"), 4: ("stopped", "taken off the queue")}


def test_a_damaged_database_is_put_aside_and_made_anew(workspace):
    path = workspace / "runs.db"
    for suffix in ("-wal", "-shm"):
        (workspace / f"runs.db{suffix}").unlink(missing_ok=True)
    path.write_bytes(b"scrambled" * 1000)
    with pytest.raises(StoreForeign, match=r"runs\.db"):
        reader(path)
    found = rebuild(workspace)
    assert found.old.read_bytes() == b"scrambled" * 1000
    assert len(queries.list_runs(reader(path))) == 4


def test_folders_with_unreadable_parts_are_said_and_the_rest_is_taken_in(workspace):
    (workspace / "runs" / "2" / "config.json").write_text("{torn")
    (workspace / "runs" / "5").mkdir()
    described = {"finetop": {"queued": {"sweep": "third", "after": [1], "unknown": 1}}}
    (workspace / "runs" / "3" / "config.json").write_text(json.dumps(described))
    (workspace / "runs" / "notes").mkdir()
    (workspace / "runs.db").unlink()
    found = rebuild(workspace)
    assert found.runs == 5
    assert len(found.problems) == 2 and "2/config.json" in found.problems[0] and "missing" in found.problems[1]
    conn = reader(workspace / "runs.db")
    assert queries.run(conn, 2).reason == "loss became NaN"
    assert queries.run(conn, 3).sweep == "third"


def test_rebuilding_twice_gives_the_same(workspace):
    rebuild(workspace)
    before = {table: dump(workspace / "runs.db", table) for table in DUMPED}
    rebuild(workspace)
    assert {table: dump(workspace / "runs.db", table) for table in DUMPED} == before
