"""The tab Log: a log of any length is searched and read whole, long lines are wrapped, nothing is shown twice."""

import re
from pathlib import Path

import pytest

from engine.store.run_records import RunState
from tests.tui.fill import Filler
from tests.tui.screens.test_main_screen import Shown
from tests.tui.stage import played, until
from tui.data import log_reader
from tui.data.snapshot import Detail
from tui.render.failure_panel import failure_panel
from tui.render.log_tab import LogSheet


@pytest.fixture
def long_log(tmp_path: Path) -> Path:
    """5,000 lines, of which some tenths are held at a time."""
    path = tmp_path / "log.txt"
    path.write_text("".join(f"step {step:07d} Ärger\n" for step in range(5000)), "utf-8")
    return path


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(log_reader, "KEPT_BYTES", 20_000)
    monkeypatch.setattr(log_reader, "_PIECE_BYTES", 1000)


def found(path: Path, text: str, offset: int, direction: int = 1) -> tuple[int, str]:
    """How many lines hold a text, and the one that is gone to."""
    hit = log_reader.find(path, re.compile(text), offset, direction)
    if hit.offset is None:
        return hit.lines, ""
    return hit.lines, path.read_bytes()[hit.offset :].split(b"\n")[0].decode()


def test_a_search_reads_all_of_a_log_and_goes_around_its_ends(long_log):
    assert found(long_log, "step 0000100", 0) == (1, "step 0000100 Ärger")
    size = long_log.stat().st_size
    assert found(long_log, "00[24]99 Ä", size) == (2, "step 0000299 Ärger")
    assert found(long_log, "00[24]99 Ä", size, -1) == (2, "step 0000499 Ärger")
    assert found(long_log, "00[24]99 Ä", 0, -1) == (2, "step 0000499 Ärger")
    assert found(long_log, "nowhere", 0) == (0, "")


def test_a_part_of_a_long_log_is_whole_lines_and_knows_what_lies_around_it(long_log):
    offset = len("step 0000000 Ärger\n".encode()) * 2500
    part = log_reader.read_around(long_log, offset)
    assert part.lines[0].startswith("step ") and part.lines[-1].endswith("Ärger")
    assert part.skipped < offset < part.offset and part.offset + part.beyond == long_log.stat().st_size
    assert "step 0002500 Ärger" in part.lines
    first, last = log_reader.read_around(long_log, 0), log_reader.read_around(long_log, 1 << 40)
    assert (first.skipped, first.lines[0]) == (0, "step 0000000 Ärger")
    assert (last.beyond, last.lines[-1]) == (0, "step 0004999 Ärger")


def test_all_of_a_long_log_is_reached_by_scrolling(long_log):
    sheet = LogSheet()
    sheet.take(log_reader.read(long_log), ())
    seen = set()
    sheet.body(80, 20)
    sheet.follow_end(False)
    for _ in range(1000):
        seen |= {"".join(text for text, _ in line) for line in sheet.body(80, 20)}
        offset = sheet.wanted_part(-19)
        sheet.scroll(-19)
        if offset is not None:
            sheet.show_part(log_reader.read_around(long_log, offset), offset)
        if not sheet.offset:
            break
    seen |= {"".join(text for text, _ in line) for line in sheet.body(80, 20)}
    assert len(seen) == 5000
    assert "0B to" in sheet.where() and sheet.is_part
    sheet.follow_end(True)
    assert "".join(text for text, _ in sheet.body(80, 20)[-1]) == "step 0004999 Ärger"


def test_long_lines_are_wrapped_to_their_end_or_reached_sideways(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("short\nRuntimeError: " + "word " * 40 + "the end\n")
    sheet = LogSheet()
    sheet.take(log_reader.read(path), ())
    lines = ["".join(text for text, _ in line) for line in sheet.body(40, 20)]
    assert lines[0] == "short" and lines[-1].endswith("the end") and max(map(len, lines)) <= 40
    sheet.wraps = False
    assert len(sheet.body(40, 20)) == 2


@played
async def test_what_lies_far_above_the_end_of_a_log_is_found_by_its_keys(tmp_path, long_log):
    filler = Filler(tmp_path / "w")
    run_id = filler.add("one")
    long_log.rename(filler.folder(run_id) / "log.txt")
    async with Shown(tmp_path / "w") as shown:
        await shown.press("L")
        sheet = shown.main.run.logs
        await until(lambda: sheet.tail is not None and sheet.tail.lines)
        assert "100 k" not in sheet.where() and "of " in sheet.where()
        await shown.press("/", *"step", "space", *"0000100", "enter")
        await until(lambda: "1 line holds" in shown.news)
        assert "step 0000100" in "".join(shown.main.run.shown_text())
        await shown.press("/", "x", "escape", "G")
        assert "step 0004999" in "".join(shown.main.run.shown_text())
        await shown.press("g")
        await until(lambda: "step 0000000" in "".join(shown.main.run.shown_text()))


def panel(reason: str, error: str, hint: str, log: list[str]) -> list[str]:
    run = _run(reason)
    detail = Detail(run.id, events=(_event(hint),), error=error)
    return ["".join(text for text, _ in line) for line in failure_panel(run, detail, [], log, 70)]


def _run(reason: str):
    from tests.tui.render.test_values import run  # makes one with the fields it is given

    return run(1, state=RunState.FAILED, reason=reason, started=0.0, finished=0.4)


def _event(hint: str):
    from engine.store.run_records import Event

    return Event(1, 1, 0.0, "ended", None, "", {"hint": hint})


def test_a_failure_says_its_advice_once():
    reason, hint = "/data/gone.jsonl does not exist", "Did you mean /data/there.jsonl?"
    lines = panel(reason, f"{reason}\n{hint}", hint, [reason, hint])
    assert sum(hint in line for line in lines) == 1 and sum("does not exist" in line for line in lines) == 1
    assert "after start" not in "\n".join(lines) and "Last lines" not in "\n".join(lines)
    reason = "SafetensorError: header too large"
    lines = panel(reason, f"Traceback\nsafetensors._rust.{reason}", "The log holds the traceback.", ["x", reason])
    assert sum("SafetensorError" in line for line in lines) == 2, "once above, once in the log"
