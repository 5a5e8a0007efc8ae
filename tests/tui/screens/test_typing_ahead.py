"""Keys are done in the order in which they are typed, however fast: nobody waits for a slow line's picture."""

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


def test_a_form_is_filled_by_keys_that_were_typed_before_it_was_there(filled):
    with opened(screen(filled, 120, 36, **FROZEN)) as terminal:
        terminal.send("n\rnowhere.jsonl\rja")
        terminal.shows("nowhere.jsonl")
        terminal.shows("All settings")


def test_a_command_is_found_and_done_in_one_go(filled):
    with opened(screen(filled, 120, 36, **FROZEN)) as terminal:
        terminal.send(":next tab\r:keys\r")
        terminal.shows("esc back · change them in settings.toml")
        terminal.send("\x1b")
        terminal.shows("‹Eval›")


@played
async def test_the_answer_may_be_typed_before_the_question_stands(filled):
    async with Shown(filled) as shown:
        await shown.go(3)
        for key in "dd":
            shown.app._driver.send_message(_key(shown.app, key))
        await shown.asked("trash", 3)
        assert not any(isinstance(screen, Confirm) for screen in shown.app.screen_stack)
        assert [call[0] for call in shown.control.calls].count("run_bytes") == 1


def _key(app, char):
    from textual import events

    return events.Key(char, char).set_sender(app)


@played
async def test_where_no_picture_ever_comes_one_can_still_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(Feed, "start", lambda feed: None)  # as if the disk never answered
    monkeypatch.setattr(app_module, "PATIENCE_SECONDS", 0.3)
    app = FinetopApp(Workspace(tmp_path), Settings(theme="dark"))
    async with app.run_test() as pilot:
        await until(lambda: isinstance(app.screen, MainScreen))
        await pilot.press("q")
        await until(lambda: not app.is_running)
