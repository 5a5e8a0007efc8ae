"""The feed: what it posts, that it never stops, and that nobody waits for it."""

import json
import os
import threading
import time

import pytest
from textual.message import Message

from engine.base.workspace import Workspace
from engine.store import queries
from engine.store.run_records import RunState
from tests.tui.fill import Filler, settings
from tests.tui.fill import machine as fill_machine
from tui.data.feed import PRUNED_SECONDS, Answer, Feed, Updated
from tui.data.snapshot import Snapshot, View


class Watched:
    """A feed whose messages are kept."""

    def __init__(self, root, view: View | None = None) -> None:
        self.messages: list[Message] = []
        self.feed = Feed(Workspace(root), self.messages.append, view)

    def __enter__(self) -> "Watched":
        self.feed.start()
        return self

    def __exit__(self, *exception) -> None:
        self.feed.stop()
        self.feed.join(10)
        assert not self.feed.is_alive()

    @property
    def last(self) -> Snapshot:
        return next((m.snapshot for m in reversed(self.messages) if isinstance(m, Updated)), Snapshot(0.0))

    def answer(self, key: str) -> Answer | None:
        return next((m for m in reversed(self.messages) if isinstance(m, Answer) and m.key == key), None)

    def until(self, condition, limit: float = 10.0):
        deadline = time.monotonic() + limit
        while not (found := condition()):
            assert time.monotonic() < deadline, "the condition never came true"
            time.sleep(0.005)
        return found


def test_what_is_committed_is_on_the_way_within_a_second(tmp_path):
    filler = Filler(tmp_path)
    run_id = filler.add("one")
    filler.train(run_id, 5)
    with Watched(tmp_path) as watched:
        watched.until(lambda: watched.last.runs)
        filler.journal(run_id, {"kind": "metric", "step": 6, "values": {"train/loss": 0.25}})
        watched.until(lambda: watched.last.runs[0].train_loss == 0.25, limit=5)
        other = filler.add("two")
        watched.until(lambda: {run.id for run in watched.last.runs} == {run_id, other})
        assert watched.last.counts["queued"] == 1
    filler.close()


def test_the_view_is_answered_at_once_with_the_runs_asked_for(filled):
    with Watched(filled) as watched:
        watched.until(lambda: watched.last.runs)
        watched.feed.set_view(View("state:failed", focus=4))
        watched.until(lambda: watched.last.view.matching)
        assert [run.id for run in watched.last.runs] == [4]
        assert watched.last.detail.run_id == 4 and "OutOfMemory" in watched.last.detail.error
        assert watched.last.total == 11, "counts are of all runs"


def test_a_filter_hides_no_failures_from_the_counts(filled):
    with Watched(filled, View("state:done")) as watched:
        watched.until(lambda: watched.last.runs)
        assert all(run.state == "done" for run in watched.last.runs)
        watched.feed.set_view(View())
        watched.until(lambda: len(watched.last.runs) == 11)
        everything = watched.last.failed_today
        watched.feed.set_view(View("state:done"))
        watched.until(lambda: len(watched.last.runs) < 11)
        assert watched.last.failed_today == everything


def test_a_checkpoint_shows_the_evaluation_made_at_its_step(tmp_path):
    filler = Filler(tmp_path)
    run_id = filler.add("one")
    filler.train(run_id, 5)
    filler.journal(
        run_id,
        {"kind": "checkpoint", "step": 6, "path": "checkpoints/step-00000006", "bytes": 10, "kept": ["latest"]},
        {"kind": "eval", "step": 6, "values": {"eval/loss": 0.75}},
    )
    with Watched(tmp_path) as watched:
        watched.until(lambda: watched.last.detail and watched.last.detail.checkpoints)
        assert {point.step: point.eval.get("eval/loss") for point in watched.last.detail.checkpoints}[6] == 0.75
    filler.close()


def test_failures_of_today_and_the_best_run_are_those_of_all_runs_whatever_is_filtered(tmp_path):
    filler = Filler(tmp_path)
    good, fair, lost = filler.add("good"), filler.add("fair"), filler.add("lost")
    for run_id, end in ((good, 0.5), (fair, 0.9), (lost, 2.0)):
        filler.train(run_id, 200, end=end)
    filler.finish(good, RunState.DONE, ago=20)
    filler.finish(lost, RunState.FAILED, "out of memory", ago=0)
    filler.journal(fair, {"kind": "state", "state": "done", "step": 200})
    with Watched(tmp_path, View("fair", focus=fair)) as watched:
        seen = watched.until(lambda: watched.last if watched.last.runs else None)
    assert [run.id for run in seen.runs] == [fair]
    assert seen.failed_today == 1
    assert seen.detail.rival.id == good
    assert (seen.last_news.run.id, seen.last_news.rank, seen.last_news.scored) == (fair, 2, 3)
    filler.close()


def test_only_runs_that_learned_the_same_are_compared(tmp_path):
    filler = Filler(tmp_path)
    values, _ = settings()
    moved = {**values, "data.files": ["/elsewhere/sql-v3.jsonl"]}
    wishes = {**values, "method.objective": "dpo"}
    mine, fair = filler.add("mine"), filler.add("fair")
    best, copy = filler.add("best", data="dolly.jsonl"), filler.add("copy", settings=moved)
    liking = filler.add("liking", settings=wishes)
    for run_id, end in ((mine, 0.9), (fair, 1.2), (best, 0.1), (copy, 0.1), (liking, 0.1)):
        filler.train(run_id, 200, end=end)
    for run_id, other, standing in ((mine, fair, (1, 2)), (fair, mine, (2, 2)), (best, None, (1, 1))):
        run = queries.run(filler.conn, run_id)
        rival = queries.rival(filler.conn, run)
        assert (rival.id if rival else None) == other
        assert queries.standing(filler.conn, run) == standing
    filler.close()


def test_a_checkpoint_just_pruned_is_not_called_lost_before_the_worker_can_have_said_so(tmp_path):
    filler = Filler(tmp_path)
    live, ended = filler.add("live"), filler.add("ended")
    for run_id in (live, ended):
        filler.train(run_id, 400)
        (filler.folder(run_id) / "checkpoints/step-00000200").rmdir()
    filler.finish(ended, RunState.DONE)
    with Watched(tmp_path, View(focus=live)) as watched:
        watched.until(lambda: watched.last.detail and watched.last.detail.run_id == live)
        assert watched.last.detail.present == {200, 400}
        watched.feed._lost[live][200] -= PRUNED_SECONDS
        filler.journal(live, {"kind": "metric", "step": 401, "values": {"train/loss": 1.0}})
        watched.until(lambda: watched.last.detail.present == {400})
        watched.feed.set_view(View(focus=ended))
        watched.until(lambda: watched.last.detail.run_id == ended)
        assert watched.last.detail.present == {400}
    filler.close()


def test_a_workspace_without_a_store_is_no_fault_and_is_noticed_when_it_comes(tmp_path):
    with Watched(tmp_path) as watched:
        watched.until(lambda: watched.last.store.missing)
        filler = Filler(tmp_path)
        filler.add("first")
        watched.until(lambda: watched.last.runs)
        assert not watched.last.store.missing
    filler.close()


def test_a_store_that_cannot_be_read_is_told_and_the_last_runs_stay(filled, tmp_path):
    path = tmp_path / "runs.db"
    path.write_bytes((filled / "runs.db").read_bytes())
    with Watched(tmp_path) as watched:
        watched.until(lambda: watched.last.runs)
        os.replace(path, tmp_path / "away")
        path.write_bytes(b"no database at all" * 100)
        watched.feed._close()  # as if the connection had been lost
        watched.feed.refresh()
        watched.until(lambda: watched.last.store.problem)
        assert len(watched.last.runs) == 11 and watched.last.store.hint
        os.replace(tmp_path / "away", path)
        watched.until(lambda: not watched.last.store.problem)


def test_the_newest_question_under_a_key_wins_and_a_broken_one_harms_nobody(filled):
    with Watched(filled) as watched:
        gate = threading.Event()
        watched.feed.query("slow", lambda conn: gate.wait(10))
        for number in range(5):
            watched.feed.query("run", lambda conn, number=number: (number, queries.run(conn, 1).name))
        gate.set()
        watched.until(lambda: watched.answer("run"))
        assert watched.answer("run").value[0] == 4
        watched.feed.query("broken", lambda conn: 1 / 0)
        assert "ZeroDivisionError" in watched.until(lambda: watched.answer("broken")).error
        watched.feed.refresh()
        amount = len(watched.messages)
        watched.until(lambda: len(watched.messages) > amount)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"t": "x"}', '{"t": 9999999999, "gpus": [{"index": 1}]}', '{"t": 1}']
)
def test_figures_of_the_machine_that_make_no_sense_are_none(tmp_path, content):
    workspace = Workspace(tmp_path)
    workspace.private.mkdir()
    workspace.machine_state.write_text(content)
    with Watched(tmp_path) as watched:
        watched.until(lambda: watched.last.taken)
        assert watched.last.machine is None


def test_the_machines_figures_rest_while_no_run_is_at_work(tmp_path, monkeypatch):
    monkeypatch.setattr("tui.data.feed.IDLE_SECONDS", 0.05)
    monkeypatch.setattr("tui.data.feed.POLL_SECONDS", 0.02)
    filler = Filler(tmp_path)
    run_id = filler.add("one")
    filler.daemon()
    machine = json.loads(json.dumps(fill_machine(time.time(), gpus=1)))

    def loads(posted) -> list[float]:
        return [m.snapshot.machine.host.load_1min for m in posted if isinstance(m, Updated) and m.snapshot.machine]

    def measure(posted, seconds: float) -> set[float]:
        """The values that came while the daemon measured another one twenty times a second."""
        del posted[:]
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            number += 1
            host = machine["host"] | {"load_1min": float(number)}
            content = machine | {"t": time.time(), "host": host, "runs": {}}
            Workspace(tmp_path).machine_state.write_text(json.dumps(content))
            time.sleep(0.05)
        return set(loads(posted))

    with Watched(tmp_path) as watched:
        watched.until(lambda: watched.last.runs)
        assert len(measure(watched.messages, 0.7)) <= 2
        filler.train(run_id, 1)
        watched.until(lambda: watched.last.runs[0].active)
        assert len(measure(watched.messages, 0.7)) > 3
    filler.close()


def test_files_are_read_while_the_database_is_damaged(tmp_path):
    """A log says why a run failed: it must not need the database."""
    Workspace(tmp_path).database.write_bytes(b"no database at all" * 100)
    with Watched(tmp_path) as watched:
        watched.feed.read("log", lambda: "the log")
        watched.feed.query("runs", lambda conn: "the runs")
        log = watched.until(lambda: watched.answer("log"))
        runs = watched.until(lambda: watched.answer("runs"))
    assert (log.value, log.error) == ("the log", "")
    assert runs.value is None and "is damaged or no database" in runs.error
