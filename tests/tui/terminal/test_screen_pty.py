"""The screen in a real terminal: what is drawn, how many bytes that takes, and what happens when the terminal does."""

import json
import os
import shutil
import signal
import time

import pytest
from wcwidth import wcswidth

from engine.base.workspace import Workspace
from engine.store import connect, journal_import
from tests.tui.conftest import NOW
from tests.tui.fill import Filler, machine
from tests.tui.real_terminal import Terminal, golden, opened, screen
from tests.tui.svg import svg

SIZES = [(80, 24), (120, 36), (200, 60)]
FROZEN = {"FINETOP_NOW": str(NOW)}


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_the_main_screen_looks_as_on_file(filled, columns, rows):
    with opened(screen(filled, columns, rows, **FROZEN)) as terminal:
        golden(terminal, f"main-{columns}x{rows}.txt", Terminal.text)
        for line in terminal.lines():
            assert wcswidth(line) == columns, line


@pytest.mark.parametrize(
    ("name", "columns", "rows", "theme", "keys", "shows"),
    [
        ("main-dark", 120, 36, "dark", "j v", "2 marked"),
        ("main-ansi", 80, 24, "ansi", "", "‹Loss›"),
        ("failed-light", 120, 36, "light", "#4\r", "What usually helps"),
        ("compare-dark", 120, 36, "dark", "#3\r j c", "Settings that differ"),
    ],
)
def test_the_colours_are_those_on_file(filled, name, columns, rows, theme, keys, shows):
    with opened(screen(filled, columns, rows, "--theme", theme, **FROZEN)) as terminal:
        terminal.send(keys)
        terminal.shows(shows)
        terminal.settled()
        golden(terminal, f"{name}-{columns}x{rows}.svg", lambda terminal: svg(terminal.screen))


def test_without_colour_the_same_is_told_in_glyphs_and_words(filled):
    with opened(screen(filled, 120, 36, NO_COLOR="1", **FROZEN)) as terminal:
        assert b"38;2" not in terminal.raw and b"[31m" not in terminal.raw
        for told in ("● ", "○ ", "✔ ", "✖ ", "run  62%", "held", "done", "out of memory at step 3"):
            assert told in terminal.text()


def test_sixteen_colours_use_the_terminals_own_palette(filled):
    with opened(screen(filled, 120, 36, "--theme", "ansi", **FROZEN)) as terminal:
        assert b"38;2" not in terminal.raw and b"48;2" not in terminal.raw
        assert b"96m" in terminal.raw or b"96" in terminal.raw


LIGHT_GROUND, DARK_GROUND = b"48;2;250;250;247", b"48;2;16;20;24"


@pytest.mark.parametrize(
    ("answer", "colour_variable", "light"),
    [
        ("\x1b]11;rgb:ffff/ffff/ffff\x1b\\", "", True),
        ("\x1b]11;rgb:fa/fa/f7\x07", "15;0", True),
        ("\x1b]11;rgb:1010/1414/1818\x1b\\", "0;15", False),
        ("", "0;15", True),
        ("", "", False),
    ],
)
def test_auto_takes_the_terminals_word_for_its_ground_and_goes_by_the_variable_without_one(
    filled, answer, colour_variable, light
):
    with screen(filled, 80, 24, COLORFGBG=colour_variable, **FROZEN) as terminal:
        terminal.until(lambda: b"\x1b]11;?" in terminal.raw)
        for piece in (answer[:9], answer[9:] + "j"):  # cut in two, and a key behind it
            terminal.send(piece)
            terminal.read(0.02)
        opened(terminal)
        del terminal.raw[:]
        terminal.send("\x0c")
        terminal.settled()
        assert (LIGHT_GROUND in terminal.raw) is light and (DARK_GROUND in terminal.raw) is not light
        assert "rgb" not in terminal.text()
        assert "▌ ●   2 客服助手" in terminal.text(), "the answer is no keys, and the key behind it is heard"


def test_a_chosen_theme_asks_nothing(filled):
    with opened(screen(filled, 80, 24, "--theme", "light", **FROZEN)) as terminal:
        assert b"\x1b]11;?" not in terminal.raw and LIGHT_GROUND in terminal.raw


def test_ascii_draws_with_ascii_only_and_keeps_other_writing(filled):
    with opened(screen(filled, 120, 36, "--ascii", **FROZEN)) as terminal:
        golden(terminal, "main-120x36-ascii.txt", Terminal.text)
        odd = {char for char in terminal.text() if ord(char) > 127 and not "一" <= char <= "鿿"}
        assert odd == set()


def test_a_terminal_without_utf8_gets_ascii(filled):
    with screen(filled, 80, 24, LC_ALL="C", **FROZEN) as terminal:
        terminal.shows("qwen3-8b-sql-lora")
        terminal.settled()
        assert terminal.text().isascii()


def test_a_failed_run_says_why_and_what_helps(filled):
    with opened(screen(filled, 120, 36, **FROZEN)) as terminal:
        terminal.send("#4\r")
        terminal.shows("What usually helps")
        terminal.settled()
        golden(terminal, "failed-120x36.txt", Terminal.text)


def test_a_newcomer_is_told_what_to_do(tmp_path):
    with screen(tmp_path, 80, 24, **FROZEN) as terminal:
        terminal.shows("No runs yet.")
        terminal.settled()
        assert "start one from a preset" in terminal.text()
        assert "daemon ○ not running" in terminal.text()
        assert not (tmp_path / "runs.db").exists(), "looking makes nothing"


def test_too_small_a_terminal_gets_a_notice_and_its_keys_work(filled):
    with screen(filled, 40, 10, **FROZEN) as terminal:
        terminal.shows("40x10")
        terminal.resize(80, 24)
        terminal.shows("qwen3-8b-sql-lora")
        terminal.resize(59, 15)
        terminal.shows("59x15")
        terminal.send("q")
        assert terminal.left() == 0


def test_nothing_is_written_while_nothing_happens(filled):
    with opened(screen(filled, 120, 36, **FROZEN)) as terminal:
        assert terminal.read(3.0) == 0


def test_the_start_and_a_cursor_move_are_cheap(filled):
    with opened(screen(filled, 120, 36, **FROZEN)) as terminal:
        assert terminal.written <= 45_000
        for key in "jkjkj":
            before = terminal.written
            terminal.send(key)
            terminal.read(0.1)
            assert 0 < terminal.written - before <= 300


def test_moving_down_the_list_writes_two_cells_a_row(filled):
    """The panes that show the selected run follow when the cursor rests; until then only the cursor moves."""
    with opened(screen(filled, 120, 36, **FROZEN)) as terminal:
        before = terminal.written
        terminal.send("jjj")
        terminal.read(0.12)
        assert 0 < terminal.written - before <= 3 * 300


def test_two_live_runs_write_less_than_a_kilobyte_a_second(tmp_path):
    filler = Filler(tmp_path)
    runs = [filler.add("first"), filler.add("第二")]
    for run_id in runs:
        filler.train(run_id, 300)
    filler.daemon()
    filler.machine()
    with screen(tmp_path, 120, 36) as terminal:
        terminal.shows("第二")
        terminal.settled(0.8)
        began, before, step = time.monotonic(), terminal.written, 300
        while time.monotonic() - began < 5.0:
            step += 1
            _beat(filler, step)
            for run_id in runs:
                values = {"train/loss": 1.0 + (step % 7) / 10, "train/step_s": 3.1, "train/tokens_per_s": 11400.0}
                filler.journal(run_id, {"t": time.time(), "kind": "metric", "step": step, "values": values})
            terminal.read(0.5)
        rate = (terminal.written - before) / (time.monotonic() - began)
        terminal.shows(f"{step}")
        assert rate <= 1000, bytes(terminal.raw[-3000:])
    filler.close()


def _beat(filler: Filler, step: int) -> None:
    content = machine(time.time())
    content["gpus"][0]["utilisation"] = 90 + step % 9
    content["gpus"][1]["power_watts"] = 370 + step % 11
    path = filler.workspace.machine_state
    path.with_suffix(".new").write_text(json.dumps(content))
    os.replace(path.with_suffix(".new"), path)


def test_a_dumb_terminal_is_refused_in_plain_words(filled):
    with screen(filled, 80, 24, TERM="dumb") as terminal:
        assert terminal.left() == 2
        assert "TERM is 'dumb'" in terminal.text() and "Traceback" not in terminal.text()


def test_a_hang_up_ends_the_screen_and_nothing_else(filled):
    terminal = opened(screen(filled, 80, 24, **FROZEN))
    os.close(terminal.fd)
    deadline = time.monotonic() + 10
    while True:
        pid, status = os.waitpid(terminal.pid, os.WNOHANG)
        if pid:
            break
        assert time.monotonic() < deadline, "it stayed without a terminal"
        time.sleep(0.02)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGHUP)


def test_a_reader_that_stalls_holds_up_nothing_and_gets_the_newest_picture(filled, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(filled, root)
    with opened(screen(root, 120, 36)) as terminal:
        conn = connect.writer(Workspace(root).database)
        for step in range(1300, 1320):  # nobody reads meanwhile: the pty's buffer fills
            line = {
                "t": time.time(),
                "kind": "metric",
                "step": step,
                "values": {"train/loss": 0.5, "train/step_s": 3.1},
            }
            with open(root / "runs/1/journal.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")
            journal_import.import_journal(conn, 1, root / "runs/1")
            terminal.send("GgGg\x0c")  # redraws: much to write
            time.sleep(0.05)
        conn.close()
        terminal.shows("1,319")
        terminal.send("q")
        assert terminal.left() == 0


def test_a_storm_of_resizes_ends_with_a_whole_picture(filled):
    with opened(screen(filled, 120, 36, **FROZEN)) as terminal:
        for turn in range(40):
            terminal.resize(70 + turn * 13 % 120, 17 + turn * 7 % 40)
            terminal.read(0.01)
        terminal.resize(120, 36)
        terminal.settled()
        terminal.send("\x0c")
        terminal.settled()
        golden(terminal, "main-120x36.txt", Terminal.text)


def test_q_leaves_and_says_that_runs_go_on(filled):
    with opened(screen(filled, 120, 36, **FROZEN)) as terminal:
        terminal.send("\x03")
        terminal.shows("q leaves, and runs go on")
        terminal.send("q")
        assert terminal.left() == 0
        assert "2 runs go on · 4 runs wait" in terminal.text()


def test_hostile_names_and_logs_reach_no_terminal(filled):
    with opened(screen(filled, 200, 60, **FROZEN)) as terminal:
        terminal.send("#6\r")
        terminal.shows("Run 6")
        terminal.send("L")
        terminal.shows("not markup")
        terminal.settled()
        assert b"owned\x07" not in terminal.raw and b"\x1b[31mred" not in terminal.raw
        assert "[bold]not markup[/]" in terminal.text() and "\\x1b[31mred" in terminal.text()


def test_the_linux_console_gets_glyphs_that_its_font_has(filled):
    with screen(filled, 80, 24, TERM="linux", COLORTERM="", **FROZEN) as terminal:
        terminal.shows("qwen3-8b-sql-lora")
        terminal.settled()
        assert {char for char in terminal.text() if ord(char) > 127 and not "一" <= char <= "鿿"} == set()
        assert "run  62%" in terminal.text()


def test_what_a_name_holds_is_not_obeyed_while_it_is_edited(filled):
    with opened(screen(filled, 120, 36, **FROZEN)) as terminal:
        terminal.send("#6\rN")
        terminal.shows("name of 6: evil ·[2J·]0;owned· [bold red]名字[/] ·txt")
        terminal.send("\x15\x1b[200~👩\u200d🚀 \x1b[2Jfine\x1b[201~")
        terminal.shows("name of 6: 👩·🚀 fine")
        assert b"owned\x07" not in terminal.raw and "\u202e".encode() not in terminal.raw


def test_the_doctor_tells_the_size_of_this_terminal(filled):
    with opened(screen(filled, 123, 41, **FROZEN)) as terminal:
        terminal.send("!")
        terminal.until(lambda: "looking:" not in terminal.text() and "Doctor" in terminal.text(), 60)
        terminal.send("G")
        terminal.shows("123 by 41")
