"""Comparing on the screen: what is marked, what is copied, and that text from models is only shown."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from engine.base.workspace import Workspace
from engine.compare.comparison import compare
from engine.compare.comparison_records import Answers
from engine.present import comparison_report
from engine.present.text import cells
from engine.settings.resolve import Layer, resolve
from engine.store import queue, series
from engine.store.connect import writer
from engine.store.run_records import NewRun
from engine.store.transactions import write
from tests.tui.stage import Stage, played, press, until
from tests.tui.storefill import add_run
from tui.render import comparison_view
from tui.render.line import fit_line
from tui.render.text_diff import marked, tokens, wrapped
from tui.screens.compare_layout import layout
from tui.screens.compare_screen import CompareScreen, write_new

POEM = "写一首关于春天的诗"
FIRST = [("Capital of France?", "Paris", "Paris"), (POEM, "春天来了。", "春天来了，花开了。")]
SECOND = [("Capital of France?", "Paris", "It is Paris"), (POEM, "春天来了。", "\x1b[31m[bold]夏天来了，花开了。")]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    add_run(folder, "lora-64", end=0.8, settings={"lora.r": 64, "lora.alpha": 128}, answers=FIRST)
    add_run(folder, "基线-16", end=0.9, settings={"lora.r": 16}, answers=SECOND, data_sha="41be" * 16, seed=1)
    add_run(folder, "live", steps=120, total=400, end=1.0, state="running", answers=FIRST, seed=2)
    return folder


@pytest.fixture(scope="module")
def pair(root):
    return compare(Workspace(root), ["1", "2"], curves=())


def text(line) -> str:
    return "".join(piece for piece, _ in line)


def texts(lines) -> str:
    return "\n".join(map(text, lines))


# differences between texts


def differing(pieces) -> str:
    return "|".join(piece for piece, differs in pieces if differs)


def test_words_that_differ_are_marked_in_both_texts():
    first, second = marked(["It is Paris today", "It is London today"])
    assert differing(first) == "Paris"
    assert differing(second) == "London"


def test_chinese_is_compared_character_by_character():
    first, second = marked(["春天来了，花开满园。", "夏天来了，花开了满园。"])
    assert differing(first) == "春"
    assert differing(second) == "夏|了"


def test_the_first_text_is_marked_where_any_other_differs():
    first, *_ = marked(["a b c", "x b c", "a b y"])
    assert differing(first) == "a|c"


def test_an_answer_that_is_missing_stays_missing():
    assert marked([None, "a"]) == [None, [("a", False)]]
    assert marked(["a", None])[1] is None


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4))
def test_marking_loses_nothing(found):
    for before, pieces in zip(found, marked(found), strict=True):
        assert "".join(piece for piece, _ in pieces) == before
        assert "".join(tokens(before)) == before


@given(st.text(max_size=200), st.integers(2, 30))
def test_wrapped_answers_never_exceed_their_column(answer, width):
    for line in wrapped([(answer, False)], width):
        assert cells(text(line)) <= width


# as lines


@pytest.mark.parametrize("width", [30, 58, 78, 118])
def test_every_line_fits_and_every_value_is_there(pair, width):
    lines = [*comparison_view.result_head(pair, width), *comparison_view.result_lines(pair, width)]
    fitted = [text(fit_line(line, width)) for line in lines]
    assert {wcswidth(line) for line in fitted} == {width}
    whole = "\n".join(fitted)
    assert "eval loss" in whole and "★" in whole
    best = pair.results[0].rows[0]
    for value in best.values:
        assert f"{value:.4g}" in whole


def test_a_difference_is_taken_to_the_first_and_judged_by_what_is_better(pair):
    (row,) = [row for row in pair.results[0].rows if row.key == "eval/loss"]
    line = next(line for line in comparison_view.result_lines(pair, 100) if "eval loss ▼" in text(line))
    difference = next((piece, role) for piece, role in line if piece.strip().startswith("+"))
    assert difference == (f"+{row.values[1] - row.values[0]:.3g}".rjust(11), "failed")


def test_four_runs_are_told_apart_in_eighty_columns(root):
    four = compare(Workspace(root), ["1", "2", "3", "2@50"], curves=())
    lines = comparison_view.result_lines(four, 58)
    assert any("★" in text(line) for line in lines)
    assert "A 1" in texts(comparison_view.result_head(four, 58)) and "D 2@50" in texts(
        comparison_view.result_head(four, 58)
    )


def test_only_settings_that_differ_are_listed(pair):
    shown = texts(comparison_view.setting_lines(pair.settings, pair.subjects, 80, 40))
    assert "lora.r" in shown and "64" in shown and "16" in shown
    assert "optim.schedule" not in shown
    assert "40 more settings are the same" in shown


@pytest.mark.parametrize("width", [24, 60, 118])
def test_answers_stand_side_by_side_with_the_reference_where_there_is_room(pair, width):
    lines, begins = comparison_view.answer_lines(pair.answers, pair.subjects, width)
    fitted = [text(fit_line(line, width)) for line in lines]
    assert {wcswidth(line) for line in fitted} == {width}
    assert len(begins) == 2
    together = [line for line in fitted if "reference" in line and "A 1" in line and "B 2" in line]
    assert bool(together) == (width > 70)


def test_text_of_a_model_is_shown_and_not_interpreted(pair):
    shown = texts(comparison_view.answer_lines(pair.answers, pair.subjects, 118)[0])
    assert "\x1b" not in shown
    assert "\\x1b" in shown and "[bold]" in shown


def test_markdown_keeps_text_in_its_cells(pair):
    evil = Answers("a|b\n# c", None, ("<script>x|y\n\x1b[0m", None), (1, None))
    bare = replace(pair, results=(), settings=(), warnings=(), notes=(), diagnoses=((), ()), groups=())
    shown = comparison_report.markdown(replace(bare, answers=(evil,)))
    table = [line for line in shown.split("\n") if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") == table[-1].replace("\\|", "").count("|") for line in table[-4:])
    assert "<script>" not in shown and "\x1b" not in shown and "\n# c" not in shown


def test_markdown_says_what_the_screen_says(pair):
    shown = comparison_report.markdown(pair)
    assert "**Settings that differ**" in shown and "| lora.r |" in shown
    assert all(f"- {warning[:18]}" in shown for warning in pair.warnings[:1])


def test_a_file_that_is_there_is_never_overwritten(tmp_path):
    first, second = write_new(tmp_path, "compare-1-2", "a"), write_new(tmp_path, "compare-1-2", "b")
    assert (first.name, second.name) == ("compare-1-2.md", "compare-1-2-2.md")
    assert first.read_text() == "a"


@given(st.integers(20, 300), st.integers(8, 100), st.sampled_from(["curves", "results", "settings", "answers"]))
def test_panes_never_overlap_and_the_focused_one_is_always_there(width, height, focused):
    regions = layout(width, height, focused, full=False)
    assert focused in regions
    shown = list(regions.items())
    for index, (_, one) in enumerate(shown):
        assert one.right <= width and one.bottom <= height
        for _, other in shown[index + 1 :]:
            assert not one.overlaps(other)


# on the screen


async def opened(app, pilot) -> CompareScreen:
    await until(lambda: isinstance(app.screen, CompareScreen) and app.screen.is_mounted)
    await until(lambda: app.screen.data is not None and app.screen.curves.picture is not None)
    await pilot.pause()
    return app.screen


@pytest.mark.parametrize("size", [(120, 36), (80, 24), (200, 60), (60, 16)])
@played
async def test_the_screen_opens_at_any_size(root, size):
    app = Stage(root, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=size) as pilot:
        screen = await opened(app, pilot)
        assert "A 1 lora" in screen.curves.shown_text()[1]
        for key, pane, wanted in (
            ("2", screen.results, "eval loss"),
            ("3", screen.settings, "lora.r"),
            ("4", screen.answers, "reference"),
        ):
            await press(pilot, key)
            await until(lambda pane=pane, wanted=wanted: wanted in "\n".join(pane.shown_text()))
            assert pane.has_focus


@played
async def test_what_was_evaluated_on_other_data_is_warned_of(root):
    app = Stage(root, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        assert "validation data differ" in screen.caution.shown_text()[0]


@played
async def test_the_keys_of_charts_work_from_every_pane(root):
    app = Stage(root, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        await press(pilot, "2", "m", "l", "t")
        assert screen.curves.views.view.log and screen.curves.views.view.x == "tokens"
        assert screen.shown_metric()[0] == "eval"
        await press(pilot, "1", "left")
        assert screen.curves.views.view.cursor is not None
        await press(pilot, "escape")
        assert screen.curves.views.view.cursor is None
        assert app.screen is screen


@played
async def test_the_baseline_goes_round(root):
    app = Stage(root, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        await press(pilot, "b")
        await until(lambda: screen.data.comparison.subjects[0].run_id == 2)
        assert "A 2" in "\n".join(screen.results.shown_text())


@played
async def test_copying_gives_markdown_to_the_terminal(root, monkeypatch):
    copied = []
    app = Stage(root, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=(120, 36)) as pilot:
        monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
        await opened(app, pilot)
        await press(pilot, "y")
        assert copied and copied[0].startswith("| | run | |")


@played
async def test_writing_makes_a_file_and_says_where(tmp_path):
    add_run(tmp_path, "one", steps=60)
    add_run(tmp_path, "two", steps=60)
    app = Stage(tmp_path, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app, pilot)
        await press(pilot, "w")
        await until(lambda: "written to" in app.status_text.text)
        assert (tmp_path / "compare-1-2.md").read_text().startswith("| | run | |")


@played
async def test_a_run_that_is_not_there_is_said_and_nothing_breaks(root):
    app = Stage(root, lambda: CompareScreen(["1", "99"]))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await until(lambda: isinstance(app.screen, CompareScreen) and app.screen)
        await until(lambda: screen.error)
        await press(pilot, "m", "y", "w", "2", "a", "v", "]", "[")
        assert "99" in "\n".join(screen.caution.shown_text())


@played
async def test_all_settings_and_back(root):
    app = Stage(root, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        await press(pilot, "3", "a")
        assert screen.settings.title() == "All settings"
        assert screen.settings.below > 10
        await press(pilot, "a")
        assert "more settings are the same" in "\n".join(screen.settings.shown_text())


@played
async def test_more_can_be_added_and_left_out(root):
    app = Stage(root, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        await press(pilot, "minus")
        assert "two are the least" in app.status_text.text
        await press(pilot, "plus")
        await until(lambda: screen.prompt is not None and screen.prompt.has_focus)
        await press(pilot, *"1@50", "enter")
        await until(lambda: len(screen.data.comparison.subjects) == 3)
        assert "C 1@50" in screen.curves.shown_text()[1] or "C 1@50" in "\n".join(screen.results.shown_text())
        assert screen.curves.has_focus
        await press(pilot, "minus")
        await until(lambda: len(screen.data.comparison.subjects) == 2)


@played
async def test_a_name_that_is_none_is_said_and_what_was_there_stays(root):
    app = Stage(root, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=(200, 36)) as pilot:
        screen = await opened(app, pilot)
        await press(pilot, "plus", *"99", "enter")
        await until(lambda: "there is no run 99" in app.status_text.text)
        assert screen.names == ("1", "2") and len(screen.data.comparison.subjects) == 2
        await press(pilot, "plus", "escape")
        assert screen.prompt is None and app.screen is screen


@played
async def test_prompts_panes_and_the_whole_screen(root):
    app = Stage(root, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        await press(pilot, "tab")
        assert screen.results.has_focus
        assert screen.results.shown_text()[0].startswith("┏") and screen.curves.shown_text()[0].startswith("┌")
        await press(pilot, "enter")
        assert screen.results.outer_size.width == 120 and screen.curves.outer_size.width == 0
        await press(pilot, "escape", "shift+tab")
        assert screen.curves.has_focus
    app = Stage(root, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=(60, 16)) as pilot:
        screen = await opened(app, pilot)
        await press(pilot, "v")
        await until(lambda: "1/2" in "\n".join(screen.answers.shown_text()))
        await press(pilot, "]")
        assert "2/2" in "\n".join(screen.answers.shown_text())
        await press(pilot, "[")
        assert "1/2" in "\n".join(screen.answers.shown_text()[:3])
        await press(pilot, "escape")
        assert screen.curves.has_focus


@played
async def test_a_new_run_may_begin_from_the_first(root):
    app = Stage(root, lambda: CompareScreen(["2", "1"]))
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app, pilot)
        await press(pilot, "e")
        await until(lambda: getattr(app.screen, "form", None) and app.screen.form.source.label == "run 2")


@played
async def test_what_is_too_long_for_a_terminals_clipboard_is_copied_without_answers(tmp_path, monkeypatch):
    for index in range(2):
        add_run(tmp_path, steps=50, answers=[(f"q{n}", None, "长答案。" * 3000) for n in range(4)], seed=index)
    copied = []
    app = Stage(tmp_path, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=(120, 36)) as pilot:
        monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
        await opened(app, pilot)
        await press(pilot, "y")
        assert "长答案" not in copied[0] and "without the answers" in app.status_text.text


@played
async def test_hostile_names_are_shown_and_not_obeyed(tmp_path):
    for index in range(2):
        add_run(tmp_path, f"evil{index} \x1b[2J\x07[bold]x[/] \u202e名", steps=60)
    app = Stage(tmp_path, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        panes = (screen.curves, screen.results, screen.settings, screen.caution, screen.head)
        shown = "\n".join(line for pane in panes for line in pane.shown_text())
        assert "evil0 \\x1b[2J" in shown and "[bold]" in shown
        assert not any(char in shown for char in "\x1b\x07\u202e")


@played
async def test_a_run_that_goes_on_is_compared_anew(tmp_path):
    add_run(tmp_path, "done", steps=60)
    add_run(tmp_path, "live", steps=60, total=600, state="running", seed=1)
    app = Stage(tmp_path, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        assert screen.curves.picture.curves[1].last_step == 60
        conn = writer(tmp_path / "runs.db")
        known = series.summaries(conn, 2)
        with write(conn):
            series.add_points(conn, 2, {"train/loss": [(61, 0.125)]}, known)
            conn.execute("UPDATE runs SET step = 61 WHERE id = 2")
        await until(lambda: screen.curves.picture.curves[1].last == 0.125)
        await until(lambda: screen.data.comparison.subjects[1].last_step == 61)


@played
async def test_a_run_that_has_not_begun_is_compared_by_what_is_known(tmp_path):
    add_run(tmp_path, "done", steps=60)
    conn = writer(tmp_path / "runs.db")
    values = resolve([Layer("preset quick", {"lora.r": 4})]).config.flat()
    assert queue.add(conn, NewRun(name="waiting", settings=values)) == 2
    app = Stage(tmp_path, lambda: CompareScreen(["1", "2"]))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        assert "lora.r" in "\n".join(screen.settings.shown_text())
        assert "eval loss" in "\n".join(screen.results.shown_text())
        await press(pilot, "v", "left", "y", "b", "m", "m", "t", "l")
        await until(lambda: screen.data.comparison.subjects[0].run_id == 2)
        assert not screen.error
