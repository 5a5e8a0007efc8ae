"""What is drawn, before it is drawn: numbers, widths, the log's end, news, the machine's figures."""

import dataclasses
import itertools

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.color import ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual._compositor import LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip
from wcwidth import wcswidth

from engine.present import numbers
from engine.present.text import cells, cut, fit, gauge, one_line, wrap
from engine.store.run_records import Checkpoint, Event, Run, RunState, Series
from tests.tui.fill import GIB, machine
from tui.data import log_reader
from tui.data.snapshot import DAEMON_STALE_SECONDS, Daemon, News, machine_of
from tui.render.chart_data import title
from tui.render.line import crop_line, fit_line, line_cells
from tui.render.notifications import event_words, since_last_time
from tui.render.run_row import Columns, row_line
from tui.render.theme import ROLES, STATE_STYLES, Palette, choose, speaks_utf8
from tui.settings import read
from tui.terminal.screen_diff import ScreenDiff
from tui.widgets.checkpoints_pane import kept_words
from tui.widgets.gpus_pane import gpu_lines
from tui.widgets.rows import first_shown
from tui.widgets.run_pane import eval_charts

TEXTS = st.text(st.sampled_from("ab 中文，é́ไ🇩🇪❤️👩‍💻👍🏽\t\n\x1b\x07\u202e\u200b[/]█⣿"), max_size=30)


@given(TEXTS, st.integers(0, 20))
def test_every_text_fits_exactly_the_cells_it_is_given(text, width):
    shown = one_line(text)
    assert wcswidth(shown) == cells(shown)
    assert wcswidth(fit(shown, width)) == width
    assert wcswidth(cut(shown, width)) <= width


@given(TEXTS)
def test_nothing_that_a_terminal_would_obey_is_left_in_a_text(text):
    assert not set(one_line(text)) & set("\x1b\x07\n\t\u202e\u200b\u200d")


@given(
    st.lists(st.tuples(TEXTS.map(one_line), st.sampled_from(["text", "dim"])), max_size=4),
    st.integers(0, 12),
    st.integers(0, 24),
)
def test_lines_are_cut_and_scrolled_by_cells(line, start, width):
    assert line_cells(fit_line(line, width)) == width
    assert line_cells(crop_line(line, start, width)) == width


@given(TEXTS, st.integers(2, 20))
def test_wrapped_text_loses_no_character_and_no_line_is_too_wide(text, width):
    lines = wrap(text.replace("\n", " "), width)
    assert all(wcswidth(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(one_line(text.replace("\n", " ")).split())


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (numbers.short_duration(0), "0s"),
        (numbers.short_duration(77), "1m17"),
        (numbers.short_duration(599.6), "10m"),
        (numbers.short_duration(5820), "1h37"),
        (numbers.short_duration(2280), "38m"),
        (numbers.short_duration(7860), "2h11"),
        (numbers.short_duration(273_600), "3d4h"),
        (numbers.short_duration(1e9), "11574d"),
        (numbers.short_duration(None), "·"),
        (numbers.short_duration(float("nan")), "·"),
        (numbers.count(1_048_576), "1,048,576"),
        (numbers.short(11_400), "11.4k"),
        (numbers.short(56_200_000), "56.2M"),
        (numbers.short(999.7), "1.0k"),
        (numbers.short_metric(0.8712), "0.871"),
        (numbers.short_metric(12.414), "12.41"),
        (numbers.short_metric(0.00001), "1e-05"),
        (numbers.short_metric(float("nan")), "nan"),
        (numbers.short_metric(None), "·"),
        (numbers.setting_text(2e-4), "2e-4"),
        (numbers.setting_text(1e-5), "1e-5"),
        (numbers.setting_text(0.001), "1e-3"),
        (numbers.setting_text(0.05), "0.05"),
        (numbers.setting_text(1e8 / 3), "3.33333e7"),
        (numbers.size(62.1 * GIB), "62.1G"),
        (numbers.size(50 << 20), "50M"),
        (numbers.size(384 * GIB), "384G"),
        (numbers.size(80 * GIB, 0), "80G"),
        (numbers.size(168_000_000), "160M"),
        (numbers.size(1_400_000_000), "1.3G"),
        (gauge(0.5, 4), "██··"),
        (gauge(None, 4), "    "),
        (gauge(7.0, 2), "██"),
        (numbers.listed([1]), "1"),
        (numbers.listed([1, 2, 3]), "1, 2 and 3"),
        (numbers.listed([1, 2, 3, 4, 5]), "1, 2, 3 and 2 more"),
    ],
)
def test_numbers_are_written_as_people_read_them(shown, wanted):
    assert shown == wanted


# looks


def test_every_state_has_a_glyph_and_a_word_of_its_own():
    looks = [STATE_STYLES[state] for state in RunState]
    assert len({look.word for look in looks}) == len(looks)
    told = {look.role: look.glyph for look in looks}
    assert len(set(told.values())) == len(told), "what is told by colour is told by the glyph too"


@pytest.mark.parametrize("name", ["dark", "light", "ansi", "mono"])
def test_every_role_has_a_style_in_every_look(name):
    look = Palette(name)
    assert set(look.styles) == set(ROLES)
    if name in ("ansi", "mono"):
        assert all(style.bgcolor is None for style in look.styles.values())
    if name == "mono":
        assert all(style.color is None or style.color.is_default for style in look.styles.values())


@pytest.mark.parametrize(
    ("wanted", "system", "environ", "chosen"),
    [
        ("auto", "truecolor", {}, "dark"),
        ("auto", "truecolor", {"COLORFGBG": "0;15"}, "light"),
        ("auto", "truecolor", {"COLORFGBG": "15;0"}, "dark"),
        ("auto", "standard", {}, "ansi"),
        ("light", "truecolor", {"NO_COLOR": "1"}, "mono"),
        ("dark", None, {}, "mono"),
    ],
)
def test_the_look_follows_the_terminal(wanted, system, environ, chosen):
    assert choose(wanted, system, environ) == chosen


def test_a_locale_without_utf8_is_noticed():
    assert speaks_utf8({}) and speaks_utf8({"LANG": "zh_CN.UTF-8"})
    assert not speaks_utf8({"LC_ALL": "C", "LANG": "en_US.UTF-8"})


# the glass

CELLS = st.text(st.sampled_from("ab中文é█⣿ "), max_size=24)
PAGES = st.lists(
    st.lists(st.tuples(CELLS, st.sampled_from(["text", "failed", "mark", "bright"])), max_size=4),
    min_size=5,
    max_size=5,
)


@given(st.lists(PAGES, min_size=2, max_size=4), st.sampled_from(["dark", "ansi", "mono"]))
def test_a_terminal_that_gets_only_the_changes_shows_the_whole_picture(pages, name):
    """Whatever was there before: the picture after the changes is the one a full paint would have made."""
    look, width = Palette(name), 20
    system = None if name == "mono" else ColorSystem.TRUECOLOR
    glass, after_changes = ScreenDiff(system), pyte.Screen(width, 5)
    for page in pages:
        strips = [look.strip(fit_line(line, width), width) for line in page]
        update = LayoutUpdate([[strip] for strip in strips], Region(0, 0, width, 5))
        pyte.Stream(after_changes).feed(glass.changes(update, width, 5))
        whole = pyte.Screen(width, 5)
        pyte.Stream(whole).feed(ScreenDiff(system).changes(update, width, 5))
        assert _cells(after_changes) == _cells(whole)
        assert glass.changes(update, width, 5) == "", "the same picture again costs nothing"


def _cells(screen: pyte.Screen) -> list[list[tuple]]:
    """What is seen: a blank has no colour but its ground's."""
    return [
        [
            (" ", cell.bg)
            if cell.data == " " and not cell.reverse
            else (cell.data, cell.fg, cell.bg, cell.bold, cell.reverse)
            for cell in (screen.buffer[y][x] for x in range(screen.columns))
        ]
        for y in range(screen.lines)
    ]


def test_one_changed_digit_costs_a_few_bytes():
    glass, style = ScreenDiff(ColorSystem.TRUECOLOR), Style.parse("#C8D0D8 on #101418")

    def page(text: str) -> LayoutUpdate:
        return LayoutUpdate([[Strip([Segment(text, style)])]], Region(0, 0, 20, 1))

    glass.changes(page("step 1240 loss 0.871"), 20, 1)
    assert glass.changes(page("step 1241 loss 0.871"), 20, 1) == "\x1b[1;9H1"


# the log


def test_a_growing_log_is_read_piece_by_piece(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes("一\n  0%|  \r 50%|█\r100%|██\nlast 中".encode()[:-1])
    tail = log_reader.read(path)
    assert tail.lines == ("一", "100%|██") and tail.shown()[-1] == "last \ufffd"
    assert log_reader.read(path, tail) is tail
    with open(path, "ab") as file:
        file.write("中".encode()[-1:] + b" done\nmore\n\n")
    tail = log_reader.read(path, tail)
    assert tail.shown() == ("一", "100%|██", "last 中 done", "more", "")


def test_a_replaced_or_shortened_log_is_read_anew_and_a_missing_one_is_told(tmp_path):
    path = tmp_path / "log.txt"
    assert "no log" in log_reader.read(path).problem
    path.write_text("a\nb\nc\n")
    tail = log_reader.read(path)
    path.write_text("x\n")
    assert log_reader.read(path, tail).shown() == ("x",)


def test_of_a_long_log_only_the_end_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(log_reader, "KEPT_BYTES", 100)
    path = tmp_path / "log.txt"
    path.write_text("".join(f"line {number:04}\n" for number in range(1000)))
    tail = log_reader.read(path)
    assert tail.lines[-1] == "line 0999" and 5 < len(tail.lines) < 12 and tail.lines[0].startswith("line ")
    assert tail.skipped + sum(len(line) + 1 for line in tail.lines) == tail.offset == 10_000


# news, machine, daemon, settings


def run(run_id: int, **fields) -> Run:
    nothing = dict.fromkeys(Run._fields) | {"id": run_id, "name": f"run-{run_id}", "state": RunState.DONE, "data": "d"}
    nothing |= {"sweep": "", "model": "", "busy_seconds": 0.0}
    return Run(**(nothing | {"tags": (), "step": 0} | fields))


def test_who_comes_back_is_told_what_ended_meanwhile_and_the_best():
    runs = [
        run(1, finished=50.0, best_eval=0.9),
        run(2, finished=150.0, best_eval=0.8),
        run(3, finished=160.0, state=RunState.FAILED),
        run(4, state=RunState.RUNNING),
    ]
    assert since_last_time(runs, 100.0) == [
        "1 finished (2)",
        "1 failed (3)",
        "best 2 with eval 0.800, best of 2 on its data",
    ]
    assert since_last_time(runs, 170.0) == []
    worse = run(5, finished=150.0, best_eval=8.72, start_eval=0.073)
    higher = [run(n, finished=150.0, best_eval=n / 10, best_by="macro_f1:max") for n in (6, 7)]
    assert since_last_time([worse], 100.0) == ["1 finished (5)", "never better than at the start: 5"]
    assert since_last_time([*runs, worse], 100.0)[2:] == [
        "best 2 with eval 0.800, best of 3 on its data",
        "never better than at the start: 5",
    ]
    assert since_last_time([runs[1], *higher], 100.0)[-1] == "best 7 with macro_f1 0.700, best of 2 on its data"


def test_a_run_that_got_worse_shows_what_it_was_at_its_start_and_no_star():
    worse = run(1, best_eval=8.72, best_eval_step=30, start_eval=3.073, step=30)
    early = run(2, start_eval=6.469, step=3, state=RunState.STOPPED)
    good = run(3, best_eval=0.5, best_eval_step=30, start_eval=3.073, step=30)
    columns = Columns(80, None, True, (worse, early, good))
    told = ["".join(text for text, _ in row_line(one, columns, False, 0)) for one in (worse, early, good)]
    assert "3.073 at 0" in told[0] and "8.72" not in told[0]
    assert "6.469" not in told[1] and "0.500" in told[2]
    assert len(set(map(line_cells, (row_line(one, columns, False, 0) for one in (worse, early, good))))) == 1
    assert Columns(80, None, True, (good,)).loss == 6
    untrained, trained = (
        Checkpoint(1, step, 0.0, "", 1, ("latest", "best"), {}, None, None, 0.0, False, None, {}) for step in (0, 30)
    )
    assert kept_words(untrained) == "untrained, none better, latest" and kept_words(trained) == "★ best, latest"


def test_the_losses_of_the_sources_are_one_chart():
    keys = ("eval/loss", "eval/loss@web", "eval/loss@books", "eval/accuracy", "eval/accuracy@web", "eval/perplexity")
    series = {key: Series(1, key, 2, 0, 0, 0.5, 10, 0.5, 0, 0.5, 0, 3.0 if "per" in key else 0.5) for key in keys}
    assert eval_charts(series) == [
        ("eval/loss", "eval/loss@books", "eval/loss@web"),
        ("eval/accuracy", "eval/accuracy@web"),
        ("eval/perplexity",),
    ]
    assert title("eval/loss@web") == "eval@web" and title("train/loss") == "train"


def test_an_event_is_told_with_its_reason_and_its_place():
    done = News(Event(1, 1, 0.0, "state", None, "done", {}), run(1, best_eval=0.9), 2, 7)
    assert event_words(done) == ("✔ 1 run-1 finished: eval 0.900, 2nd of 7 runs on this data", "done")
    assert event_words(dataclasses.replace(done, rank=1))[0].endswith("eval 0.900, best of 7 runs on this data")
    worse = dataclasses.replace(done, run=run(1, best_eval=8.72, best_eval_step=30, start_eval=3.073))
    assert event_words(worse) == ("✔ 1 run-1 finished: eval 3.073 at its start, never better", "warning")
    untold = dataclasses.replace(done, run=run(1, start_eval=6.469), rank=0)
    assert event_words(untold) == ("✔ 1 run-1 finished", "done")
    scored = dataclasses.replace(done, run=run(1, best_eval=0.9, best_by="macro_f1:max"))
    assert event_words(scored)[0].endswith("macro_f1 0.900, 2nd of 7 runs on this data")
    failed = News(Event(2, 2, 0.0, "state", None, "failed", {"reason": "loss \x1bbecame NaN"}), run(2))
    assert event_words(failed) == ("✖ 2 run-2 failed: loss \\x1bbecame NaN", "failed")
    assert event_words(News(Event(3, 1, 0.0, "state", None, "starting", {}), run(1))) is None


def test_machine_json_is_read_back_whole_and_unknown_fields_are_passed_over():
    content = machine(1000.0) | {"from_the_future": 1}
    content["gpus"][0]["also_new"] = 2
    found = machine_of(content, 1005.0)
    assert found.gpus[0].utilisation == 98 and found.gpus[0].processes[0].run == 1
    assert found.gpus[0].age_seconds == pytest.approx(5.2) and found.gpus[0].stale


def test_a_daemon_is_stale_when_it_has_been_silent_for_several_beats():
    assert Daemon(True, beat=100.0).silent_seconds(100.0 + DAEMON_STALE_SECONDS) == 0
    assert Daemon(True, beat=100.0).silent_seconds(112.0) == 12
    assert Daemon(False, beat=100.0).silent_seconds(999.0) == 0


def test_what_is_wrong_in_the_settings_file_is_named_and_the_rest_is_used(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text('theme = "light"\nmouse = 3\n[keys]\n"main.stop" = "ctrl+x"\nlist.down = ["j", "ctrl+n"]\n')
    found = read(path)
    assert found.theme == "light" and found.keys == {"main.stop": ("ctrl+x",), "list.down": ("j", "ctrl+n")}
    assert len(found.problems) == 1 and "mouse" in found.problems[0]
    path.write_text("theme = ")
    assert read(path).theme == "auto" and read(path).problems


@given(st.integers(0, 300), st.integers(1, 200), st.integers(1, 40), st.data())
def test_the_cursor_is_always_in_sight_and_no_row_is_passed_over_unseen(top, count, room, data):
    index = data.draw(st.integers(0, count - 1))
    top = first_shown(top, index, count, room)
    assert top <= index < top + room
    for step in data.draw(st.lists(st.integers(-room, room), max_size=20)):  # a page is at most as long as the pane
        index = max(0, min(index + step, count - 1))
        before, top = top, first_shown(top, index, count, room)
        assert top <= index < top + room and 0 <= top <= max(0, count - room)
        assert abs(top - before) <= room


def test_moving_row_by_row_scrolls_once_in_half_a_pane():
    tops = [0]
    for index in [*range(1000), *range(999, -1, -1)]:
        tops.append(first_shown(tops[-1], index, 1000, 16))
    assert sum(a != b for a, b in itertools.pairwise(tops)) <= 2000 / 8
    assert tops[-1] == 0


def test_an_engine_that_answers_is_not_called_a_run():
    content = machine(1000.0, gpus=0)
    taken = {"taken_at": 1000.0, "processes": 1, "cpu_percent": 3.0, "rss_bytes": 2**20}
    content["runs"] = {name: taken | {"run": name} for name in ("3", "starter-43f69e7d")}
    lines = ["".join(text for text, _ in line) for line in gpu_lines(machine_of(content, 1000.0), 80)]
    assert any(line.startswith(" run 3  3% of a core") for line in lines)
    assert any(line.startswith(" engine starter-43f69e7d  3% of a core") for line in lines)
