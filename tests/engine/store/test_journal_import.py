"""Journals into rows: every value once, whatever happens to the importer or the file."""

import json
import math
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.runs import journal
from engine.runs.journal import SampledAnswer
from engine.store import chart_queries, journal_import, queries, queue, run_lifecycle
from engine.store.connect import reader, writer
from engine.store.journal_import import import_journal
from engine.store.run_records import NewRun, RunState
from engine.store.store_errors import StoreFull
from tests.engine.store import storekit
from tests.engine.store.storekit import line, metric, write


@pytest.fixture
def conn(tmp_path):
    conn = writer(tmp_path / "runs.db")
    yield conn
    conn.close()


@pytest.fixture
def run_id(conn):
    run_id = queue.add(conn, NewRun(name="a"))
    run_lifecycle.claim(conn, run_id)
    return run_id


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "1"


HEADLINE = ("loss", "lr", "step_s", "tokens_per_s")


def points(conn, run_id, key="train/loss"):
    return [(point.step, point.value) for point in chart_queries.tail(conn, run_id, key, 1_000_000)]


def test_the_pace_of_a_run_is_that_of_its_usual_steps(conn, run_id, folder):
    """The first allocates, compiles and reads for the first time; one among many may wait for a disk."""
    write(
        folder, line("state", state="starting"), line("state", state="running", total_steps=100), metric(1, step_s=60.0)
    )
    import_journal(conn, run_id, folder)
    assert queries.run(conn, run_id).seconds_left is None
    write(folder, *(metric(step, step_s=9.0 if step == 5 else 0.5) for step in range(2, 11)))
    import_journal(conn, run_id, folder)
    assert queries.run(conn, run_id).step_seconds == 0.5
    assert queries.run(conn, run_id).seconds_left == 45.0


def test_every_kind_of_line_finds_its_table(conn, run_id, folder):
    write(
        folder,
        line("state", state="starting", versions={"torch": "2.13"}),
        line("state", state="running", step=0, total_steps=20),
        line("eval", 1005.0, step=0, values={"eval/loss": 2.5}, rows_sha256="9f2c"),
        metric(10, loss=1.5, lr=1e-4, step_s=0.5, tokens_per_s=900.0),
        line("eval", 1011.0, step=10, values={"eval/loss": 1.25}),
        line("sample", 1012.0, step=10, prompt="你好", text="[red]x\x1b[0m"),
        line("checkpoint", 1013.0, step=10, epoch=0.5, path="checkpoints/step-00000010", bytes=123,
             kept=["best", "latest"], eval={"eval/loss": 1.25}),
        line("event", 1014.0, step=10, event="oom", message="halved the forward pass"),
        line("checkpoint", 1020.0, step=20, epoch=1.0, path="checkpoints/step-00000020", bytes=125, kept=["latest"]),
        line("checkpoint-removed", 1021.0, step=10),
        line("beat", 1022.0, next=60),
        line("state", 1030.0, state="done", step=20, reason="all steps done", exit_code=0),
    )  # fmt: skip
    found = import_journal(conn, run_id, folder)
    assert (found.events, found.damaged, found.offset) == (12, 0, (folder / "journal.jsonl").stat().st_size)
    run = queries.run(conn, run_id)
    assert (run.state, run.step, run.total_steps, run.epoch, run.reason) == (
        RunState.DONE,
        20,
        20,
        1.0,
        "all steps done",
    )
    assert (run.train_loss, run.eval_loss, run.best_eval, run.best_eval_step) == (1.5, 1.25, 1.25, 10)
    assert (run.step_seconds, run.tokens_per_second, run.finished) == (0.5, 900.0, 1030.0)
    latest, best = queries.checkpoints(conn, run_id, removed=True)
    assert (latest.kept, latest.parent_run, latest.parent_step) == (("latest",), run_id, 10)
    assert (best.removed, best.kept, best.eval) == (1021.0, (), {"eval/loss": 1.25})
    assert [checkpoint.step for checkpoint in queries.checkpoints(conn, run_id)] == [20]
    assert [item.scores["eval/loss"] for item in queries.evaluations(conn, run_id)] == [2.5, 1.25]
    assert queries.evaluations(conn, run_id)[0].detail == {"rows_sha256": "9f2c"}
    assert queries.samples(conn, run_id) == (SampledAnswer(10, "你好", "[red]x\x1b[0m", None, False),)
    assert [(event.kind, event.message) for event in queries.events(conn, run_id)] == [
        ("state", "starting"), ("state", "running"), ("oom", "halved the forward pass"), ("state", "done"),
    ]  # fmt: skip
    assert set(queries.series(conn, run_id)) == {"eval/loss", *(f"train/{name}" for name in HEADLINE)}
    times = conn.execute("SELECT step, key, value, time FROM metrics WHERE run = ? ORDER BY key, step", (run_id,))
    assert (10, "train/loss", 1.5, 1010.0) in times.fetchall()


def test_importing_again_changes_nothing(conn, run_id, folder):
    write(folder, *(metric(step, loss=step / 7) for step in range(1, 200)))
    import_journal(conn, run_id, folder)
    before = list(conn.iterdump())
    again = import_journal(conn, run_id, folder)
    assert again.events == 0 and list(conn.iterdump()) == before


def test_a_run_without_a_journal_yet_is_no_error(conn, run_id, folder):
    assert import_journal(conn, run_id, folder).events == 0


def test_a_torn_last_line_waits_for_its_end(conn, run_id, folder):
    whole = metric(2, loss=0.5)
    write(folder, metric(1, loss=1.0), whole[:20])
    assert import_journal(conn, run_id, folder).points == 2
    write(folder, whole[20:])
    import_journal(conn, run_id, folder)
    assert points(conn, run_id) == [(1, 1.0), (2, 0.5)]


def test_a_line_torn_for_good_is_passed_over_and_said(conn, run_id, folder):
    write(folder, metric(1, loss=1.0), metric(2, loss=0.5)[:20], b"\n", metric(3, loss=0.25))
    assert import_journal(conn, run_id, folder).damaged == 1
    assert points(conn, run_id) == [(1, 1.0), (3, 0.25)]
    assert queries.events(conn, run_id)[-1].message == "1 lines of the journal could not be read"


def test_nonsense_in_a_line_never_stops_the_import(conn, run_id, folder):
    write(
        folder,
        b'{"t": 1, "kind": "metric", "step": "x", "values": {"a": 1}}\n',
        b'{"t": 1, "kind": "metric", "step": 1e400, "values": {"a": 1}}\n',
        b'{"t": 1, "kind": "metric", "step": 99999999999999999999, "values": {"a": 1}}\n',
        b'{"t": 1, "kind": "metric", "step": -4, "values": {"a": 1}}\n',
        b'{"t": null, "kind": "metric", "step": 1, "values": {"a": "high", "b": [1], "c": true}}\n',
        b'{"t": 1, "kind": "checkpoint", "step": 1, "kept": 7, "path": ["x"]}\n',
        b'{"t": 1, "kind": "event", "event": "\\ud800", "message": "half a pair \\uD83D"}\n',
        b'{"t": 1, "kind": "take"}\n',
        b'{"t": 1, "kind": "state", "state": {"a": 1}}\n',
        b'{"t": 1, "kind": "resume", "from_step": "last"}\n',
        b'{"t": 1, "kind": 5}\n[1, 2]\nnull\n\xff\xfe\n' + b"[" * 100_000 + b"\n",
        metric(2, loss=0.5),
    )
    import_journal(conn, run_id, folder)
    assert points(conn, run_id) == [(2, 0.5)]


def test_nan_and_infinity_are_kept_apart_from_numbers(conn, run_id, folder):
    write(
        folder,
        metric(1, loss=2.0),
        line("metric", step=2, values={"train/loss": None}, nonfinite={"train/loss": "nan"}),
        line("metric", step=3, values={"train/loss": None}, nonfinite={"train/loss": "-inf"}),
        metric(4, loss=1.0),
        line("metric", step=5, values={"train/loss": None}, nonfinite={"train/loss": "nan"}),
    )
    import_journal(conn, run_id, folder)
    summary = queries.series(conn, run_id)["train/loss"]
    assert (summary.count, summary.nonfinite, summary.low, summary.high) == (5, 3, 1.0, 2.0)
    assert (summary.last_step, summary.last) == (5, None)
    assert points(conn, run_id) == [(1, 2.0), (2, None), (3, -math.inf), (4, 1.0), (5, None)]


def test_a_resume_takes_back_what_lies_beyond_its_step_and_keeps_what_happened(conn, run_id, folder):
    def checkpoint(step):
        return line("checkpoint", step=step, path=f"checkpoints/step-{step:08}", kept=["latest"])

    write(
        folder,
        *(metric(step, loss=10.0 - step / 100) for step in range(1, 301)),
        checkpoint(100),
        checkpoint(200),
        line("eval", step=300, values={"eval/loss": 0.1}),
        line("event", step=300, event="oom"),
        line("state", step=300, state="failed", reason="out of memory"),
    )
    import_journal(conn, run_id, folder)
    assert queries.run(conn, run_id).best_eval == 0.1
    queue.resume(conn, run_id)
    run_lifecycle.claim(conn, run_id)
    write(folder, line("resume", from_step=100), metric(101, loss=20.0), metric(102, loss=3.0))
    import_journal(conn, run_id, folder)
    assert points(conn, run_id)[-3:] == [(100, 9.0), (101, 20.0), (102, 3.0)]
    summary = queries.series(conn, run_id)["train/loss"]
    assert (summary.count, summary.low, summary.low_step, summary.high, summary.high_step) == (102, 3.0, 102, 20.0, 101)
    assert "eval/loss" not in queries.series(conn, run_id) and queries.evaluations(conn, run_id) == ()
    run = queries.run(conn, run_id)
    assert (run.step, run.eval_loss, run.best_eval, run.train_loss) == (102, None, None, 3.0)
    assert [item.step for item in queries.checkpoints(conn, run_id)] == [100]
    assert [event.kind for event in queries.events(conn, run_id)] == ["state", "resume"]
    highs = [column.high for column in chart_queries.chart(conn, run_id, "train/loss", 4).columns]
    assert max(highs) == 20.0 and highs[-1] == 20.0


def test_a_shortened_or_replaced_journal_is_read_from_its_beginning(conn, run_id, folder):
    write(folder, *(metric(step, loss=1.0) for step in range(1, 100)))
    import_journal(conn, run_id, folder)
    file = folder / "journal.jsonl"
    file.write_bytes(metric(1, loss=3.0))
    assert import_journal(conn, run_id, folder).restarted
    assert points(conn, run_id) == [(1, 3.0)]
    file.write_bytes(b"".join(metric(step, t=5000.0, loss=4.0) for step in range(1, 300)))  # longer, and another one
    assert import_journal(conn, run_id, folder).restarted
    assert len(points(conn, run_id)) == 299 and queries.run(conn, run_id).train_loss == 4.0
    file.write_bytes(b"")
    assert import_journal(conn, run_id, folder).restarted and points(conn, run_id) == []


def test_a_journal_s_late_word_does_not_end_a_run_that_waits_again(conn, run_id, folder):
    write(folder, line("state", state="running"))
    import_journal(conn, run_id, folder)
    run_lifecycle.finish(conn, run_id, RunState.INTERRUPTED)
    queue.resume(conn, run_id)
    write(folder, line("state", state="stopped"))
    import_journal(conn, run_id, folder)
    assert queries.run(conn, run_id).state is RunState.QUEUED


def test_a_beat_says_when_the_next_is_due(conn, run_id, folder):
    write(folder, line("beat", 1000.0, next=90))
    import_journal(conn, run_id, folder)
    run = queries.run(conn, run_id)
    assert (run.beat, run.beat_due) == (1000.0, 1090.0)


def test_a_fork_s_checkpoints_lead_back_to_the_run_it_came_from(conn, run_id, folder, tmp_path):
    write(folder, line("checkpoint", step=40, path="checkpoints/step-00000040", kept=["latest"]))
    import_journal(conn, run_id, folder)
    fork = queue.add(conn, NewRun(parent_run=run_id, parent_step=40))
    there = write(
        tmp_path / "fork", line("checkpoint", step=10, path="p", kept=[]), line("checkpoint", step=20, path="q")
    )
    import_journal(conn, fork, there)
    parents = [(point.step, point.parent_run, point.parent_step) for point in queries.checkpoints(conn, fork)]
    assert parents == [(20, fork, 10), (10, run_id, 40)]


def test_a_full_disk_stops_the_import_with_nothing_half_written_and_it_goes_on_later(conn, run_id, folder):
    write(folder, *(metric(step, loss=1.0, lr=2.0) for step in range(1, 3001)))
    pages = conn.execute("PRAGMA page_count").fetchone()[0]
    conn.execute(f"PRAGMA max_page_count={pages + 5}")
    with pytest.raises(StoreFull):
        import_journal(conn, run_id, folder)
    assert points(conn, run_id) == [] and queries.run(conn, run_id).step == 0
    conn.execute("PRAGMA max_page_count=1000000")
    assert import_journal(conn, run_id, folder).events == 3000
    assert len(points(conn, run_id)) == 3000


# generated journals, in generated pieces

values = st.one_of(st.none(), st.floats(-100, 100, width=32))
steps = st.tuples(st.integers(-2, 60), values, st.booleans())  # logged twice, and out of order, too
pieces = st.lists(
    st.one_of(st.lists(steps, min_size=1, max_size=80), st.integers(0, 100)),  # some steps, or a resume at n %
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    conn = writer(tmp_path_factory.mktemp("store") / "runs.db")
    yield conn
    conn.close()


@settings(max_examples=60, deadline=None)
@given(pieces, st.randoms(use_true_random=False))
def test_any_journal_in_any_pieces_gives_the_series_that_its_effective_events_say(
    shared, tmp_path_factory, parts, dice
):
    folder = tmp_path_factory.mktemp("run")
    data, step = b"", 0
    for part in parts:
        if isinstance(part, int):
            step = step * part // 100
            data += line("resume", from_step=step)
            continue
        for stride, value, evaluated in part:
            step = max(step + stride, 0)
            data += metric(step, loss=value)
            if evaluated:
                data += line("eval", step=step, values={"eval/loss": value})
    run_id = queue.add(shared, NewRun())
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(4))
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        write(folder, data[start:end])
        import_journal(shared, run_id, folder)

    events, _ = journal.read(folder)
    for key in ("train/loss", "eval/loss"):
        logged = {}
        for event in journal.effective(events):
            if event["kind"] in ("metric", "eval") and key in event["values"]:
                logged[event["step"]] = event["values"][key]
        assert points(shared, run_id, key) == sorted(logged.items())
        summary = queries.series(shared, run_id).get(key)
        if not logged:
            assert summary is None
            continue
        finite = {step: value for step, value in logged.items() if value is not None}
        assert (summary.count, summary.nonfinite) == (len(logged), len(logged) - len(finite))
        assert (summary.first_step, summary.last_step) == (min(logged), max(logged))
        assert summary.last == logged[max(logged)]
        if finite:
            assert (summary.low, summary.high) == (min(finite.values()), max(finite.values()))
            assert summary.low_step == min(step for step, value in finite.items() if value == summary.low)
            assert summary.high_step == min(step for step, value in finite.items() if value == summary.high)
        for columns in (1, 7, 40):
            chart = chart_queries.chart(shared, run_id, key, columns)
            assert sum(column.count for column in chart.columns) == len(logged)
            assert sum(column.nonfinite for column in chart.columns) == len(logged) - len(finite)
            lows = [column.low for column in chart.columns if column.low is not None]
            assert (min(lows) if lows else None) == (min(finite.values()) if finite else None)


# processes


IMPORT = """
import sys
from pathlib import Path
from engine.store.connect import writer
from engine.store.journal_import import import_journal
import engine.store.journal_import as ingest
ingest.CHUNK_BYTES = 1 << 16
conn = writer(Path(sys.argv[1]))
import_journal(conn, 1, Path(sys.argv[2]))
"""


def test_killing_the_importer_anywhere_loses_and_doubles_nothing(tmp_path, conn, run_id, folder):
    count = 12_000
    write(folder, *(metric(step, loss=step / 3, lr=1.0 / step) for step in range(1, count + 1)))
    data = (folder / "journal.jsonl").read_bytes()
    watch = reader(tmp_path / "runs.db")
    dice = random.Random(3)
    kills = 0

    def offset():
        return watch.execute("SELECT journal_offset FROM runs").fetchone()[0]

    for _ in range(4):
        before = offset()
        victim = storekit.process(IMPORT, tmp_path / "runs.db", folder)
        storekit.until(lambda before=before, victim=victim: offset() > before or victim.poll() is not None)
        time.sleep(dice.random() * 0.03)
        kills += victim.poll() is None
        victim.kill()
        victim.communicate()
        lines = data[: offset()].count(b"\n")
        assert offset() == 0 or data[offset() - 1 : offset()] == b"\n"
        assert watch.execute("SELECT count(*) FROM metrics WHERE run = 1").fetchone()[0] == 2 * lines
        assert queries.series(watch, 1)["train/loss"].count == lines
    assert kills >= 2
    storekit.outputs([storekit.process(IMPORT, tmp_path / "runs.db", folder) for _ in range(2)])
    assert points(watch, 1) == [(step, step / 3) for step in range(1, count + 1)]
    assert watch.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    chart = chart_queries.chart(watch, 1, "train/loss", 10)
    assert sum(column.count for column in chart.columns) == count


def test_readers_see_whole_commits_while_an_importer_writes(tmp_path, conn, run_id, folder):
    write(folder, *(metric(step, loss=float(step)) for step in range(1, 12_001)))
    watch = reader(tmp_path / "runs.db")
    importer = storekit.process(IMPORT, tmp_path / "runs.db", folder)
    looks = set()
    while importer.poll() is None or not looks:
        watch.execute("BEGIN")
        run = queries.run(watch, 1)
        summary = queries.series(watch, 1).get("train/loss")
        if summary:
            looks.add(run.step)
            tail = chart_queries.tail(watch, 1, "train/loss", 3)
            chart = chart_queries.chart(watch, 1, "train/loss", 50)
            assert run.step == summary.last_step == summary.count == tail[-1].step
            assert run.train_loss == summary.last == tail[-1].value
            assert sum(column.count for column in chart.columns) == summary.count
        watch.execute("COMMIT")
    storekit.outputs([importer])
    assert len(looks) > 2, "the reader never saw it half done"


def test_the_journal_class_and_the_importer_understand_each_other(conn, run_id, folder):
    folder.mkdir(parents=True)
    log = journal.Journal(folder)
    log.write("state", state="running")
    log.metric(1, {"train/loss": 1.5, "train/grad_norm": float("inf")})
    log.write("eval", step=1, values={"eval/loss": 2.5})
    log.close()
    found = import_journal(conn, run_id, folder)
    assert (found.events, found.damaged) == (3, 0)
    assert points(conn, run_id, "train/grad_norm") == [(1, math.inf)]
    assert abs(queries.run(conn, run_id).beat - time.time()) < 60
    assert json.loads((folder / "journal.jsonl").read_text().splitlines()[0])["kind"] == "state"
    assert journal_import.JOURNAL == journal.NAME


def test_a_first_start_damages_nothing_and_a_start_from_the_beginning_takes_all_back(conn, run_id, folder):
    write(folder, line("resume", from_step=-1), line("eval", step=0, values={"eval/loss": 2.0}), metric(1, loss=1.0))
    assert import_journal(conn, run_id, folder).damaged == 0
    assert [event.message for event in queries.events(conn, run_id)] == ["starts from the beginning"]
    write(folder, line("resume", from_step=-1))
    import_journal(conn, run_id, folder)
    assert queries.series(conn, run_id) == {} and queries.evaluations(conn, run_id) == ()


def test_what_a_worker_does_instead_of_steps_is_known_until_it_steps_again(conn, run_id, folder):
    def phase() -> str | None:
        import_journal(conn, run_id, folder)
        return queries.run(conn, run_id).phase

    write(folder, line("state", 1.0, state="starting"))
    assert phase() == "loading"
    write(folder, line("state", 2.0, state="running", step=0), line("beat", 2.0, next=90, doing="evaluating"))
    assert phase() == "evaluating"
    write(folder, line("metric", 3.0, step=1, values={"train/loss": 1.0}), line("beat", 3.0, next=9, doing="training"))
    assert phase() is None
    write(folder, line("beat", 4.0, next=60, doing="saving"))
    assert phase() == "saving"
    run_lifecycle.finish(conn, run_id, RunState.FAILED, "killed")
    assert phase() is None, "its process ended while it saved"
    queue.resume(conn, run_id)
    queue.set_waiting(conn, {run_id: ("gpu", "1 GPU")})
    write(folder, line("beat", 5.0, next=60, doing="saving"))
    assert phase() is None and queries.run(conn, run_id).wait_reason == "1 GPU", "a waiting run has no worker"


def test_since_which_step_the_loss_is_no_number_is_known_of_every_run(conn, run_id, folder):
    """While it goes on, when it ends, and no longer when a number comes again."""

    def nan(step: int, word: str = "nan") -> bytes:
        return line("metric", step=step, values={"train/loss": None}, nonfinite={"train/loss": word})

    def since() -> int | None:
        journal_import.import_journal(conn, run_id, folder)
        (listed,) = queries.list_runs(conn)
        assert listed == queries.run(conn, run_id)
        return listed.nan_since

    write(folder, metric(1, loss=2.0), nan(2), metric(3, loss=1.0))
    assert since() is None
    write(folder, nan(4), nan(5, "inf"), nan(6))
    assert since() == 4
    write(folder, line("state", state="done", step=7), nan(7))
    assert since() == 4
    write(folder, metric(8, loss=1.0))
    assert since() is None
