"""The screen under random keys, pastes, clicks, sizes and times holds to what may be true (`tests.tui.random_walk`)."""

import pytest

from tests.tui.random_walk import SIZES, Fault, fault_of, shortest, steps
from tui.render import failure_panel
from tui.screens.dialogs import Confirm
from tui.screens.key_screen import KeyScreen
from tui.terminal.input_reader import InputReader
from tui.widgets.run_pane import WHY, RunPane

HERE = 400
"""Steps for each of five sizes."""


def explained(fault: Fault | None) -> str:
    return "" if fault is None else "\n".join([str(fault), *fault.__notes__])


@pytest.mark.parametrize("size", SIZES)
def test_a_walk_ends_in_no_fault(filled, size):
    fault = fault_of(filled, steps(SIZES.index(size), HERE), size)
    assert fault is None, explained(fault)


@pytest.mark.long
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(2))
def test_a_long_walk_ends_in_no_fault(filled, size, seed):
    """20,000 steps."""
    fault = fault_of(filled, steps(1000 + seed * 10 + SIZES.index(size), 2000), size)
    assert fault is None, explained(fault)


def answer_with_any_key(monkeypatch):
    """A question is answered by the key that asks it, whenever that was typed."""
    key = Confirm.key

    def answered(confirm, event):
        if event.character in ("d", "X"):
            confirm.app.pop_screen()
            confirm.done()
            return True
        return key(confirm, event)

    monkeypatch.setattr(Confirm, "key", answered)


def play_pastes(monkeypatch):
    """What is pasted is read as keys."""

    def keys(reader, chunk, now):
        marks = chunk.replace("\x1b[200~", "").replace("\x1b[201~", "")
        yield from reader._messages(reader._parser.feed(marks), now)

    monkeypatch.setattr(InputReader, "feed", keys)


def lose_the_focus(monkeypatch):
    """What a layout hides loses the focus, and does not get it back."""
    monkeypatch.setattr(KeyScreen, "settle_focus", lambda screen: None)


def wrap_at_no_width(monkeypatch):
    """Why a run failed is wrapped before the pane was laid out, for fewer cells than none, which never ends."""
    wrap, ask = failure_panel.wrap, RunPane.ask

    def endless(text, width, *more):
        while width < 1:
            pass
        return wrap(text, width, *more)

    def asked(pane):
        ask(pane)
        if pane.tab == WHY:
            pane._draw_failure(pane.outer_size.width - 2)

    monkeypatch.setattr(failure_panel, "wrap", endless)
    monkeypatch.setattr(RunPane, "ask", asked)


@pytest.mark.parametrize(
    ("broken", "seed", "size", "told"),
    [
        (answer_with_any_key, 4, (120, 36), "not confirmed"),
        (play_pastes, 1, (120, 36), "pasted text was played"),
        (lose_the_focus, 1, (120, 36), "has the focus"),
        (wrap_at_no_width, 2, (60, 16), "frozen"),
    ],
)
def test_what_was_broken_once_is_found_and_made_short(filled, monkeypatch, broken, seed, size, told):
    monkeypatch.setattr("tests.tui.random_walk.FROZEN_SECONDS", 2.0)
    walked = [("keys", "G"), *steps(seed, 100)]  # to a run that was interrupted
    with monkeypatch.context() as patch:
        broken(patch)
        fault = fault_of(filled, walked, size)
        assert fault is not None and told in str(fault), explained(fault)
        few = shortest(filled, walked[: fault.index + 1], size, str(fault)[:12], tries=8)
        assert len(few) <= fault.index + 1
    fault = fault_of(filled, few, size)
    assert fault is None, explained(fault)
