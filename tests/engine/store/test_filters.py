"""Filters find the runs they name, and say which words they do not have; lists stand in any order."""

import pytest

from engine.store import filters, queries, queue, run_lifecycle
from engine.store.connect import writer
from engine.store.filters import SORTS
from engine.store.run_records import NewRun, RunState


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
