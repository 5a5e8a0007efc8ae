"""Keys are done in the order in which they are typed, however fast: nobody waits for a slow line's picture. Only what
destroys waits to be seen, and pasted text is no keys."""

import pytest
from textual import events

from engine.base.workspace import Workspace
from tests.tui.conftest import NOW
from tests.tui.real_terminal import opened, screen
from tests.tui.screens.test_main_screen import Shown
from tests.tui.stage import played, until
from tui import app as app_module
from tui.app import FinetopApp
from tui.data.feed import Feed
from tui.screens.dialogs import Confirm
from tui.screens.main_screen import MainScreen
from tui.screens.welcome import Welcome
from tui.settings import Settings

FROZEN = {"FINETOP_NOW": str(NOW)}


def test_what_is_typed_before_the_first_picture_is_done_on_it(filled):
    with screen(filled, 120, 36, **FROZEN) as terminal:
        terminal.send("#9\rj")  # into a terminal that is still the shell's: enter comes as a line feed
        terminal.shows("Run 10  mistral-7b-dpo")
        assert "▌ ‖  10 mistral-7b-dpo" in terminal.text()


def test_keys_behind_the_enter_that_closes_a_line_are_meant_for_the_screen(filled):
    with opened(screen(filled, 120, 36, **FROZEN)) as terminal:
        terminal.send("#99\x7f\rj3]")  # what is typed, taken back and given; then a step down, and to the next tab
        terminal.shows("Run 10  mistral-7b-dpo")
        terminal.shows("‹Eval›")
        assert "▌ ‖  10 mistral-7b-dpo" in terminal.text()


def test_what_is_pasted_and_the_enter_behind_it_stay_in_order(filled):
    with opened(screen(filled, 120, 36, **FROZEN)) as terminal:
        terminal.send("#\x1b[200~10\x1b[201~\rk")
        terminal.shows("Run 9  gemma-9b-dolly-lora")


def test_coloured_output_pasted_into_the_list_is_no_keys(filled):
    with opened(screen(filled, 120, 36, **FROZEN)) as terminal:
        terminal.send("#9\r\x1b[200~ls -la \x1b[31mdd\x1b[0mdyq X y\r \x1b[201~")
        terminal.shows("never as keys")
        terminal.settled()
        assert "Delete" not in terminal.text() and "marked" not in terminal.text()
        terminal.send("j")
        terminal.shows("Run 10  mistral-7b-dpo")


def test_in_a_line_a_long_paste_or_many_letters_are_there_at_once(filled):
    with opened(screen(filled, 120, 36, **FROZEN)) as terminal:
        coloured = "".join(f"\x1b[3{n % 8}mw{n:04}\x1b[m " for n in range(2000))
        for sent in ("qd" * 1500, f"\x1b[200~{coloured}\x1b[201~"):
            terminal.send("/" + sent + "end\x1b[200~ of it\nall\x1b[201~")
            terminal.shows("end of it all")
            assert "\x1b[3" not in terminal.text() and "filter:" in terminal.text()
            terminal.send("\x1b")
            terminal.shows("/ filter")
            terminal.until(lambda: "filter:" not in terminal.text())


def test_a_form_is_filled_by_keys_that_were_typed_before_it_was_there(filled):
    with opened(screen(filled, 120, 36, **FROZEN)) as terminal:
        terminal.send("n\rnowhere.jsonl\rja")
        terminal.shows("nowhere.jsonl")
        terminal.shows("All settings")


def test_a_command_is_found_and_done_in_one_go(filled):
    with opened(screen(filled, 120, 36, **FROZEN)) as terminal:
        terminal.send(":next tab\r:keys\r")
        terminal.shows("change them in settings.toml")
        terminal.send("\x1b")
        terminal.shows("‹Eval›")


async def held(shown, keys):
    """Keys that come faster than anything is drawn."""
    for key in keys:
        shown.app._driver.send_message(events.Key(key, key).set_sender(shown.app))
    await shown.pilot.pause()


@pytest.mark.parametrize("keys", ["dy", "dddddddd", "dydydydy", "dyyyyyyy"])
@pytest.mark.parametrize("pane", ["1", "4"])
@played
async def test_no_key_typed_before_a_question_was_drawn_answers_it(filled, pane, keys):
    async with Shown(filled) as shown:
        await shown.go(3)
        await shown.press(pane)
        await held(shown, keys)
        await until(lambda: isinstance(shown.app.screen, Confirm) and shown.app.screen.drawn_at)
        await held(shown, "d" * 10)  # and a key that is held down goes on coming
        assert isinstance(shown.app.screen, Confirm)
        assert {call[0] for call in shown.control.calls} <= {"run_bytes"}
        await shown.answer("y")
        await until(lambda: {call[0] for call in shown.control.calls} & {"trash", "delete_checkpoint"})


@pytest.mark.parametrize("key", ["x", "q", "j", "space"])
@played
async def test_the_key_that_closes_the_welcome_does_nothing_else(filled, key):
    async with Shown(filled) as shown:
        shown.app.push_screen(Welcome())
        await until(lambda: isinstance(shown.app.screen, Welcome) and shown.app.screen.drawn_at)
        await shown.press(key)
        assert shown.app.is_running and isinstance(shown.app.screen, MainScreen)
        assert not shown.control.calls and not shown.main.runs.marks and shown.main.runs.run.id == 1


@played
async def test_where_no_picture_ever_comes_one_can_still_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(Feed, "start", lambda feed: None)  # as if the disk never answered
    monkeypatch.setattr(app_module, "PATIENCE_SECONDS", 0.3)
    app = FinetopApp(Workspace(tmp_path), Settings(theme="dark"))
    async with app.run_test() as pilot:
        await until(lambda: isinstance(app.screen, MainScreen))
        await pilot.press("q")
        await until(lambda: not app.is_running)
