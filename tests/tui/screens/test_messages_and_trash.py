"""What was said can be read again, whole; what was deleted can be taken back, also in a later session."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from engine.base.workspace import Workspace
from engine.control import Control
from engine.store import queries, queue, run_lifecycle
from engine.store.connect import reader
from engine.store.run_records import RunState
from tests.tui.fill import Filler, fill
from tests.tui.screens.test_main_screen import Shown
from tests.tui.stage import played, until
from tui.data import message_log
from tui.data.message_log import MessageLog
from tui.screens.dialogs import Confirm
from tui.screens.message_screen import MessageScreen
from tui.screens.trash_screen import TrashScreen

LONG = "runs.db is damaged or no database. Move it away and run `finetop rebuild`: " + "the run folders hold it. " * 8


class Really(Shown):
    """With what really carries changes out."""

    def __init__(self, root: Path, **more: Any) -> None:
        super().__init__(root, **more)
        self.app.commands._make = self.app.commands._control
        self.app._keep_up_commands._make = self.app._keep_up_commands._control


@pytest.fixture(autouse=True)
def no_daemon(monkeypatch):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")


@pytest.fixture
def own(tmp_path):
    """A filled workspace that may be changed."""
    root = tmp_path / "own"
    root.mkdir()
    fill(root).close()
    return root


def test_an_answer_stays_a_second_and_an_event_until_it_has_been_seen():
    clock = [1000.0]
    log = MessageLog(lambda: clock[0], lambda: clock[0])
    log.show("stop: run 3 has already finished", "warning")
    clock[0] += 0.5
    assert not log.key_pressed() and log.status.text
    clock[0] += 1
    assert log.key_pressed() and not log.status.text
    log.show("✔ 8 finished", "done", at=clock[0])
    clock[0] += 30
    assert not log.key_pressed()
    clock[0] += 3600  # nobody was there
    assert log.status.text and log.key_pressed() and not log.status.text
    assert [message.text for message in log.messages] == ["stop: run 3 has already finished", "✔ 8 finished"]


def test_a_line_that_is_no_longer_so_goes_without_a_key():
    clock = [1000.0]
    log = MessageLog(lambda: clock[0], lambda: clock[0])
    log.show("queued run 3")
    clock[0] += 200
    assert not log.grown_old()
    clock[0] += 200
    assert log.grown_old() and not log.status.text
    log.show("✖ 4 failed", "failed", at=clock[0], run_id=4)
    clock[0] += 3600
    assert not log.grown_old() and not log.run_went_on(5) and not log.run_went_on(None)
    assert log.run_went_on(4) and not log.status.text


@played
async def test_an_event_goes_when_its_run_is_queued_again_or_deleted_elsewhere(own):
    async with Shown(own) as shown:
        waiting = next(run.id for run in shown.app.snapshot.runs if run.state is RunState.QUEUED)
        done = next(run.id for run in shown.app.snapshot.runs if run.state is RunState.DONE)
        shown.app.messages.show("failed", "failed", at=1.0, run_id=waiting)
        shown.app.feed.refresh()
        await until(lambda: not shown.app.status_text.text)
        shown.app.messages.show("finished", "done", at=1.0, run_id=done)
        with Control(Workspace(own)) as control:
            assert control.trash(done)
        await until(lambda: not shown.app.status_text.text)


@played
async def test_what_has_no_room_names_the_key_that_shows_it_whole(filled):
    async with Shown(filled, size=(80, 24)) as shown:
        shown.app.say(LONG, "failed")
        await shown.pilot.pause()
        assert shown.main.status_line.shown_text()[0].rstrip().endswith("… · M whole")
        await shown.press("M")
        assert isinstance(shown.app.screen, MessageScreen)
        text = " ".join(line.strip("│┃ ") for line in shown.app.screen.pane.shown_text())
        assert " ".join(LONG.split()) in " ".join(text.split())
        await shown.press("M")
        assert not isinstance(shown.app.screen, MessageScreen)


@played
async def test_a_refusal_goes_with_the_next_key_once_it_could_be_read(filled, monkeypatch):
    monkeypatch.setattr(message_log, "READ_SECONDS", 0.0)
    async with Shown(filled) as shown:
        await shown.go(3)
        await shown.press("x")
        assert "already finished" in shown.news
        await shown.press("j")
        assert shown.news == ""
        assert "already finished" in shown.app.messages.messages[-1].text


@played
async def test_everything_that_is_wrong_in_the_settings_is_in_the_log(filled):
    keys = {"main.nonsense": ("z",), "main.more": ("y",)}
    async with Shown(filled, keys=keys, problems=("mouse: no",)) as shown:
        assert "(and 2 more)" in shown.news
        text = "\n".join(message.text for message in shown.app.messages.messages)
        assert all(word in text for word in ("mouse: no", "main.nonsense", "main.more"))


@played
async def test_who_comes_back_is_told_what_ended_since_the_screen_was_left(own, monkeypatch):
    monkeypatch.setattr("tui.app.VISIT_SECONDS", 0.0)
    before = time.time()
    async with Really(own) as shown:
        await shown.pilot.pause()
    left = float(queries.get_meta(reader(shown.app.workspace.database), f"seen:{_user()}"))
    assert before < left <= time.time()
    filler = Filler(own, now=time.time() + 1)
    ended = [filler.add(f"while-away-{number}") for number in range(6)]
    for run_id in ended:
        filler.train(run_id, 3)
        run_lifecycle.finish(filler.conn, run_id, RunState.FAILED, reason="out of memory")
    async with Really(own) as shown:
        await until(lambda: "since you last looked" in shown.news)
        assert f"{ended[0]}, {ended[1]}, {ended[2]} and 3 more" in shown.news
        whole = next(m.text for m in shown.app.messages.messages if m.text.startswith("since you"))
        for number, run_id in enumerate(ended):
            assert f"✖ {run_id} while-away-{number} failed: out of memory" in whole


def _user() -> str:
    from tui.data.current_user import current_user

    return current_user()


@played
async def test_a_checkpoint_that_was_deleted_comes_back_by_undo_and_from_the_list(own):
    async with Really(own) as shown:
        await shown.go(3)
        await shown.press("4")
        step = shown.main.checkpoints.checkpoint.step
        folder = shown.app.workspace.runs / f"3/checkpoints/step-{step:08d}"
        await _delete(shown)
        await until(lambda: not folder.exists() and shown.app.undoes)
        assert "in the trash" in shown.news
        await shown.press("u")
        await until(folder.exists)
        await _delete(shown)
        await until(lambda: not folder.exists() and shown.app.snapshot.trash)
    async with Really(own) as shown:  # another session
        await until(lambda: shown.app.snapshot.trash)
        await shown.press("U")
        pane = shown.app.screen.pane
        await until(lambda: pane.sizes)
        assert f"3@{step}" in "\n".join(pane.shown_text())
        await shown.press("enter")
        await until(folder.exists)
        await until(lambda: "The trash is empty" in "\n".join(pane.shown_text()))


@played
async def test_undo_reaches_into_the_trash_of_an_earlier_session(own):
    async with Really(own) as shown:
        await shown.go(3)
        await _delete(shown)
        await until(lambda: shown.app.snapshot.run(3) is None)
    async with Really(own) as shown:
        await until(lambda: shown.app.snapshot.trash)
        await shown.press("u")
        await until(lambda: shown.app.snapshot.run(3) is not None)
        await until(lambda: shown.main.runs.run.id == 3)


@played
async def test_what_is_deleted_for_good_is_asked_for_first(own):
    async with Really(own) as shown:
        await shown.go(3)
        await _delete(shown)
        await until(lambda: shown.app.snapshot.trash)
        await shown.press("U")
        assert isinstance(shown.app.screen, TrashScreen)
        await shown.press("d")
        assert isinstance(shown.app.screen, Confirm) and "nothing can bring it back" in shown.app.screen.lost[0]
        await shown.press("n")
        assert os.listdir(shown.app.workspace.trash) == ["3"]
        await _delete(shown, "D")
        await until(lambda: os.listdir(shown.app.workspace.trash) == [])
        await until(lambda: not shown.app.snapshot.trash)


async def _delete(shown: Shown, key: str = "d") -> None:
    """Press the key, wait for the question to be drawn, and answer yes."""
    await shown.press(key)
    await until(lambda: isinstance(shown.app.screen, Confirm))
    await shown.pilot.pause()
    await shown.press(getattr(shown.app.screen, "confirm_key", "y"))


@played
async def test_taking_off_the_queue_is_undone_to_its_place_and_still_held(tmp_path):
    filler = Filler(tmp_path)
    first, held, last = filler.add("first"), filler.add("held", held=True), filler.add("last")
    async with Really(tmp_path) as shown:
        await shown.go(held)
        await shown.press("x")
        await until(lambda: shown.app.snapshot.run(held).state is RunState.STOPPED)
        await until(lambda: "u puts it back" in shown.news)
        await shown.press("u")
        await until(lambda: shown.app.snapshot.run(held).state is RunState.QUEUED)
        waiting = queries.queue(reader(shown.app.workspace.database))
        assert [(run.id, run.held) for run in waiting] == [(first, False), (held, True), (last, False)]


def test_a_held_run_that_is_taken_off_and_queued_again_is_still_held(tmp_path):
    filler = Filler(tmp_path)
    run_id = filler.add("held", held=True)
    assert queue.request(filler.conn, run_id, "stop") and queue.resume(filler.conn, run_id)
    assert queries.run(filler.conn, run_id).held


@played
async def test_the_cursor_goes_to_what_was_queued_once_it_is_there(own):
    async with Shown(own) as shown:
        new = Filler(own).add("the new one")
        shown.app.go_to_run(new)
        await until(lambda: shown.main.runs.run.id == new)
