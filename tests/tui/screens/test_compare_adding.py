"""Adding to a comparison: what may be added is shown and completed, what is none is said, and while it is read nothing
says that there is nothing."""

import threading

import pytest

from engine.store.run_records import Run
from tests.tui.stage import Stage, played, press, until
from tests.tui.storefill import add_run
from tui.render.comparison_view import setting_lines
from tui.screens import compare_screen
from tui.screens.compare_candidates import candidates
from tui.screens.compare_screen import CompareScreen


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    for name in ("lora-64", "基线-16", "third"):
        add_run(folder, name, steps=100)
    return folder


async def opened(app, pilot) -> CompareScreen:
    screen = await until(lambda: isinstance(app.screen, CompareScreen) and app.screen.data and app.screen)
    await until(lambda: screen.curves.picture is not None)
    await pilot.pause()
    return screen


@pytest.mark.parametrize("size", [(120, 36), (80, 24), (60, 16)])
@pytest.mark.parametrize("typed", ["77", "abc", "1@9999", "1@nowhere"])
@played
async def test_what_is_no_run_or_checkpoint_is_said_and_can_be_read_again(root, size, typed):
    app = Stage(root, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=size) as pilot:
        screen = await opened(app, pilot)
        await press(pilot, "plus", *typed, "enter")
        await until(lambda: app.status_text.text.startswith("compare: "))
        assert typed.partition("@")[2] in app.status_text.text.replace(",", "") and screen.names == ("1", "2")
        assert app.messages.messages[-1].text.startswith("compare: ")


@pytest.mark.parametrize("size", [(120, 36), (80, 24), (60, 16)])
@played
async def test_candidates_are_shown_and_completed_and_the_footer_names_the_keys_of_typing(root, size):
    app = Stage(root, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=size) as pilot:
        screen = await opened(app, pilot)
        await press(pilot, "plus")
        assert "tab completes" in screen.footer.shown_text()[0] and "baseline" not in screen.footer.shown_text()[0]
        await until(lambda: "3 third" in screen.caution.shown_text()[0])
        await press(pilot, *"thi", "tab")
        assert screen.prompt.value == "3"
        await until(lambda: "3@best" in screen.caution.shown_text()[0])
        await press(pilot, *"@b", "tab", "enter")
        await until(lambda: len(screen.data.comparison.subjects) == 3)
        assert screen.names == ("1", "2", "3@best")
        await press(pilot, "plus", *"nothing so")
        await until(lambda: "no run or checkpoint is called so" in screen.caution.shown_text()[0])


def test_candidates_begin_with_what_is_typed_or_are_called_so_and_are_not_there_yet():
    nothing: dict = dict.fromkeys(Run._fields)
    runs = [Run(**nothing | {"id": id, "name": name}) for id, name in ((41, "base"), (4, "Lora"), (14, "base-4"))]
    points = {4: ("best", "latest", "400")}
    assert candidates("4", runs, points, ["41"]) == ["4", "14", "4@best", "4@latest", "4@400"]
    assert candidates("4@", runs, points, ["4@best"]) == ["4@latest", "4@400"]
    assert candidates("BASE", runs, points, []) == ["41", "14"]
    assert candidates("4@4", runs, points, []) == ["4@400"]
    assert candidates("9" * 40, runs, points, []) == []


@played
async def test_while_it_is_read_no_pane_says_that_there_is_nothing(root, monkeypatch):
    go_on, read = threading.Event(), compare_screen.read_comparison

    def slow(workspace, names):
        assert go_on.wait(10)
        return read(workspace, names)

    monkeypatch.setattr(compare_screen, "read_comparison", slow)
    app = Stage(root, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await until(lambda: isinstance(app.screen, CompareScreen) and app.screen)
        panes = (screen.curves, screen.results, screen.settings)
        await until(lambda: all("reading …" in "\n".join(pane.shown_text()) for pane in panes))
        await until(lambda: app.snapshot.taken)
        await pilot.pause(0.1)
        assert all("reading …" in "\n".join(pane.shown_text()) for pane in panes)
        go_on.set()
        await opened(app, pilot)
        await until(lambda: "reading" not in "\n".join(screen.curves.shown_text()))


def test_where_no_setting_differs_none_are_counted_as_more():
    text = "".join(text for line in setting_lines([], [], 80, 64) for text, _ in line)
    assert "no setting differs; all 64 are the same" in text and "more" not in text
