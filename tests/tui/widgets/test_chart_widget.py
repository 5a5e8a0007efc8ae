"""Charts on a screen: read on the feed's thread, right whatever the size, quiet while no dot moves."""

import pytest
from textual.app import ComposeResult

from engine.store import chart_queries, series
from engine.store.connect import reader, writer
from engine.store.transactions import write
from tests.tui.stage import Stage, played, press, until
from tests.tui.storefill import add_long_run, add_run
from tui.render.axes import Scale
from tui.render.chart_data import CurveSpec, Request, draw, marks_of
from tui.render.chart_data import metrics as metrics_of
from tui.render.chart_drawing import View
from tui.screens.key_screen import KeyScreen
from tui.widgets.chart_widget import Chart, ChartView

CURVES = (CurveSpec(1, "train/loss"), CurveSpec(1, "eval/loss", 1))


class ChartScreen(KeyScreen):
    """Two charts that are looked at the same way."""

    def __init__(self, *curves: CurveSpec) -> None:
        super().__init__()
        self.curves = curves

    def compose(self) -> ComposeResult:
        views = ChartView()
        self.chart, self.other = Chart(views, id="first"), Chart(views, id="second")
        yield from (self.chart, self.other)

    def on_mount(self) -> None:
        half = self.app.size.height // 2
        for index, chart in enumerate((self.chart, self.other)):
            chart.styles.offset = (0, index * half)
            chart.styles.width, chart.styles.height = self.app.size.width, half
        self.chart.focus()
        self.chart.show(self.curves)
        self.other.show([CurveSpec(1, "train/lr")])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    add_run(folder, "first", steps=300)
    add_run(folder, "live", steps=120, total=400, state="running", seed=1)
    return folder


def text(picture) -> str:
    return "\n".join("".join(span.text for span in row) for row in picture.rows)


async def opened(app, pilot) -> ChartScreen:
    await until(lambda: isinstance(app.screen, ChartScreen) and app.screen.is_mounted)
    await until(lambda: app.screen.chart.picture is not None and app.screen.other.picture is not None)
    await pilot.pause()
    return app.screen


# what is read


@pytest.mark.parametrize("unit", ["step", "tokens", "time"])
def test_every_point_is_inside_the_axis_and_in_order(root, unit):
    conn = reader(root / "runs.db")
    picture = draw(conn, Request(CURVES, View(unit), 100, 20))
    (loss, evaluation) = picture.curves
    for curve in (loss, evaluation):
        places = [mark.x for mark in curve.marks]
        assert places == sorted(places)
        assert picture.x.low <= places[0] and places[-1] <= picture.x.high
    assert loss.last_step == 300 and evaluation.dots


def test_each_step_lies_in_the_column_that_the_axis_gives_it(root):
    """With room for every step a mark lies at its step; without, in the middle of its column."""
    conn = reader(root / "runs.db")
    for columns in (60, 200, 1000):
        x = Scale(0, 300)
        marks = marks_of(chart_queries.chart(conn, 1, "train/loss", columns, low=0, high=300), x, columns)
        for mark in marks:
            for step in (mark.first_step, mark.last_step):
                assert abs(x.share(mark.x) - x.share(step)) <= 1.01 / columns


def test_a_checkpoints_curve_ends_where_it_stands(root):
    picture = draw(reader(root / "runs.db"), Request((CurveSpec(1, "train/loss", until=100),), View(), 300, 20))
    assert picture.curves[0].marks[-1].last_step == 100


def test_a_zoomed_window_is_smoothed_as_the_whole_is(root):
    conn = reader(root / "runs.db")
    whole = draw(conn, Request(CURVES[:1], View(smoothing=0.6), 700, 20)).curves[0]
    part = draw(conn, Request(CURVES[:1], View(smoothing=0.6, zoom=(200, 300)), 700, 20)).curves[0]
    at = {mark.first_step: value for mark, value in zip(whole.marks, whole.smooth, strict=True)}
    assert part.marks[0].first_step >= 200
    for mark, value in zip(part.marks, part.smooth, strict=True):
        assert value == pytest.approx(at[mark.first_step], rel=1e-3)


def test_a_live_run_is_drawn_against_an_end_that_stays(root):
    conn = reader(root / "runs.db")
    assert draw(conn, Request((CurveSpec(2, "train/loss"),), View(), 80, 20)).x.high == 150
    assert draw(conn, Request((CurveSpec(1, "train/loss"),), View(), 80, 20)).x.high == 300


def test_a_metric_that_was_never_logged_is_said(root):
    conn = reader(root / "runs.db")
    assert "no eval/f1 was logged" in text(draw(conn, Request((CurveSpec(1, "eval/f1"),), View(), 60, 10)))
    assert "first comes with the first step" in text(draw(conn, Request((CurveSpec(2, "eval/f1"),), View(), 70, 10)))


def test_metrics_go_from_the_losses_to_the_rest():
    found = metrics_of(["eval/loss", "train/loss", "train/lr", "eval/exact_match", "train/tokens"])
    assert found[0][1] == ("train/loss", "eval/loss")
    assert [keys for _, keys in found[1:]] == [("train/lr",), ("eval/exact_match",)]


def test_old_columns_stay_while_a_long_run_logs_on(tmp_path):
    """On the glass, five hundred more steps change a few cells at the line's end only."""
    run_id = add_long_run(tmp_path, 50_000)
    conn, watch = writer(tmp_path / "runs.db"), reader(tmp_path / "runs.db")
    request = Request((CurveSpec(run_id, "train/loss"),), View(smoothing=0.6), 110, 20)
    before = draw(watch, request)
    known = series.summaries(conn, run_id)
    with write(conn):
        points = [(step, 10 / step**0.5 + 0.5) for step in range(50_001, 50_501)]
        series.add_points(conn, run_id, {"train/loss": points}, known)
    after = draw(watch, request)
    assert before.x == after.x
    changed = [
        column
        for old, new in zip(text(before).split("\n"), text(after).split("\n"), strict=True)
        for column, (one, other) in enumerate(zip(old, new, strict=True))
        if one != other
    ]
    assert changed == [] or max(changed) - min(changed) <= 3


# on the screen


@pytest.mark.parametrize("size", [(120, 36), (80, 24), (30, 10), (20, 8)])
@played
async def test_a_chart_is_drawn_at_any_size(root, size):
    app = Stage(root, lambda: ChartScreen(*CURVES))
    async with app.run_test(size=size) as pilot:
        screen = await opened(app, pilot)
        assert any(0x2800 < ord(char) <= 0x28FF for char in "".join(screen.chart.shown_text()))


@played
async def test_in_ascii_there_is_nothing_but_ascii(root):
    app = Stage(root, lambda: ChartScreen(*CURVES), ascii_only=True)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(app, pilot)
        shown = [app.palette.plain(line) for line in screen.chart.shown_text()]
        assert all(line.isascii() for line in shown) and any("##" in line for line in shown)


@played
async def test_axis_scale_smoothing_zoom_and_cursor_are_shared(root):
    app = Stage(root, lambda: ChartScreen(*CURVES))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        await press(pilot, "left", "left")
        cursor = screen.chart.views.view.cursor
        assert 0 < cursor < 300
        for chart in (screen.chart, screen.other):
            assert any("┊" in line for line in chart.shown_text())
            assert f"step {cursor:,.0f}" in chart.shown_text()[1]
        await press(pilot, "i")
        await until(lambda: screen.other.picture.x != screen.other.picture.whole)
        assert screen.other.picture.x.low <= cursor <= screen.other.picture.x.high
        await until(lambda: screen.chart.picture.x == screen.other.picture.x)
        near = screen.chart.picture.x
        await press(pilot, "i", "a")
        await until(lambda: screen.chart.picture.x == pytest.approx(near))
        await press(pilot, "0")
        await until(lambda: screen.chart.picture.x == screen.chart.picture.whole)
        await press(pilot, "t")
        await until(lambda: screen.other.picture.x.high > 1e6)
        assert screen.chart.views.view.cursor is None
        await press(pilot, "l", "z")
        await until(lambda: "log" in screen.other.shown_text()[1] and "smooth 0.9" in screen.other.shown_text()[1])


@played
async def test_the_cursor_reads_every_curve_and_moves_without_asking_the_store(root):
    app = Stage(root, lambda: ChartScreen(*CURVES))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        before = screen.chart.picture
        await press(pilot, "left", "left", "left")
        assert screen.chart.picture is before
        assert "train" in screen.chart.shown_text()[1] and "eval" in screen.chart.shown_text()[1]


@played
async def test_nothing_is_read_when_nothing_was_logged(root):
    app = Stage(root, lambda: ChartScreen(*CURVES))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        asked = []
        app.feed.query = lambda key, question: asked.append(key)
        screen.chart.show(CURVES, None)
        assert not asked
        screen.chart.show(CURVES, "a new step")
        assert len(asked) == 1


@played
async def test_an_answer_to_an_older_question_is_thrown_away(root):
    app = Stage(root, lambda: ChartScreen(*CURVES))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        old = screen.chart._requested[0]
        screen.chart.show([CurveSpec(1, "train/grad_norm")])
        screen.chart.post_message(Chart.Drawn(old, screen.other.picture))
        await until(lambda: screen.chart.picture is not None and screen.chart.picture.curves[0].name == "gradient norm")


@played
async def test_a_store_that_cannot_be_read_is_said_and_the_picture_stays(root):
    app = Stage(root, lambda: ChartScreen(*CURVES))
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await opened(app, pilot)
        request = screen.chart._requested[0]
        screen.chart.post_message(Chart.Drawn(request, None, "runs.db is locked"))
        await until(lambda: "runs.db is locked" in screen.chart.shown_text()[1])
        assert any("⠤" in line or "⣀" in line or "⠒" in line for line in screen.chart.shown_text())


def test_a_long_run_has_no_more_marks_than_the_chart_has_columns(tmp_path):
    """As many marks for a hundred times the points."""
    short, long = add_long_run(tmp_path, 2_000), add_long_run(tmp_path, 200_000)
    conn = reader(tmp_path / "runs.db")
    found = [draw(conn, Request((CurveSpec(run_id, "train/loss"),), View(), 110, 20)) for run_id in (short, long)]
    sizes = [len(picture.curves[0].marks) for picture in found]
    assert max(sizes) <= 220 and min(sizes) > 60
