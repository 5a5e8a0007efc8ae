"""Charts as pure functions: every row as wide as it should be, values where they belong, nothing that makes it fail."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wcwidth import wcswidth

from tui.render import axes
from tui.render.axes import Scale
from tui.render.braille import Canvas, Mark, smoothed, swatch
from tui.render.chart_drawing import Curve, View, plot, smooth
from tui.render.chart_legend import legend, neighbour, readings, zoomed

any_float = st.floats(allow_nan=True, allow_infinity=True)
values = st.lists(st.one_of(any_float, st.none(), st.floats(0, 10)), max_size=60)
finite = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


def point(x: int, value: float | None) -> Mark:
    finite = value if value is not None and math.isfinite(value) else None
    return Mark(x, finite, finite, finite, finite is None, x, x)


def curve(numbers, series=0, letter="", smoothing=0.0, **more) -> Curve:
    marks = tuple(point(index, value) for index, value in enumerate(numbers))
    return Curve("loss", marks, series, letter, smooth=smooth(marks, smoothing), **more)


def text(row) -> str:
    return "".join(span.text for span in row)


def dots(canvas: Canvas) -> set[tuple[int, int]]:
    """Every dot that is set, by dot column and dot row, read back from the characters."""
    found = set()
    places = {0: (0, 0), 1: (0, 1), 2: (0, 2), 6: (0, 3), 3: (1, 0), 4: (1, 1), 5: (1, 2), 7: (1, 3)}
    for row in range(canvas.height):
        for column, cell in enumerate(canvas.cells(row, ascii_only=False)):
            for bit, (right, down) in places.items():
                if cell and (ord(cell[0]) - 0x2800) >> bit & 1:
                    found.add((column * 2 + right, row * 4 + down))
    return found


@settings(deadline=None)
@given(
    st.lists(values, max_size=4),
    st.integers(0, 70),
    st.integers(0, 20),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 0.6, 0.98]),
    st.sampled_from(["step", "tokens", "time"]),
)
def test_every_row_is_exactly_as_wide_as_asked_whatever_the_data(series, width, height, log, ascii_only, weight, unit):
    curves = [curve(numbers, index, "ABCD"[index], weight) for index, numbers in enumerate(series)]
    picture = plot(curves, width, height, View(unit, log, weight), ascii_only=ascii_only)
    assert len(picture.rows) == height
    assert {wcswidth(text(row)) for row in picture.rows} <= {width}
    if ascii_only and width:
        assert all(text(row).replace("×", "x").isascii() for row in picture.rows)


@settings(deadline=None)
@given(st.lists(st.tuples(any_float, any_float, any_float, any_float), max_size=20), st.booleans())
def test_columns_of_any_numbers_are_drawn_without_failing(columns, log):
    marks = tuple(Mark(*numbers) for numbers in columns)
    picture = plot([Curve("x", marks)], 40, 10, View(log=log))
    assert all(wcswidth(text(row)) == 40 for row in picture.rows)
    readings(picture.curves, 1.0)
    legend(picture.curves, View(cursor=1.0, log=log), picture.x)


@given(finite, st.integers(2, 30), st.integers(1, 12))
def test_the_extremes_of_a_curve_are_on_the_glass(numbers, width, height):
    canvas = Canvas(width, height)
    x, y = Scale(0, max(len(numbers) - 1, 1)), Scale(min(numbers), max(max(numbers), min(numbers) + 1))
    for series in range(4):
        canvas = Canvas(width, height)
        canvas.spread([point(index, value) for index, value in enumerate(numbers)], x, y, series)
        rows = {row for _, row in dots(canvas)}
        assert canvas.row(y, max(numbers)) in rows
        assert canvas.row(y, min(numbers)) in rows


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), any_float, any_float, st.booleans())
def test_a_scale_rises_with_the_value_and_stays_inside(low, high, a, b, log):
    if log:
        low, high = abs(low) + 1e-300, abs(high) + 1e-300
    scale = axes.y_scale(low, high, log, 5)
    assert scale.low <= min(low, high) and scale.high >= max(low, high)
    if math.isnan(a) or math.isnan(b) or math.isinf(a) or math.isinf(b):
        return
    a, b = sorted((a, b))
    assert 0 <= scale.share(a) <= scale.share(b) <= 1


@given(finite, st.integers(1, 39))
def test_old_columns_do_not_move_when_points_arrive(numbers, more):
    """On axes that hold them, points that come later change nothing but the columns beside them."""
    x, y = Scale(0, 100), Scale(-1e6, 1e6)
    marks = [point(index, value) for index, value in enumerate(numbers)]
    before, after = Canvas(40, 6), Canvas(40, 6)
    before.spread(marks[:more], x, y, 0)
    after.spread(marks, x, y, 0)
    edge = after.column(x, min(more, len(marks)) - 1) - 1  # neighbours meet halfway
    assert {dot for dot in dots(before) if dot[0] < edge} == {dot for dot in dots(after) if dot[0] < edge}


@given(st.lists(st.floats(-1e3, 1e3), max_size=30), st.sampled_from([0.3, 0.6, 0.98]))
def test_smoothing_is_tensorboards(numbers, weight):
    """The loop of TensorBoard's line chart, spelled out."""
    expected, last = [], 0.0
    for count, number in enumerate(numbers, 1):
        last = last * weight + (1 - weight) * number
        expected.append(last / (1 - weight**count))
    assert list(smoothed(numbers, weight)) == pytest.approx(expected)


def test_smoothing_starts_at_the_first_value_and_leaves_gaps_out():
    assert list(smoothed([4.0, None, math.nan, 4.0], 0.9)) == pytest.approx([4.0, None, None, 4.0])


def test_nan_leaves_a_hole_in_the_line_and_a_cross_on_the_axis():
    flat = [1.0] * 10 + [math.nan] * 10 + [1.0] * 10
    picture = plot([curve(flat)], 60, 8, View(), Scale(0, 29))
    lines = [text(row) for row in picture.rows]
    drawn = next(line for line in lines if "⠤" in line or "⠉" in line or "⠒" in line or "⣀" in line)
    canvas = drawn[picture.left :].rstrip()
    assert "     " in canvas.strip()
    assert lines[-2].count("×") == 10


def test_without_nan_sparse_points_are_joined():
    picture = plot([curve([1.0, 1.0])], 60, 8, View())
    assert any(len(text(row)[picture.left :].strip()) > 50 for row in picture.rows[:-2])


def test_a_logarithmic_axis_leaves_out_what_it_cannot_show_and_says_so():
    picture = plot([curve([0.0, -1.0, 1.0, 10.0, 100.0])], 60, 10, View(log=True))
    assert picture.notes == ("2 at or below 0 not shown",)
    assert plot([curve([0.0, -1.0])], 60, 10, View(log=True)).columns
    assert "logarithmic" in " ".join(text(row) for row in plot([curve([0.0, -1.0])], 60, 10, View(log=True)).rows)


def test_equal_ratios_are_equally_far_apart_on_a_logarithmic_axis():
    scale = Scale(1.0, 100.0, True)
    assert scale.share(10.0) == pytest.approx(0.5)


def test_each_line_carries_its_letter_at_its_end():
    curves = [curve([3.0, 2.0, 1.0], 0, "A"), curve([3.0, 2.0, 1.0], 1, "B"), curve([1.0, 1.0], 2, "C")]
    lines = [text(row) for row in plot(curves, 60, 10, View()).rows]
    assert {"A", "B", "C"} <= set("".join(lines))


def test_series_are_told_apart_without_colour():
    assert len({swatch(series, 6) for series in range(4)}) == 4
    assert len({swatch(series, 6, ascii_only=True) for series in range(4)}) == 4


def test_a_crossing_shows_the_dots_of_both_lines_and_what_is_faint_stays_behind():
    canvas, unit = Canvas(4, 2), Scale(0, 1)
    canvas.line([point(0, 0.0), point(1, 0.0)], unit, unit, 0)
    canvas.spread([point(0, 0.2), point(1, 0.2)], unit, unit, 1, faint=True)
    assert {cell[1] for cell in canvas.cells(1, False) if cell} == {0}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 500.0, 1000.0], ["0", "500", "1,000"]),
        ([0.5, 1.0, 1.5], ["0.5", "1.0", "1.5"]),
        ([0.0, 2.5, 5.0], ["0.0", "2.5", "5.0"]),
        ([0.0, 5e6, 1e7], ["0", "5M", "10M"]),
        ([1e-5, 2e-5], ["1e-5", "2e-5"]),
        ([-1.0, 0.0, 1.0], ["-1", "0", "1"]),
        ([], []),
    ],
)
def test_labels_are_short_and_tell_ticks_apart(values, expected):
    assert axes.labels(values) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, "0"), (45, "45s"), (300, "5m"), (5400, "1h30"), (86400, "1d"), (100000, "1d3h")]
)
def test_times_on_an_axis(seconds, expected):
    assert axes.time_label(seconds) == expected


@given(st.floats(1e-3, 1e15))
def test_the_end_of_a_growing_axis_lies_beyond_the_data_and_not_far(high):
    end = axes.grown(high)
    assert high <= end * (1 + 1e-9) and end <= high * 1.5001


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12), st.integers(2, 12), st.sampled_from(["step", "time", "tokens"]))
def test_ticks_are_inside_and_few(low, span, count, unit):
    scale = Scale(low, low + span)
    if scale.high <= scale.low:
        return
    for found in (axes.ticks(scale, count), axes.x_ticks(scale, count, unit)):
        assert len(found) <= 3 * count + 3
        assert found == sorted(found)


def test_the_cursor_goes_from_mark_to_mark_and_reads_each_curve():
    curves = [curve([5.0, 4.0, 3.0]), curve([2.0, 1.0], 1)]
    scale = Scale(0, 2)
    assert neighbour(curves, None, -1, scale) == 2
    assert neighbour(curves, 2, -1, scale) == 1
    assert neighbour(curves, 1, -10, scale) == 0
    assert neighbour(curves, 2, 1, scale) == 2
    assert [one.mark.mean for one in readings(curves, 2)] == [3.0, 1.0]
    assert neighbour([], 1, 1, scale) is None


def test_zoom_narrows_around_the_cursor_and_widens_back_to_the_whole():
    whole = Scale(0, 1000)
    window = zoomed(None, whole, 0.5, 800)
    assert window == (400, 900)
    assert zoomed(window, whole, 0.5, 800) == (600, 850)
    assert zoomed(window, whole, 2, None) is None


def test_a_legend_that_is_too_long_cuts_names_and_keeps_letters_and_values():
    curves = [
        replace(curve([1.0, 2.0 + index], index, "ABCD"[index]), name="中文指令微调-基线-lora" * 2, last=2.0 + index)
        for index in range(4)
    ]
    line = text(legend(curves, View(), Scale(0, 1), width=98))
    assert wcswidth(line) <= 98
    assert all(f"{letter} " in line for letter in "ABCD") and "5.000" in line


def test_raw_values_that_are_not_drawn_take_no_room():
    noisy = [5.0 if index % 7 == 0 else 1.0 for index in range(200)]
    rows = {}
    for faint in (True, False):
        picture = plot([curve(noisy, smoothing=0.98)], 60, 20, View(smoothing=0.98), faint=faint)
        drawn = ["".join(s.text for s in row if s.role == "series0").strip() for row in picture.rows[:-2]]
        rows[faint] = sum(map(bool, drawn))
    assert rows[False] > rows[True]


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)).map(sorted), min_size=1, max_size=200))
def test_the_range_that_is_drawn_leaves_out_few_values(pairs):
    lows, highs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    low, high = axes.body(lows, highs)
    most = len(pairs) * 0.02 + 1 if len(pairs) >= 30 else 0
    assert low in lows and high in highs
    assert sum(value < low for value in lows) <= most and sum(value > high for value in highs) <= most


def test_a_spike_at_the_start_leaves_the_rest_of_the_curve_readable_and_says_how_far_it_went():
    spiked = curve([60.0, 44.0, 12.0] + [2.0 - step / 250 for step in range(250)])
    picture = plot([spiked], 70, 14, View())
    rows = [text(row) for row in picture.rows]
    assert picture.notes == ("▲ up to 60.0",)
    assert "▲" in rows[0] and "▲" not in "".join(rows[1:])
    used = sum(any("\u2801" <= char <= "\u28ff" for char in row) for row in rows)
    assert used >= 6, "the curve that comes down from 2 to 1 takes half of the height and more"
    plain = plot([spiked], 70, 14, View(), ascii_only=True)
    assert plain.notes == ("^ up to 60.0",) and "^" in text(plain.rows[0])


def test_what_is_no_spike_is_drawn_whole():
    decay = [11.0 * 0.97**step for step in range(300)]
    few = [8.0, 1.2, 1.1, 1.0, 1.0]
    flat_but_once = [1.0] * 99 + [2.0]
    for numbers in (decay, few, flat_but_once):
        assert plot([curve(numbers)], 70, 14, View()).notes == ()


def test_a_spike_down_and_one_on_a_logarithmic_axis_are_marked_too():
    numbers = [1.0 + step % 7 / 10 for step in range(200)]
    down = plot([curve([*numbers, -50.0])], 70, 14, View())
    assert down.notes == ("▼ down to -50.0",) and "▼" in text(down.rows[down.canvas_height - 1])
    assert plot([curve([*numbers, 1e6])], 70, 14, View(log=True)).notes == ("▲ up to 1M",)
