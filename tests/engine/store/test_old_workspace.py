"""A workspace that the first version of the schema wrote: everything in it is there after the migrations.

`schema_1_workspace` holds the database as SQL and the run folders without their checkpoints: run 1 is done and has
evaluations and answers, run 2 failed since its data was gone, run 3 waits.
"""

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from engine.base.messages import Message
from engine.cli.main import main
from engine.runs.journal import SampledAnswer
from engine.store import chart_queries, queries, queue
from engine.store.connect import SCHEMA_VERSION, reader, writer
from engine.store.journal_import import import_journal
from engine.store.rebuild import rebuild
from engine.store.run_records import RunState

OLD = Path(__file__).parent / "schema_1_workspace"
GONE = "/home/work/data/gone.jsonl does not exist"


@pytest.fixture
def workspace(tmp_path):
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    with contextlib.closing(sqlite3.connect(tmp_path / "runs.db")) as conn:
        conn.executescript((tmp_path / "runs.sql").read_text("utf-8"))
    return tmp_path


def sampled(conn):
    """Step, kind and reference of the answers kept of run 1."""
    return [(answer.step, answer.to_example, answer.reference) for answer in queries.samples(conn, 1)]


def test_an_old_database_holds_all_it_held(workspace):
    conn = writer(workspace / "runs.db")
    assert conn.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert (workspace / "runs.db.schema-1.bak").exists()
    runs = {run.id: run for run in queries.list_runs(conn)}
    states = {run_id: run.state for run_id, run in runs.items()}
    assert states == {1: RunState.DONE, 2: RunState.FAILED, 3: RunState.QUEUED}
    assert (runs[2].reason, runs[3].wait_reason, runs[1].phase) == (GONE, "held by you", None)
    assert not isinstance(runs[2].reason, Message), "an old row has its text only"
    assert queries.error(conn, 2).startswith(GONE)
    assert [event.kind for event in queries.events(conn, 2)] == ["start", "state", "state", "ended"]
    assert [evaluation.step for evaluation in queries.evaluations(conn, 1)] == [0, 2, 4]
    answer = "Use `finetop add` with the same flags as `finetop train`; it prints the number of the run."
    assert sampled(conn) == [(step, *kind) for step in (0, 2, 4) for kind in ((False, None), (True, answer))]
    assert isinstance(queries.samples(conn, 1)[0], SampledAnswer)
    assert [checkpoint.step for checkpoint in queries.checkpoints(conn, 1)] == [4, 2, 0]
    assert chart_queries.chart(conn, 1, "train/loss", 10).columns[-1].last_step == 4
    assert queue.last_id(conn) == 3 and queries.get_meta(conn, "clock:1")


def test_what_an_active_run_did_is_its_phase_and_saving_is_a_phase_only(workspace):
    with contextlib.closing(sqlite3.connect(workspace / "runs.db")) as old:
        old.execute("UPDATE runs SET state = 'running', wait_reason = 'evaluating' WHERE id = 1")
        old.execute("UPDATE runs SET state = 'saving', wait_reason = 'saving' WHERE id = 2")
        old.commit()
    conn = writer(workspace / "runs.db")
    assert [(run.id, run.state, run.phase, run.wait_reason) for run in queries.active(conn)] == [
        (1, RunState.RUNNING, "evaluating", None),
        (2, RunState.RUNNING, "saving", None),
    ]
    assert conn.execute("SELECT phase FROM run_summary WHERE id = 1").fetchone() == ("evaluating",)


def test_an_old_journal_is_read_like_a_new_one(workspace):
    conn = writer(workspace / "runs.db")
    kept = sampled(conn)
    conn.execute("UPDATE runs SET journal_offset = 0, journal_head = 0 WHERE id = 1")
    conn.execute("DELETE FROM samples")
    import_journal(conn, 1, workspace / "runs" / "1")
    assert sampled(conn) == kept


def test_the_database_is_rebuilt_from_old_folders_and_from_an_old_database(workspace):
    rebuild(workspace)
    conn = reader(workspace / "runs.db")
    assert [(run.id, run.state) for run in queries.queue(conn)] == [(3, RunState.QUEUED)]
    assert queries.run(conn, 2).reason == GONE and queue.last_id(conn) == 3
    assert len(sampled(conn)) == 6 and [event.kind for event in queries.events(conn, 1)][-1] == "start"


def test_commands_show_and_compare_old_runs(workspace, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # a reason is cut to the width

    def output(*words: str) -> str:
        assert main([*words, "--workspace", str(workspace)]) == 0
        return capsys.readouterr().out

    assert "held by you" in output("ls") and GONE in output("ls")
    assert output("history").split()[-1] == "ago"
    assert "exact_match" in output("show", "1") and GONE in output("show", "2")
    assert "versions" in output("logs", "1", "--events")
    assert "Where is my card?" in output("samples", "1")
    compared = output("compare", "1", "2")
    assert "finished, done, best at step 4" in compared and "You can see the mouth." in compared
