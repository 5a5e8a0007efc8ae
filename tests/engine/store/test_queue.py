"""Changes of runs, queued, claimed and ended: each wins or says why it lost."""

import random
import time

import pytest

from engine.store import filters, journal_import, queries, queue, run_lifecycle
from engine.store.connect import reader, writer
from engine.store.filters import SORTS
from engine.store.run_records import NewRun, Outcome, RunState
from engine.store.store_errors import StoreError
from tests.engine.store import storekit


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


@pytest.fixture
def conn(path):
    conn = writer(path)
    yield conn
    conn.close()


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


def test_a_run_is_seen_only_when_its_folder_stands(path, conn):
    watcher = reader(path)
    seen = []
    run_id = queue.add(conn, NewRun(), prepare=lambda run_id: seen.append((run_id, queries.run(watcher, run_id))))
    assert seen == [(run_id, None)] and queries.run(watcher, run_id) is not None
    with pytest.raises(OSError):
        queue.add(conn, NewRun(), prepare=lambda _: (_ for _ in ()).throw(OSError("no room")))
    assert len(queries.list_runs(conn)) == 1


def test_ids_are_never_given_twice(conn):
    assert queue.add_all(conn, [NewRun(), NewRun()]) == [1, 2]
    assert queue.add(conn, NewRun(), run_id=7) == 7
    with pytest.raises(StoreError):
        queue.add(conn, NewRun(), run_id=7)
    assert queue.trash(conn, 7) and queue.purge(conn, 7)
    assert queue.add(conn, NewRun()) == 8


def test_a_queued_run_keeps_its_settings_and_where_they_came_from(conn):
    settings = {"optim.learning_rate": 1e-4, "data.files": ["微调.jsonl"], "run.name": ""}
    run_id = queue.add(conn, NewRun(settings=settings, origins={"optim.learning_rate": "flag"}))
    kept = {item.key: (item.value, item.origin) for item in queries.settings(conn, run_id)}
    assert kept["optim.learning_rate"] == (1e-4, "flag")
    assert kept["data.files"] == (["微调.jsonl"], "")


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
    assert queue.release(conn, held) and run_lifecycle.claim(conn, held)


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


def test_a_wish_reaches_a_run_that_is_active_and_stops_one_that_waits(conn):
    waiting, active = queue.add_all(conn, [NewRun(), NewRun()])
    run_lifecycle.claim(conn, active)
    assert queue.request(conn, waiting, "stop").state is RunState.STOPPED
    assert queue.request(conn, active, "stop") and queries.run(conn, active).wanted == "stop"
    assert queue.request(conn, active, "kill") and queries.run(conn, active).wanted == "kill"
    assert not queue.request(conn, active, "stop"), "a kill is not softened"
    assert queries.run(conn, active).wanted == "kill"
    run_lifecycle.finish(conn, active, RunState.STOPPED)
    assert queue.request(conn, active, "stop").why == f"run {active} has been stopped"
    assert queue.request(conn, 99, "stop").why == "there is no run 99"
    assert queries.run(conn, active).wanted is None


def order(conn):
    return [run.id for run in queries.queue(conn)]


def test_moving_keeps_the_place_that_was_asked_for_across_priorities(conn):
    queue.add_all(conn, [NewRun(), NewRun(priority=5), NewRun(), NewRun(priority=5)])
    assert order(conn) == [2, 4, 1, 3]
    assert queue.move(conn, 3, "up") and order(conn) == [2, 4, 3, 1]
    assert queue.move(conn, 3, "up") and order(conn) == [2, 3, 4, 1]
    assert queries.run(conn, 3).priority == 5
    assert queue.move(conn, 2, "bottom") and order(conn) == [3, 4, 1, 2]
    assert queries.run(conn, 2).priority == 0
    assert queue.move(conn, 1, "top") and order(conn) == [1, 3, 4, 2]
    assert queue.move(conn, 2, 1) and order(conn) == [1, 2, 3, 4]
    assert queue.move(conn, 1, "up") and order(conn) == [1, 2, 3, 4]
    assert queue.add(conn, NewRun()) == 5 and order(conn) == [1, 2, 3, 4, 5]
    run_lifecycle.claim(conn, 4)
    assert queue.move(conn, 4, "up").why == "run 4 is starting"


def test_the_order_is_total_after_any_moves(conn):
    dice = random.Random(1)
    ids = queue.add_all(conn, [NewRun(priority=dice.randint(0, 2)) for _ in range(12)])
    expected = order(conn)
    for _ in range(60):
        run, place = dice.choice(ids), dice.randrange(12)
        queue.move(conn, run, place)
        expected.remove(run)
        expected.insert(place, run)
        assert order(conn) == expected


def test_the_trash_gives_back_what_it_took_and_takes_nothing_that_runs(conn):
    waiting, active = queue.add_all(conn, [NewRun(), NewRun()])
    run_lifecycle.claim(conn, active)
    assert queue.trash(conn, active).why == f"run {active} is starting"
    assert queue.trash(conn, waiting) and queries.list_runs(conn, trashed=True)[0].id == waiting
    assert [run.id for run in queries.list_runs(conn)] == [active] and order(conn) == []
    assert not queue.purge(conn, active)
    assert queue.restore(conn, waiting) and queries.run(conn, waiting).held
    assert not queue.restore(conn, waiting)


def test_purge_leaves_nothing_behind(conn, tmp_path):
    run_id = queue.add(conn, NewRun(settings={"a.b": 1}))
    run_lifecycle.claim(conn, run_id)
    folder = storekit.write(tmp_path / "1", *(storekit.metric(step, loss=1.0) for step in range(100)))
    journal_import.import_journal(conn, run_id, folder)
    queue.note(conn, run_id, "retry", "again")
    run_lifecycle.finish(conn, run_id, RunState.DONE)
    assert queue.trash(conn, run_id) and queue.purge(conn, run_id)
    for table in ("runs", "settings", "events", "points", "metric_pyramid", "metric_summary", "checkpoints"):
        assert conn.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def test_reasons_are_written_only_when_they_change(conn):
    run_id = queue.add(conn, NewRun())
    assert queue.set_waiting(conn, {run_id: ("busy", "GPU 0 is used by run 7"), 99: ("busy", "no such run")}) == 1
    assert queue.set_waiting(conn, {run_id: ("busy", "GPU 0 is used by run 7")}) == 0
    assert queries.run(conn, run_id).wait_reason == "GPU 0 is used by run 7"


def test_names_notes_and_tags_can_be_edited_but_what_a_run_asks_for_only_while_it_waits(conn):
    run_id = queue.add(conn, NewRun())
    assert queue.edit(conn, run_id, name="b", tags=("good", "sql"), gpus_wanted=2)
    run = queries.run(conn, run_id)
    assert (run.name, run.tags, run.gpus_wanted) == ("b", ("good", "sql"), 2)
    run_lifecycle.claim(conn, run_id)
    assert not queue.edit(conn, run_id, gpus_wanted=1)
    assert queue.edit(conn, run_id, note="fine")
    with pytest.raises(ValueError, match="state"):
        queue.edit(conn, run_id, state="done")


@pytest.fixture
def many(conn):
    queue.add_all(
        conn,
        [
            NewRun(name="qwen3-8b-sql", model="Qwen/Qwen3-8B", data="sql-v3.jsonl", tags=("good",)),
            NewRun(name="llama", model="meta/Llama", data="chat.jsonl", method="lora"),
            NewRun(name="gemma", model="google/gemma", data="SQL-v2.jsonl", note="100%_sure"),
            NewRun(name="微调", model="qwen:7b", data="问答.csv", held=True),
        ],
    )
    run_lifecycle.claim(conn, 2)
    run_lifecycle.finish(conn, 2, RunState.FAILED, "out of memory")
    return conn


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", {1, 2, 3, 4}),
        ("state:failed", {2}),
        ("!state:failed", {1, 3, 4}),
        ("state:failed,held", {2, 4}),
        ("state:fail", {2}),
        ("data:sql", {1, 3}),
        ("data:sql !qwen", {3}),
        ("qwen", {1, 4}),
        ("qwen:7b", {4}),
        ("!method:lora", {1, 3, 4}),
        ("问答", {4}),
        ("100%_", {3}),
        ("%", {3}),
        ("2", {2, 3}),
        ("id:2", {2}),
        ("id:2-3", {2, 3}),
        ("#2", {2}),
        ("tag:good", {1}),
        ('reason:"of mem"', {2}),
        ('name:"unfinished', set()),
        ("state:", {1, 2, 3, 4}),
        ("!", {1, 2, 3, 4}),
        ("'; DROP TABLE runs", set()),
    ],
)
def test_filters(many, text, ids):
    assert {run.id for run in queries.list_runs(many, text)} == ids


def test_lists_stand_in_the_order_of_the_screen_or_by_any_column(many):
    run_lifecycle.claim(many, 3)
    assert [run.id for run in queries.list_runs(many)] == [3, 1, 4, 2]
    assert [run.id for run in queries.list_runs(many, sort="id", descending=True)] == [4, 3, 2, 1]
    for sort in SORTS:
        for descending in (False, True):
            assert len(queries.list_runs(many, sort=sort, descending=descending)) == 4
    assert [run.id for run in queries.list_runs(many, limit=2)] == [3, 1]
    assert queries.counts(many)[RunState.QUEUED] == 2


@pytest.mark.parametrize(
    "text, matching, unknown",
    [
        ("eval<0.6", [1], []),
        ("eval>=0.6 step<50", [2], []),
        ("!eval<0.6", [2, 3], []),
        ("lr:1e-4", [], ["lr:1e-4"]),
        ("state:queued evil<4", [], ["evil<4"]),
        ("name:two", [2], []),
        ("half<", [], ["half<"]),
    ],
)
def test_a_filter_compares_figures_and_tells_which_words_it_does_not_have(tmp_path, text, matching, unknown):
    conn = writer(tmp_path / "runs.db")
    for name, best in (("one", 0.5), ("two", 0.7), ("three", None)):
        run_id = queue.add(conn, NewRun(name=name))
        conn.execute("UPDATE runs SET best_eval = ?, step = 10 WHERE id = ?", (best, run_id))
    assert [run.id for run in queries.list_runs(conn, text, sort="name")] == sorted(
        matching, key=lambda run_id: ["", "one", "two", "three"][run_id]
    )
    assert filters.unknown_words(text) == unknown
