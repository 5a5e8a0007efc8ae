"""The main screen by its keys: what is asked of the control, what is refused and why, what is drawn after it."""

import asyncio
import fcntl
from pathlib import Path
from typing import Any

import pytest
from textual import events

from engine.base.workspace import Workspace
from engine.present.text import cells
from engine.runs.journal import Journal
from engine.settings.schema import RunConfig
from engine.store.run_records import Outcome, RunState
from tests.tui.fill import HOSTILE, Filler
from tests.tui.stage import played, press, until
from tui.app import FinetopApp
from tui.keymap import ACTIONS, BY_ID, Keymap, is_key
from tui.screens.choice import Choose
from tui.screens.command_palette import CommandPalette
from tui.screens.dialogs import Confirm, Notice
from tui.screens.help_screen import Help
from tui.screens.main_screen import MainScreen
from tui.screens.new_run_screen import NewRunScreen
from tui.settings import Settings

KEY_NAMES = {"/": "slash", "?": "question_mark", ":": "colon", "[": "left_square_bracket", "]": "right_square_bracket"}
HERE = ("list", "main", "any", "runs", "chart", "log", "checkpoints")
"""Places of the main screen; the others are pressed where they are."""
KEY_NAMES |= {"!": "exclamation_mark", "+": "plus", "_": "underscore", "#": "number_sign"}


class Recorder:
    """Takes down what it is asked and says that it was done, unless told to refuse."""

    warning = ""

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.refuse = ""
        self.notes: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        def call(*values: Any, **named: Any) -> Any:
            if name not in ("seen", "close", "keep_up"):
                self.calls.append((name, *values, *named.values()))
            if name == "run_bytes":
                return 1_400_000_000
            if name == "add":
                return 12
            if name == "start_daemon":
                return True
            if name == "choose_best":
                return "Best goes by accuracy."
            return Outcome(not self.refuse, values[0] if values else 0, RunState.DONE, self.refuse, self.notes)

        return call

    def __call__(self) -> "Recorder":
        return self


class Shown:
    """The app on the filled workspace, with a pilot and what tests ask of it."""

    def __init__(self, root: Path, size: tuple[int, int] = (120, 36), readonly: bool = False, **settings: Any) -> None:
        self.control = Recorder()
        self.app = FinetopApp(Workspace(root), Settings(theme="dark", **settings), readonly, self.control)
        self._context = self.app.run_test(size=size)

    async def __aenter__(self) -> "Shown":
        self.pilot = await self._context.__aenter__()
        await until(lambda: isinstance(self.app.screen, MainScreen) and self.app.snapshot.taken)
        await until(lambda: self.main.runs.rows or not self.app.snapshot.runs)
        await self.pilot.pause()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._context.__aexit__(*exception)

    @property
    def main(self) -> MainScreen:
        return next(screen for screen in self.app.screen_stack if isinstance(screen, MainScreen))

    async def press(self, *keys: str) -> None:
        await press(self.pilot, *(KEY_NAMES.get(key, key) for key in keys))

    async def go(self, run_id: int) -> None:
        """Put the cursor on a run and wait until its detail is there."""
        self.main.runs.focus()
        self.main.runs.move_to(run_id)
        await until(lambda: self.app.snapshot.detail is not None and self.app.snapshot.detail.run_id == run_id)
        await self.pilot.pause()

    async def answer(self, key: str) -> None:
        """Answer the question, once it stands on the screen."""
        await until(lambda: isinstance(self.app.screen, Confirm) and self.app.screen.drawn_at)
        await self.press(key)

    async def asked(self, *call: Any) -> None:
        await until(lambda: call in self.control.calls)
        await self.pilot.pause()

    @property
    def news(self) -> str:
        return self.app.status_text.text


@played
async def test_every_key_of_the_table_is_heard(filled):
    """Each key, pressed where it is meant for, does its action and leaves the screen standing."""
    done: list[str] = []
    async with Shown(filled) as shown:
        perform = MainScreen.perform

        def note(screen: MainScreen, action: Any) -> None:
            done.append(action.id)
            perform(screen, action)

        MainScreen.perform = note
        try:
            for action in ACTIONS:
                if action.where not in ("list", "main", "any", "runs", "chart", "log", "checkpoints") or action.id in (
                    "main.quit",
                    "any.close",
                ):
                    continue
                for key in shown.app.keymap.keys(action.id):
                    while len(shown.app.screen_stack) > 2:
                        shown.app.pop_screen()
                    main = shown.main
                    main.end_prompt()
                    if main.zoomed:
                        main.zoomed = ""
                        main.place_panes()
                    if action.where == "checkpoints":
                        main.checkpoints.focus()
                    elif action.where in ("chart", "log"):
                        main.run.go("Loss" if action.where == "chart" else "Log")
                        main.run.focus()
                    else:
                        main.runs.focus()
                    await shown.pilot.pause()
                    done.clear()
                    await shown.press(key)
                    assert action.id in done, f"{key} is not {action.id}, but {done}"
        finally:
            MainScreen.perform = perform


@played
async def test_stop_acts_on_the_run_under_the_cursor_and_on_all_that_are_marked(filled):
    async with Shown(filled) as shown:
        await shown.press("x")
        await shown.asked("stop", 1)
        await shown.press("space", "space", "x")
        await shown.asked("stop", 2)
        assert shown.control.calls.count(("stop", 1)) == 2
        await until(lambda: "1 and 2" in shown.news)


@played
async def test_what_cannot_be_done_now_says_why(filled):
    async with Shown(filled) as shown:
        await shown.go(3)
        for key, why in (("x", "stop: run 3 has already finished"), ("h", "hold: run 3 has already finished")):
            await shown.press(key)
            assert shown.news == why
        await shown.go(1)
        await shown.press("r")
        assert shown.news == "resume: run 1 is running"
        await shown.press("u")
        assert "the trash is empty" in shown.news
        assert not [call for call in shown.control.calls if call[0] != "run_bytes"]


@played
async def test_who_was_slower_is_told_so(filled):
    async with Shown(filled) as shown:
        shown.control.refuse = "run 1 has already finished"
        await shown.press("x")
        await until(lambda: shown.news == "stop: run 1 has already finished")


@played
async def test_killing_asks_says_what_is_lost_and_enter_does_not_confirm(filled):
    async with Shown(filled) as shown:
        await shown.go(1)
        await shown.press("X")
        assert isinstance(shown.app.screen, Confirm)
        assert "40 steps since the checkpoint of step 1200" in " ".join(shown.app.screen.lost)
        for key in ("enter", "X", "space", "j"):
            await shown.answer(key)
            assert isinstance(shown.app.screen, Confirm), key
        for key in ("n", "escape", "q"):
            await shown.answer(key)
            assert not isinstance(shown.app.screen, Confirm) and not shown.control.calls
            assert shown.news == "nothing was changed"
            await shown.press("X")
        await shown.answer("y")
        await shown.asked("kill", 1)


@played
async def test_deleting_says_how_much_and_can_be_undone(filled):
    async with Shown(filled) as shown:
        await shown.go(3)
        await shown.press("d")
        await until(lambda: isinstance(shown.app.screen, Confirm))
        assert "1.3 GiB, 10 checkpoints" in "\n".join(shown.app.screen.lost)
        await shown.answer("y")
        await shown.asked("trash", 3)
        await until(lambda: shown.app.undoes)
        await shown.press("u")
        await shown.asked("restore", 3)


@played
async def test_the_queue_is_held_released_and_moved(filled):
    async with Shown(filled) as shown:
        await shown.go(8)
        await shown.press("h", "J", "K", "T")
        for call in (("hold", 8), ("move", 8, "down"), ("move", 8, "up"), ("move", 8, "top")):
            await shown.asked(*call)
        await shown.go(10)
        await shown.press("h")
        await shown.asked("release", 10)


@played
async def test_resume_offers_the_checkpoints_that_are_there(filled):
    async with Shown(filled) as shown:
        await shown.go(5)
        await shown.press("r")
        assert isinstance(shown.app.screen, Choose)
        await shown.press("j", "enter")
        await shown.asked("resume", 5, "1200")


@played
async def test_what_there_is_to_know_of_a_resume_is_shown_whole(filled):
    """The rates of a longer course, files that moved; and a refusal that one line has no room for."""
    async with Shown(filled) as shown:
        shown.control.notes = (f"the rate goes from 3e-05 to 5e-05 {'x' * 200} at step 41.", "data.files: lies at /b")
        for keys in (["r", "enter"], ["4", "r"]):
            await shown.go(5)
            await shown.press(*keys)
            notice = await until(lambda: isinstance(shown.app.screen, Notice) and shown.app.screen)
            text = " ".join("".join(part for part, _ in line) for line in notice.lines)
            assert "run 5: the rate goes from 3e-05 to 5e-05" in text and "lies at /b" in text
            assert "x" * 200 in text.replace(" ", "")
            await until(lambda: notice.drawn_at)  # noqa: B023, waited for in this turn
            await shown.press("enter")
        shown.control.refuse = "run 5 was ended by early stopping\n" + "more patience " * 20
        await shown.go(5)
        await shown.press("r", "enter")
        notice = await until(lambda: isinstance(shown.app.screen, Notice) and shown.app.screen)
        assert sum("more patience" in "".join(part for part, _ in line) for line in notice.lines) > 2
    async with Shown(filled, size=(60, 16)) as shown:
        shown.app.say_whole("resume", "as wide as it has room for " * 8, "warning")
        notice = await until(lambda: isinstance(shown.app.screen, Notice) and shown.app.screen)
        await until(lambda: notice.is_mounted)
        assert max(sum(len(part) for part, _ in line) for line in notice.lines) <= 50


@played
async def test_runs_that_were_trained_by_hand_in_a_new_folder_are_shown(tmp_path):
    folder = tmp_path / "runs" / "1"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(RunConfig().to_json(), "utf-8")
    journal = Journal(folder)
    journal.write("state", state="starting", pid=1)
    journal.write("state", state="running", step=0)
    at_work = open(folder / "log.txt", "wb")  # noqa: SIM115, a worker holds it as long as it lives
    fcntl.flock(at_work, fcntl.LOCK_EX)
    looks_only = FinetopApp(Workspace(tmp_path), Settings(theme="dark"), readonly=True)
    async with looks_only.run_test(size=(80, 24)):
        await until(lambda: isinstance(looks_only.screen, MainScreen) and looks_only.snapshot.taken)
        await until(lambda: "runs.db does not know yet" in " ".join(looks_only.screen.runs.shown_text()))
    assert not Workspace(tmp_path).database.exists()
    app = FinetopApp(Workspace(tmp_path), Settings(theme="dark"))
    async with app.run_test(size=(80, 24)):
        await until(lambda: app.snapshot.run(1) is not None)
        journal.metric(7, {"train/loss": 0.5})
        await until(lambda: app.snapshot.run(1).step == 7)
    journal.close()
    at_work.close()


@played
async def test_another_metric_says_which_checkpoint_is_best(tmp_path):
    filler = Filler(tmp_path)
    run_id, active = filler.add("one"), filler.add("two")
    filler.train(active, 200)
    filler.train(run_id, 400)
    more = [{"kind": "eval", "step": 400, "values": {"eval/accuracy": 0.5, "eval/smoothness": 7.0}}]
    filler.journal(run_id, *more, {"kind": "state", "state": "done", "step": 400})
    filler.finish(run_id, RunState.DONE)
    async with Shown(tmp_path) as shown:
        await shown.go(run_id)
        await shown.press("4", "b")
        choices = {value: line for value, line in shown.app.screen.choices}
        assert list(choices) == ["loss:min", "accuracy:max", "smoothness:max", "smoothness:min", ""]
        assert [value for value, line in choices.items() if "so far" in line[-1][0]] == ["loss:min"]
        await shown.press("j", "enter")
        await shown.asked("choose_best", run_id, "accuracy:max")
        assert shown.news == f"run {run_id}: Best goes by accuracy."
        await shown.press("b", "G", "enter", *"f1:max", "enter")
        await shown.asked("choose_best", run_id, "f1:max")
        await shown.go(active)
        await shown.press("4", "b")
        assert shown.news == f"best: run {active} is running; it can be chosen once it has ended"


@played
async def test_names_tags_and_notes_are_typed_in_one_line(filled):
    async with Shown(filled) as shown:
        await shown.go(3)
        await shown.press("t", "space", "n", "e", "w", "enter")
        await shown.asked("tag", 3, ("sql", "baseline", "new"), ("sql", "baseline"))
        await shown.press("o", "h", "i", "enter")
        await shown.asked("note", 3, "hi", "")
        await shown.press("N", "escape")
        assert shown.main.runs.has_focus and not [call for call in shown.control.calls if call[0] == "rename"]


@played
async def test_checkpoints_are_pinned_and_deleted_after_a_question(filled):
    async with Shown(filled) as shown:
        await shown.go(3)
        await shown.press("4", "P")
        await shown.asked("pin", 3, 2000, True)
        await shown.press("j", "d")
        await shown.answer("y")
        await shown.asked("delete_checkpoint", 3, 1800, False)
        await shown.press("r")
        await shown.asked("resume", 3, "1800")


@played
async def test_the_cursor_rests_on_the_newest_checkpoint_then_on_the_best_until_it_is_moved(tmp_path):
    filler = Filler(tmp_path)
    run_id = filler.add("one")
    filler.train(run_id, 20)

    def save(step: int, *kept: str) -> None:
        path = f"checkpoints/step-{step:08d}"
        (filler.folder(run_id) / path).mkdir(parents=True)
        event = {"kind": "checkpoint", "step": step, "path": path, "bytes": 10, "kept": ["latest", *kept]}
        filler.journal(run_id, event)

    async with Shown(tmp_path) as shown:
        pane = shown.main.checkpoints

        def rests_on(step: int) -> bool:
            marked = [line for line in pane.shown_text() if "▌" in line]
            return pane.key == step and len(marked) == 1 and f" {step} " in marked[0]

        save(21, "best")
        await until(lambda: rests_on(21))
        save(22)
        await until(lambda: rests_on(22))
        filler.finish(run_id, RunState.DONE)
        await until(lambda: rests_on(21))
        await shown.press("4", "k")
        save(23, "best")
        await until(lambda: len(shown.app.snapshot.detail.checkpoints) == 3)
        await shown.pilot.pause()
        assert rests_on(22)
    filler.close()


@played
async def test_a_failed_run_is_queued_again_with_a_fix(filled):
    async with Shown(filled) as shown:
        await shown.go(4)
        await until(lambda: shown.main.run.fixes)
        assert shown.main.run.tab == "Why"
        await shown.press("e", "enter")
        await until(lambda: any(call[0] == "add" for call in shown.control.calls))
        resolved = next(call[1] for call in shown.control.calls if call[0] == "add")
        assert resolved.config.optim.name == "adamw8bit" and resolved.origin["optim.name"] == "fix"
        await until(lambda: "run 12 is queued" in shown.news)


@played
async def test_the_fixes_are_offered_however_soon_they_are_asked_for(filled):
    """Before the panes have followed the cursor, with a key typed ahead."""
    async with Shown(filled) as shown:
        shown.main.runs.move_to(4)
        assert shown.main.run.run is None or shown.main.run.run.id != 4
        await shown.press("e", "space", "G", "enter")
        await until(lambda: isinstance(shown.app.screen, NewRunScreen) and shown.app.screen.ready)
        await until(lambda: shown.app.screen.fields.key == "optim.name")


@played
async def test_several_fixes_are_marked_and_queued_as_one_run(filled):
    async with Shown(filled) as shown:
        await shown.go(4)
        await until(lambda: shown.main.run.fixes)
        first, second, third, *_ = shown.main.run.fixes
        await shown.press("e", "space", "j", "space", "space", "j", "space", "enter")
        await until(lambda: any(call[0] == "add" for call in shown.control.calls))
        resolved = next(call[1] for call in shown.control.calls if call[0] == "add")
        wanted = first.settings | third.settings
        assert {path: resolved.config.flat()[path] for path in wanted} == wanted
        assert not any(resolved.origin[path] == "fix" for path in second.settings.keys() - wanted.keys())


@played
async def test_the_settings_of_a_failed_run_open_at_the_one_that_was_wrong(filled):
    async with Shown(filled) as shown:
        await shown.go(4)
        await until(lambda: shown.main.run.fixes)
        await shown.press("e", "space", "G", "enter")
        await until(lambda: isinstance(shown.app.screen, NewRunScreen) and shown.app.screen.ready)
        await until(lambda: shown.app.screen.fields.key == "optim.name")


@played
async def test_readonly_changes_nothing_and_says_so(filled):
    async with Shown(filled, readonly=True) as shown:
        for action in ACTIONS:
            if action.writes and action.where == "main":
                await shown.press(shown.app.keymap.keys(action.id)[0])
                assert "--readonly" in shown.news, action.id
        assert shown.control.calls == []


@played
async def test_the_filter_works_while_it_is_typed_and_escape_takes_it_away(filled):
    async with Shown(filled) as shown:
        await shown.press("/", *"state")
        await shown.pilot.press("colon", *"done")
        await until(lambda: {run.id for run in shown.app.snapshot.runs} == {3, 6})
        await shown.press("enter")
        assert "state:done" in shown.main.runs.shown_text()[0]
        await shown.press("escape")
        await until(lambda: len(shown.app.snapshot.runs) == 11)


@played
async def test_sorting_is_remembered_for_the_next_visit(filled):
    async with Shown(filled) as shown:
        await shown.press("s")
        await until(lambda: shown.app.snapshot.view.sort == "eval")
        await shown.press("S")
    async with Shown(filled) as shown:
        await until(lambda: shown.app.snapshot.view.sort == "eval" and shown.app.snapshot.view.descending)


@played
async def test_the_cursor_stays_with_its_run_when_the_order_changes(filled):
    async with Shown(filled) as shown:
        await shown.go(5)
        await shown.press("s")
        await until(lambda: shown.app.snapshot.view.sort == "eval")
        await shown.pilot.pause()
        assert shown.main.runs.run.id == 5


@played
async def test_every_run_is_reached_by_its_number(filled):
    async with Shown(filled) as shown:
        await shown.press("#", "7", "enter")
        assert shown.main.runs.run.id == 7
        await shown.press("#", "9", "9", "enter")
        assert shown.news == "there is no run 99"


@played
async def test_the_log_is_searched_and_followed(filled):
    async with Shown(filled) as shown:
        await shown.go(1)
        await shown.press("L")
        await until(lambda: shown.main.run.logs.tail is not None)
        assert any("step 399" in line for line in shown.main.run.shown_text())
        await shown.press("/", *"step", "space", "1", "2", "enter")
        await until(lambda: "lines hold" in shown.news)
        assert "step 12 " in shown.main.run.shown_text()[2]
        await shown.press("n")
        assert "step 120 " in shown.main.run.shown_text()[2]
        await shown.press("G")
        assert shown.main.run.logs.follow


@played
async def test_hostile_text_is_shown_and_markup_is_not_read(filled):
    async with Shown(filled, size=(200, 60)) as shown:
        await shown.go(6)
        for pane in (shown.main.runs, shown.main.run):
            text = "\n".join(pane.shown_text())
            assert "[bold red]" in text and "\\x1b[2J" in text
            assert not set("\x1b\x07\u202e") & set(text)
        assert "名字[/] \\u202etxt" in shown.main.run.shown_text()[0], HOSTILE


@played
async def test_escape_goes_one_step_back_and_never_leaves(filled):
    async with Shown(filled) as shown:
        await shown.press("space", "enter")
        assert shown.main.zoomed == "run" and shown.main.runs.marks
        await shown.press("escape")
        assert not shown.main.zoomed
        await shown.press("escape")
        assert not shown.main.runs.marks
        await shown.press("escape", "escape", "ctrl+c")
        assert shown.app.is_running and "q leaves" in shown.news


@played
async def test_help_and_palette_come_from_the_table(filled):
    async with Shown(filled) as shown:
        await shown.press("?")
        assert isinstance(shown.app.screen, Help)
        text = "\n".join(row.line[-2][0] for row in shown.app.screen.pane.rows if len(row.line) > 2)
        assert all(action.help[:30] in text for action in ACTIONS if action.where != "any")
        await shown.press("escape", ":", *"kill", "enter")
        assert isinstance(shown.app.screen, Confirm)
        await shown.press("escape", ":", "z", "z", "z")
        assert isinstance(shown.app.screen, CommandPalette) and not shown.app.screen.pane.rows
        await shown.press("enter")
        assert isinstance(shown.app.screen, MainScreen)


@played
async def test_what_is_looked_for_next_takes_the_place_of_what_was_looked_for(filled):
    async with Shown(filled) as shown:
        await shown.press("?", "/", *"kill", "enter", "/", *"mark", "enter")
        assert shown.app.screen.pane.text == "mark"
        await shown.press("/", "end", *" all", "enter")
        assert shown.app.screen.pane.text == "mark all"
        await shown.press("escape", "escape", "/", *"gemma", "enter", "/", *"phi", "enter")
        assert shown.app.view.matching == "phi"


@played
async def test_help_is_whole_on_the_smallest_screen(filled):
    async with Shown(filled, size=(60, 16)) as shown:
        await shown.press("?")
        rows = shown.app.screen.pane.rows
        text = " ".join(" ".join(part.strip() for part, _ in row.line) for row in rows)
        assert all(action.help in " ".join(text.split()) for action in ACTIONS)


@played
async def test_pausing_stops_the_picture_only(filled):
    async with Shown(filled) as shown:
        await shown.press("p")
        assert "PAUSED" in shown.main.header.shown_text()[0]
        before = shown.app.snapshot
        await asyncio.sleep(1.3)  # longer than the feed's slowest beat
        assert shown.app.snapshot is before
        await shown.press("x")
        await shown.asked("stop", 1)
        await shown.press("p")
        await until(lambda: shown.app.snapshot is not before)


@played
async def test_an_action_that_waits_for_a_lock_holds_up_no_key(filled):
    async with Shown(filled) as shown:
        import threading

        gate = threading.Event()
        shown.control.stop = lambda run_id: gate.wait(10) and Outcome(True, run_id, RunState.RUNNING)
        await shown.press("x", "j")
        assert shown.main.runs.run.id == 2
        gate.set()
        await until(lambda: "stops after this step" in shown.news)


@played
async def test_an_unexpected_fault_in_an_action_is_told_and_the_next_works(filled):
    async with Shown(filled) as shown:

        def broken(run_id: int) -> Outcome:
            raise RuntimeError("no such thing")

        shown.control.stop = broken
        await shown.press("x")
        await until(lambda: shown.news == "stop: RuntimeError: no such thing")
        await shown.go(8)
        await shown.press("h")
        await shown.asked("hold", 8)


@pytest.mark.parametrize("size", [(60, 16), (79, 24), (80, 24), (100, 50), (119, 40), (120, 33), (120, 34), (300, 80)])
@played
async def test_every_size_has_its_layout_and_shows_the_selected_run(filled, size):
    async with Shown(filled, size=size) as shown:
        width, height = size
        kind = "four" if width >= 120 and height >= 34 else "two" if width >= 80 else "list"
        assert shown.main.layout_now.kind == kind
        await shown.press("3")
        assert shown.main.run.display and "qwen3-8b-sql-lora" in shown.main.run.shown_text()[0]
        for widget in (shown.main.runs, shown.main.run, shown.main.gpus, shown.main.checkpoints):
            if widget.display:
                assert widget.region.right <= width and widget.region.bottom <= height - 2


@played
async def test_no_gpu_shows_processor_and_memory_and_why(tmp_path):
    filler = Filler(tmp_path)
    filler.add("one")
    filler.machine(0)
    filler.close()
    async with Shown(tmp_path) as shown:
        text = "\n".join(shown.main.gpus.shown_text())
        assert "No NVIDIA driver found (libnvidia-ml.so.1)" in text and "64 cores" in text


def test_no_two_actions_share_a_key_in_one_place():
    for action in ACTIONS:
        assert len(Keymap().keys(action.id)) == len(action.keys), action.id


def test_own_keys_replace_those_of_the_table_and_mistakes_are_named():
    keymap = Keymap({"main.stop": ["ctrl+x"], "main.kill": ["d"], "main.nonsense": ["z"]})
    assert keymap.action("ctrl+x", ("main",)) is BY_ID["main.stop"]
    assert keymap.action("x", ("main",)) is None
    assert keymap.action("d", ("main",)) is BY_ID["main.kill"], "one's own key pushes out the table's"
    assert keymap.problems == [
        "there is no action 'main.nonsense'",
        "'d' is main.kill now, and main.delete has no key",
    ]


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"any.help": ["<f3>"]}, "any.help: there is no key '<f3>'"),
        ({"main.rename": ["n"]}, "'n' is main.rename now, and main.new has no key"),
        ({"main.rename": ["m"], "main.note": ["m"]}, "'m' is both main.rename and main.note"),
        ({"runs.sort": ["q"]}, "'q' is runs.sort, which hides main.quit there"),
        ({"main.stop": ["shift+x"]}, "there is no key 'shift+x'"),
        ({"main.stop": ["esc", "f9"]}, "there is no key 'esc'"),
        ({"main.stop": ["ctrl+x", "f12", "alt+s", ";", "shift+up"], "any.help": ["f2"]}, ""),
    ],
)
def test_keys_that_there_are_not_and_keys_taken_from_others_are_told(own, told):
    keymap = Keymap(own)
    assert any(told in problem for problem in keymap.problems) if told else not keymap.problems
    assert keymap.keys("any.help"), "help can always be reached"


def test_every_key_of_the_table_is_one():
    assert not Keymap().problems and all(is_key(key) for action in ACTIONS for key in action.keys)


@played
async def test_what_nothing_will_act_on_is_told_once_and_the_key_that_closes_the_notice_does_nothing_else(filled):
    async with Shown(filled) as shown:
        shown.control.warning = "no daemon could be started: the disk is full\nMake room."
        await shown.press("x")
        notice = await until(lambda: isinstance(shown.app.screen, Notice) and shown.app.screen)
        told = [text for line in notice.lines for text, _ in line]
        assert told[:2] == ["no daemon could be started: the disk is full", "Make room."]
        await until(lambda: notice.drawn_at)
        await shown.press("j")
        assert isinstance(shown.app.screen, MainScreen) and shown.main.runs.run.id == 1
        await shown.press("j", "x")
        await shown.asked("stop", 2)
        await until(lambda: "stops after this step: 2" in shown.news)
        assert isinstance(shown.app.screen, MainScreen)


@played
async def test_what_cannot_be_used_in_the_settings_is_told_when_the_screen_opens(filled):
    async with Shown(filled, keys={"main.nonsense": ("z",)}) as shown:
        assert "there is no action 'main.nonsense'" in shown.news


@pytest.mark.parametrize("pane", ["runs", "gpus", "run", "checkpoints"])
@played
async def test_the_focus_survives_every_size_and_returns_to_where_it_was(filled, pane):
    """Below 60x16 no pane is seen, and in two panes or one not every one is."""
    async with Shown(filled) as shown:
        main = shown.main
        main.pane(pane).focus()
        for size in ((40, 10), (120, 36), (80, 24), (120, 36), (60, 16), (20, 5), (79, 20), (40, 10), (200, 60)):
            await shown.pilot.resize_terminal(*size)
            await shown.pilot.pause()
            seen = [main.pane(name) for name in main.layout_now.panes]
            heavy = [lines for lines in seen if "┏" in lines.shown_text()[0]]
            assert heavy == ([main.focused] if seen else []), size
            if main.pane(pane) in seen:
                assert main.focused is main.pane(pane)
        await shown.press("1", "j")
        assert main.runs.run.id == 2


@pytest.mark.parametrize("size", [(120, 36), (80, 24), (60, 16)])
@played
async def test_back_from_the_whole_screen_is_where_one_was(filled, size):
    async with Shown(filled, size) as shown:
        for key in ("enter", "L"):
            await shown.press(key)
            assert shown.main.zoomed == "run" and shown.main.focused is shown.main.run
            await shown.press("escape", "j")
            assert shown.main.focused is shown.main.runs
        assert shown.main.runs.run.id == 8
        await shown.press("3" if size[0] >= 80 else "1", "enter")
        await shown.pilot.resize_terminal(40, 10)
        await shown.pilot.resize_terminal(*size)
        await shown.press("escape")
        assert shown.main.focused is (shown.main.run if size[0] >= 80 else shown.main.runs)
        await shown.press("1", "/")
        await shown.pilot.resize_terminal(40, 10)
        await shown.pilot.resize_terminal(*size)
        await shown.press("escape", "k")
        assert shown.main.focused is shown.main.runs and shown.main.runs.run.id == 2


@played
async def test_q_closes_what_is_open_and_on_the_main_screen_leaves(filled):
    async with Shown(filled) as shown:
        for key in "?!ncr":
            await shown.go(5)
            await shown.press(key)
            await until(lambda: not isinstance(shown.app.screen, MainScreen))
            await shown.press("q")
            await until(lambda: isinstance(shown.app.screen, MainScreen))
        await shown.press("enter", "q")
        await until(lambda: not shown.app.is_running)


@played
async def test_a_key_that_means_nothing_says_so(filled):
    async with Shown(filled) as shown:
        for key, name in (("ctrl+z", "ctrl+z"), ("B", "B"), ("f9", "f9")):
            await shown.press(key)
            assert shown.news == f"{name} does nothing here; ? shows the keys"
        await shown.press("j", "left_shift")
        assert shown.news == "f9 does nothing here; ? shows the keys"


@played
async def test_the_list_of_keys_can_be_searched(filled):
    async with Shown(filled) as shown:
        await shown.press("?")
        box = shown.app.screen.pane
        everything = len(box.rows)
        await shown.press("/", *"trash zz")
        assert [row.key for row in box.rows if row.value is None and isinstance(row.key, str)] == []
        await shown.press("backspace", "backspace", "backspace")
        await until(lambda: len(box.rows) < everything)
        assert any(row.key == "main.delete" for row in box.rows)
        assert all("trash" in str(row.line) for row in box.rows if isinstance(row.key, str))
        await shown.press("enter", "escape")
        assert isinstance(shown.app.screen, Help) and len(box.rows) == everything
        await shown.press("escape")
        assert isinstance(shown.app.screen, MainScreen)


@played
async def test_the_mouse_chooses_opens_sorts_scrolls_and_presses_keys_of_the_footer(filled):
    async with Shown(filled) as shown:
        main, pilot = shown.main, shown.pilot

        def at(pane: Any, text: str) -> tuple[int, int]:
            y = next(y for y, line in enumerate(pane.shown_text()) if text in line)
            return cells(pane.shown_text()[y].partition(text)[0]), y

        await pilot.click(main.runs, offset=at(main.runs, "llama-8b-full"))
        assert main.runs.run.id == 4 and main.focused is main.runs
        await until(lambda: main.run.run is not None and main.run.run.id == 4)
        await pilot.pause()
        await pilot.click(main.run, offset=at(main.run, "Config"))
        assert main.run.tab == "Config" and main.focused is main.run
        await pilot._post_mouse_events([events.MouseScrollDown], main.runs, (5, 5), button=0)
        await until(lambda: main.runs.run.id == 7)
        await pilot.click(main.runs, offset=at(main.runs, "qwen3-8b-sql-r16"), times=2)
        assert main.zoomed == "run" and main.runs.run.id == 3
        await shown.press("escape")
        column = at(main.runs, "name")
        await pilot.click(main.runs, offset=column)
        await until(lambda: shown.app.snapshot.view.sort == "name" and not shown.app.snapshot.view.descending)
        await pilot.pause()
        await pilot.click(main.runs, offset=column)
        await until(lambda: shown.app.snapshot.view.descending)
        await pilot.click(main.footer, offset=at(main.footer, "keys"))
        assert isinstance(shown.app.screen, Help)
        await pilot.click(shown.app.screen.pane, offset=(5, 3))
        await shown.press("q")
        await shown.go(5)
        await shown.press("r")
        await pilot.click(shown.app.screen.pane, offset=(5, 2), times=2)
        await shown.asked("resume", 5, "1200")
