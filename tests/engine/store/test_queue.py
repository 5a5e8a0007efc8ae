"""What front ends do to runs: each change wins or says why it lost."""

import random

import pytest

from engine.store import journal_import, queries, queue, run_lifecycle
from engine.store.connect import reader
from engine.store.run_records import NewRun, RunState
from engine.store.store_errors import StoreError
from tests.engine.store import storekit


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
