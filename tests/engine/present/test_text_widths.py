"""One place wraps, cuts and pads, right at every width: nothing is wider than its room, and nothing is lost but what a
sign stands for."""

import time
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from wcwidth import wcswidth

from engine.present.text import cells, char_by_char, cut, fit, one_line, wrap
from tui.render.line import crop_line, fit_line, line_cells
from tui.screens.main_layout import arrange
from tui.widgets.pane import framed

TEXTS = st.text(
    st.sampled_from("ab  \n\t-/·…中文字한é\u0301👩\u200d🚀👍\U0001f3fd❤\ufe0f🇩🇪\x1b\u200b\u202e\u00a0"), max_size=60
) | st.text(max_size=60)
WIDTHS = st.integers(-5, 60) | st.integers(60, 500)


@given(TEXTS, WIDTHS, st.sampled_from(("", "  ", "· ")))
def test_lines_are_never_wider_than_their_room_and_hold_the_whole_text(text, width, indent):
    lines = wrap(text, width, indent, indent)
    assert all(cells(line) <= max(width, 0) for line in lines)
    if width >= 2 + cells(indent):
        shown = "".join(line.removeprefix(indent.rstrip()) for line in lines)
        assert [char for char in shown if not char.isspace()] == [
            char for char in "".join(map(one_line, text.split("\n"))) if not char.isspace()
        ]


@given(TEXTS, WIDTHS)
def test_cut_and_fit_and_lines_keep_to_their_width(text, width):
    text, room = one_line(text), max(width, 0)
    assert cells(cut(text, width)) <= room and all(cells(fit(text, width, way)) == room for way in "<>^")
    assert line_cells(fit_line([(text, "a"), (text, "b")], room)) == room
    assert line_cells(crop_line([(text, "a")], 3, room)) == room


@given(TEXTS)
def test_what_is_shown_has_a_certain_width_and_in_a_line_a_character_for_each(text):
    # Spacing marks, of Indic scripts above all: no width of one character alone is right in every terminal, and Textual
    # lays them out, as we do, without one.
    assume(not any(unicodedata.category(char) == "Mc" for char in text))
    assert wcswidth(one_line(text)) == cells(one_line(text))
    shown = char_by_char(text)
    assert len(shown) == len(text) and shown.isprintable() and wcswidth(shown) == cells(shown)


@given(st.integers(20, 500), st.integers(5, 120), st.sampled_from(("", "runs", "run", "gpus")), st.integers(-50, 50))
def test_panes_fill_the_terminal_and_do_not_overlap(width, height, zoomed, grow):
    layout = arrange(width, height, zoomed, grow)
    regions = [*layout.panes.values(), layout.header, layout.news, layout.footer]
    covered = [
        (x, y) for region in regions for x in range(region.x, region.right) for y in range(region.y, region.bottom)
    ]
    assert len(covered) == len(set(covered)) == width * height
    for region in layout.panes.values():
        assert region.width >= 40 and region.height >= 5
        framing = framed([[("x" * (region.width - 2), "text")]], region.width, [("标题" * 300, "title")], "h" * 600)
        assert {line_cells(line) for line in framing} == {region.width}


@pytest.mark.parametrize("text", ["word " * 200_000, "x" * 1_000_000, "中" * 300_000, " " * 1_000_000])
def test_wrapping_a_megabyte_takes_time_in_proportion(text):
    began = time.process_time()
    wrap(text, 20)
    small = time.process_time() - began
    assert small < 30, "seconds of the processor; in proportion to its square it would take hours"
