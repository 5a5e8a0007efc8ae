"""What the list of runs and its keys say: of runs below, columns, filters, folders that are gone, more epochs."""

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.base.workspace import Workspace
from engine.control import Control
from engine.present.text import cells
from engine.store import queries, run_lifecycle
from engine.store.connect import reader
from engine.store.run_records import RunState, SettingValue
from tests.tui.fill import Filler
from tests.tui.render.test_values import run
from tests.tui.screens.test_main_screen import Shown
from tests.tui.screens.test_messages_and_trash import Really
from tests.tui.stage import played, until
from tui.data.snapshot import Detail
from tui.render.line import line_cells
from tui.render.run_row import Columns, row_line
from tui.screens.choice import Choose
from tui.screens.new_run_screen import NewRunScreen
from tui.screens.shared_actions import go_on


@pytest.fixture(autouse=True)
def no_daemon(monkeypatch):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")


def row(shown_run, columns: Columns) -> str:
    line = row_line(shown_run, columns, False, False)
    assert line_cells(line) == columns.width
    return "".join(text for text, _ in line)


def test_numbers_never_touch_the_glyph_and_a_long_reason_takes_the_whole_row():
    many = run(1001, name="nan-run", best_eval=0.954, step=30)
    reason = "GPU 0 has 3.1 GiB free, this run needs about 38.0 GiB"
    waits = run(12, state=RunState.QUEUED, wait_reason=reason, estimate_bytes=600 << 20)
    columns = Columns(100, None, True, (many, waits))
    assert "✔ 1001 nan-run" in row(many, columns)
    assert reason in row(waits, columns)


def test_a_run_that_training_made_no_better_does_not_look_like_a_success():
    worse = run(2, best_eval=8.72, best_eval_step=30, start_eval=5.717)
    better = run(3, best_eval=4.3, best_eval_step=30, start_eval=5.717)
    columns = Columns(80, None, True, (worse, better))
    assert "no better" in row(worse, columns) and " done " in row(better, columns)
    roles = {text: role for text, role in row_line(worse, columns, False, False)}
    assert roles["✔"] == "warning"


def test_a_failed_run_says_what_happened_before_where():
    reason = "/home/lee/models/qwen/model.safetensors was cut short: it has 1.9 MiB of 8.5 MiB"
    failed = run(5, state=RunState.FAILED, reason=reason)
    assert "…/model.safetensors was cut short" in row(failed, Columns(70, None, True, (failed,)))
    assert reason in row(failed, Columns(140, None, True, (failed,)))


def test_memory_stands_under_its_own_heading_and_a_waiting_run_keeps_its_evaluation():
    fresh = run(1, state=RunState.QUEUED, estimate_bytes=600 << 20)
    resumed = run(2, state=RunState.QUEUED, estimate_bytes=600 << 20, best_eval=1.727, best_eval_step=400, step=400)
    assert "~600M" in row(fresh, Columns(58, None, True, (fresh, resumed)))
    for sort, heads in ((None, False), ("eval", False)):
        columns = Columns(80, sort, heads, (fresh, resumed))
        assert "600M" not in row(fresh, columns) and "1.727" in row(resumed, columns)


@pytest.mark.parametrize(
    "sort, title", [("seconds", "took"), ("finished", "ended"), ("model", "model"), ("data", "data")]
)
def test_what_the_list_is_sorted_by_is_a_column(sort, title):
    one = run(1, model="Qwen/Qwen3-8B", data="a.jsonl", started=0.0, finished=90.0, sweep="grid", tags=("a",))
    columns = Columns(58, sort, False, (one,))
    assert title in "".join(text for text, _ in columns.head())
    assert {"took": "1m30", "ended": "01-01", "model": "Qwen3-8B", "data": "a.jsonl"}[title] in row(one, columns)
    wide = "".join(text for text, _ in Columns(140, None, True, (one,)).head())
    assert all(word in wide for word in ("took", "ended", "group", "tags", "data", "model"))


@played
async def test_the_list_says_how_many_runs_lie_below(filled):
    async with Shown(filled, size=(80, 24)) as shown:
        below = len(shown.app.snapshot.runs) - 6
        assert f"↓ {below} more" in shown.main.runs.shown_text()[-1]
        await shown.press("G")
        assert "↓" not in shown.main.runs.shown_text()[-1]


@played
async def test_the_tab_of_checkpoints_says_how_many_lie_below(filled):
    async with Shown(filled, size=(80, 16)) as shown:
        shown.main.run.go("Ckpts")
        pane = shown.main.run
        await until(lambda: "↓" in pane.shown_text()[-1])
        below = int(pane.shown_text()[-1].split("↓ ")[1].split()[0])
        points = [row for row in shown.main.checkpoints.rows if row.key is not None]
        assert below == len(points) - (len(pane.shown_text()) - 4)  # the frame, the tabs and the heading
        await shown.press("3", "G")
        await until(lambda: "↓" not in pane.shown_text()[-1])


@played
async def test_a_word_that_the_filter_does_not_have_is_told(filled):
    async with Shown(filled) as shown:
        shown.main.filter("lr:1e-4")
        await until(lambda: "lr:1e-4 is looked for as text" in " ".join(" ".join(shown.main.runs.shown_text()).split()))
        shown.main.filter("eval<0.98")
        await until(lambda: [run.id for run in shown.app.snapshot.runs] == [3])


@played
async def test_the_order_is_remembered_of_each_workspace(filled, tmp_path):
    async with Shown(filled) as shown:
        await shown.press("s")
        assert shown.app.view.sort == "eval"
    Filler(tmp_path / "other").add("one")
    async with Shown(tmp_path / "other") as shown:
        assert shown.app.view.sort is None
    async with Shown(filled) as shown:
        assert shown.app.view.sort == "eval"


@played
async def test_a_new_run_starts_from_a_checkpoint_of_the_one_in_the_list(filled):
    async with Shown(filled) as shown:
        await shown.go(4)
        await shown.press("f")
        assert "no checkpoint" in shown.news
        await shown.go(3)
        await shown.press("f")
        assert isinstance(shown.app.screen, Choose)
        await shown.press("enter")
        assert isinstance(shown.app.screen, NewRunScreen)


@played
async def test_a_run_that_is_done_is_trained_on_to_as_many_epochs_as_one_says(filled):
    async with Shown(filled) as shown:
        await shown.go(3)
        await shown.press("r", "enter")
        assert "3 so far" in shown.main.prompt_label
        await shown.press("5", "enter")
        await shown.asked("resume", 3, "latest", {"train.epochs": 5})


@played
async def test_a_run_whose_folder_is_gone_says_so_and_can_be_deleted(tmp_path):
    filler = Filler(tmp_path / "w")
    run_id = filler.add("vanished")
    filler.train(run_id, 3)
    filler.finish(run_id, RunState.FAILED, "it failed")
    shutil.rmtree(filler.folder(run_id))
    async with Really(tmp_path / "w") as shown:
        for keys in (("N", "x", "enter"), ("e",), ("o", "x", "enter")):
            await shown.press(*keys)
            await until(lambda: f"the folder of run {run_id} is gone" in shown.news)
            shown.app.messages.show("")
            while shown.app.screen is not shown.main:
                shown.app.pop_screen()
    with Control(Workspace(tmp_path / "w")) as control:
        assert "is gone" in control.resume(run_id).why and control.trash(run_id) and control.purge(run_id)


def test_who_renames_what_another_has_renamed_meanwhile_is_told(tmp_path):
    run_id = Filler(tmp_path).add("old")
    with Control(Workspace(tmp_path)) as first, Control(Workspace(tmp_path)) as second:
        assert first.rename(run_id, "theirs", "old").notes == ()
        assert "'theirs'" in second.rename(run_id, "mine", "old").notes[0]
        assert second.tag(run_id, ["a"], []).notes == () and "'a'" in first.tag(run_id, ["b"], []).notes[0]
    assert queries.run(reader(tmp_path / "runs.db"), run_id).name == "mine"


def test_what_is_written_after_the_database_was_deleted_is_refused_and_not_lost(tmp_path):
    filler = Filler(tmp_path)
    run_id = filler.add("one")
    with Control(Workspace(tmp_path)) as control:
        assert control.rename(run_id, "two")
        for suffix in ("", "-wal", "-shm"):
            Path(f"{tmp_path / 'runs.db'}{suffix}").unlink(missing_ok=True)
        with pytest.raises(Exception, match="is gone"):
            control.rename(run_id, "three")
        Filler(tmp_path).add("one")  # it is back
        assert control.rename(run_id, "four")
    assert queries.run(reader(tmp_path / "runs.db"), run_id).name == "four"


@played
async def test_why_a_checkpoint_is_kept_has_the_room_that_others_leave(tmp_path):
    filler = Filler(tmp_path)
    run_id = filler.add("one")
    run_lifecycle.claim(filler.conn, run_id)
    saved = {"kind": "checkpoint", "step": 30, "path": "checkpoints/step-00000030", "bytes": 1_000_000}
    filler.journal(
        run_id, {"kind": "state", "state": "running"}, saved | {"kept": ["best", "epoch-3", "last-3", "latest"]}
    )
    async with Shown(tmp_path) as shown:
        await until(lambda: shown.main.checkpoints.rows)
        text = "\n".join(shown.main.checkpoints.shown_text())
        assert "★ best, epoch 3, last 3, latest" in text or "files gone: cannot be resumed  " in text
        pane = shown.main.checkpoints
        line = pane._columns(60, "30", "", "0.5", "1M", "★ best, epoch 3, last 3, latest", "31d20h", "")
        assert "latest" in line and cells(line) <= 60


@played
async def test_since_when_the_loss_is_nan_is_said_under_the_chart_and_in_the_list(tmp_path):
    filler = Filler(tmp_path)
    run_id = filler.add("nan-run")
    run_lifecycle.claim(filler.conn, run_id)
    steps = [{"kind": "metric", "step": step, "values": {"train/loss": 1.0}} for step in range(1, 12)]
    lost = {"values": {"train/loss": None}, "nonfinite": {"train/loss": "nan"}}
    steps += [{"kind": "metric", "step": step, **lost} for step in range(12, 31)]
    filler.journal(
        run_id, {"kind": "state", "state": "running"}, *steps, {"kind": "state", "state": "done", "step": 30}
    )
    async with Shown(tmp_path) as shown:
        await until(lambda: "loss NaN since step 12" in " ".join(shown.main.run.shown_text()))
        await until(lambda: "done, loss NaN since step 12" in " ".join(shown.main.runs.shown_text()))


@played
async def test_a_key_in_the_list_and_a_run_that_logs_cost_the_same_however_many_runs_there_are(tmp_path):
    """Counted, not timed: what is called while the cursor goes down by one, and when one run of all has changed."""
    calls = {}
    for amount in (40, 400):
        root = tmp_path / str(amount)
        filler = Filler(root)
        for number in range(amount):
            filler.add(f"run {number}")
        filler.close()
        async with Shown(root) as shown:
            runs, snapshot = shown.main.runs, shown.app.snapshot
            assert len(snapshot.runs) == amount

            def key(runs=runs) -> None:
                runs.action_list_down()

            def news(runs=runs, snapshot=snapshot) -> None:
                first = snapshot.runs[0]._replace(step=snapshot.runs[0].step + 1)
                runs.take(dataclasses.replace(snapshot, runs=(first, *snapshot.runs[1:])))

            key()
            calls[amount] = [calls_of(key), calls_of(news)]
    (key_few, news_few), (key_many, news_many) = calls[40], calls[400]
    assert key_few > 20 and key_many - key_few < 2 * 360  # whether it is a heading, and no text of a row out of sight
    assert news_many - news_few < 12 * 360


def calls_of(work: Callable[[], None]) -> int:
    """Of functions written in Python."""
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    ("total_steps", "settings", "label"),
    [
        (108, {"train.max_steps": 400, "train.epochs": "auto"}, "epochs of run 3, 4 so far; train on to"),
        (400, {"train.max_steps": 400, "train.epochs": 30}, "max steps of run 3, 400 so far; train on to"),
        (108, {"train.max_steps": 0, "train.epochs": 4}, "epochs of run 3, 4 so far; train on to"),
    ],
)
def test_a_run_that_is_done_is_trained_on_by_what_ended_it(total_steps, settings, label):
    done = run(3, step=total_steps, total_steps=total_steps, epoch=4.0)
    values = tuple(SettingValue(path, value, "") for path, value in settings.items())
    labels = []
    host = SimpleNamespace(snapshot=SimpleNamespace(detail=Detail(3, settings=values)))
    go_on(SimpleNamespace(host=host, ask=lambda text, *_: labels.append(text)), done, total_steps, newest=True)
    assert labels == [label]
