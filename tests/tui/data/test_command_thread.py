"""The actor: what is asked is done in order, and the screen may close at any moment."""

import threading

from engine.base.workspace import Workspace
from tui.data.command_thread import CommandThread


class Kept:
    """Stands for the control: it keeps what it was asked, and whether it was closed."""

    warning = ""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


def test_what_is_asked_is_done_in_order_and_what_comes_after_the_end_is_let_go(tmp_path):
    kept = Kept()
    actor = CommandThread(Workspace(tmp_path), lambda message: None, make=lambda: kept)
    for word in ("one", "two", "three"):
        actor.do(word, lambda control, word=word: control.asked.append(word))
    actor.stop()
    actor.join(10)
    assert kept.asked == ["one", "two", "three"] and kept.closed.is_set()
    actor.do("late", lambda control: control.asked.append("late"))
    assert kept.asked == ["one", "two", "three"] and not actor.is_alive()


def test_a_screen_that_only_looks_changes_nothing_whatever_is_asked(tmp_path):
    posted = []
    actor = CommandThread(Workspace(tmp_path), posted.append, readonly=True)
    actor.do("stop", lambda control: control.stop(1))
    actor.stop()
    actor.join(10)
    assert "look only" in posted[0].error and posted[0].outcomes == [] and list(tmp_path.iterdir()) == []
