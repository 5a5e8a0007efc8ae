"""The main screen says what is so: the words, marks and numbers that people act on."""

import dataclasses

from engine.store import run_lifecycle
from engine.store.run_records import Outcome, RunState
from tests.tui.conftest import NOW
from tests.tui.fill import Filler
from tests.tui.screens.test_main_screen import Shown
from tests.tui.stage import played, until
from tui.data.feed import Updated
from tui.screens.dialogs import Confirm


@played
async def test_kill_takes_a_waiting_run_off_the_queue_without_asking_and_says_so(filled):
    async with Shown(filled) as shown:
        shown.control.kill = lambda run_id: Outcome(True, run_id, RunState.STOPPED)
        waiting = next(run.id for run in shown.app.snapshot.runs if run.state is RunState.QUEUED)
        await shown.go(waiting)
        await shown.press("X")
        await until(lambda: shown.news == f"taken off the queue: {waiting} · u puts it back")
        assert not isinstance(shown.app.screen, Confirm)


@played
async def test_the_loss_of_a_run_that_trains_and_of_one_that_has_ended_are_told_apart(filled):
    async with Shown(filled) as shown:
        pane, runs = shown.main.runs, {run.id: run for run in shown.app.snapshot.runs}

        def row(start: str) -> str:
            return next(text for text in pane.shown_text() if text.strip("┃▌ ✓").startswith(start)).strip("┃ ")

        assert row("RUNNING").endswith("train") and f"{runs[1].train_loss:.3f}" in row("●   1")
        assert row("FINISHED").endswith("best eval") and f"{runs[3].best_eval:.3f}" in row("✔   3")
        await shown.press("s")
        await until(lambda: shown.app.snapshot.view.sort == "eval")
        await shown.pilot.pause()
        assert "eval" in pane.shown_text()[1] and f"{runs[1].best_eval:.3f}" in row("●   1")
        assert runs[1].best_eval != runs[1].train_loss


@played
async def test_the_age_of_the_last_event_grows_by_the_minute_and_needs_no_key(filled):
    async with Shown(filled) as shown:
        line, snapshot = shown.main.status_line, shown.app.snapshot
        shown.app.pause(True)  # from here on the pictures are those of this test
        shown.app.messages.show("✔ 3 finished", "done", snapshot.taken - 30)
        line.repaint()
        assert line.shown_text()[0].strip() == "✔ 3 finished"
        for later, age in ((31, "1m"), (60, "1m"), (95, "2m"), (7200, "2h00")):
            await shown.app.on_updated(Updated(dataclasses.replace(snapshot, taken=snapshot.taken + later)))
            assert line.shown_text()[0].strip() == f"✔ 3 finished · {age} ago"


@played
async def test_scores_are_not_drawn_on_the_axis_of_the_loss(tmp_path):
    filler = Filler(tmp_path)
    run_id = filler.add("scored")
    filler.train(run_id, 10)
    scores = {"eval/loss": 7.5, "eval/perplexity": 1800.0, "eval/accuracy": 0.96, "eval/macro_f1": 0.5}
    filler.journal(run_id, {"kind": "eval", "step": 10, "values": scores})
    async with Shown(tmp_path) as shown:
        pane = shown.main.run
        await shown.go(run_id)
        await shown.press("3", "]")
        seen = []
        for _ in range(3):
            seen.append([wanted.key for wanted in pane._curves])
            await shown.press("m")
        assert seen == [["eval/loss"], ["eval/accuracy", "eval/macro_f1"], ["eval/perplexity"]]
        assert pane.tab == "LR"
    filler.close()


@played
async def test_the_footer_names_only_keys_that_do_something_here(filled):
    async with Shown(filled, readonly=True) as shown:
        footer = shown.main.footer

        def said() -> str:
            return footer.shown_text()[0].strip()

        assert "enter open" in said() and "stop" not in said() and "new" not in said()
        await shown.press("?")
        await until(lambda: said().startswith("j k move · esc back"))
        await shown.press("escape")
        await until(lambda: "enter open" in said())
        await shown.press("3", "enter")
        await until(lambda: said().startswith("esc back  m metric  l log y  z smooth  t x axis"))
        assert "enter open" not in said()


@played
async def test_a_run_that_evaluates_or_saves_says_so_in_place_of_its_share(tmp_path):
    filler = Filler(tmp_path)
    run_id = filler.add("busy")
    filler.train(run_id, 10)
    async with Shown(tmp_path) as shown:
        for event, words in (
            ({"kind": "beat", "next": 60, "doing": "evaluating"}, "evaluating"),
            ({"kind": "metric", "step": 20, "values": {"train/loss": 1.0}}, "run   1%"),
        ):
            filler.journal(run_id, event)
            await until(lambda words=words: words in " ".join(shown.main.runs.shown_text()))
    filler.close()


@played
async def test_while_a_text_is_asked_for_the_footer_names_its_keys_and_a_held_run_how_it_is_released(filled):
    async with Shown(filled) as shown:
        held = next(run.id for run in shown.app.snapshot.runs if run.held)
        await shown.go(held)
        await until(lambda: "It is held: h releases it" in " ".join(shown.main.run.shown_text()))
        await shown.press("o")
        assert shown.main.footer.shown_text()[0].strip() == "enter takes it  esc leaves it as it was"
        await shown.press("escape")
        assert "enter open" in shown.main.footer.shown_text()[0]


@played
async def test_events_of_the_last_day_show_their_time_and_earlier_ones_their_date(tmp_path):
    filler = Filler(tmp_path, NOW)
    run_id = filler.add("told")
    filler.train(run_id, 10)
    filler.journal(
        run_id,
        {"t": NOW - 90_000, "kind": "event", "event": "retry", "message": "once more"},
        {"t": NOW, "kind": "memory", "peak_bytes": 1 << 31, "micro_tokens": 64},
    )
    async with Shown(tmp_path) as shown:
        await shown.go(run_id)
        shown.main.run.go("Events")
        text = await until(lambda: "\n".join(shown.main.run.shown_text()))
        assert "14:13:20    memory     2.0 GiB at most; 64 tokens a pass" in text
        assert "09-20 13:13 retry      once more" in text
    filler.close()


@played
async def test_the_epoch_is_that_of_the_last_step_not_of_the_last_checkpoint(filled):
    async with Shown(filled) as shown:
        run = shown.app.snapshot.run(1)
        assert (run.step, f"{run.epoch:.2f}") == (1240, "1.71")
        await until(lambda: "epoch 1.77" in " ".join(shown.main.run.shown_text()))


@played
async def test_the_log_tells_between_its_lines_what_became_of_the_run(tmp_path):
    filler = Filler(tmp_path, NOW)
    run_id = filler.add("told", created=NOW - 90_000)
    run_lifecycle.claim(filler.conn, run_id)
    folder = filler.folder(run_id)

    def prints(text: str) -> None:
        with open(folder / "log.txt", "a") as file:
            file.write(text)

    def becomes(state: str, ago: float, **more) -> None:
        size = (folder / "log.txt").stat().st_size
        filler.journal(run_id, {"t": NOW - ago, "kind": "state", "state": state, "log_bytes": size, **more})

    prints("")
    becomes("starting", 600)
    prints("loading 训练\n")
    becomes("running", 590)
    prints("a warning\n 10%|\r 90%|###")  # a progress bar, which has no line break yet
    becomes("failed", 500, reason="out of memory")
    prints("\nTraceback\n")
    becomes("starting", 400)
    filler.journal(run_id, {"t": NOW - 399, "kind": "resume", "from_step": 40})
    prints("again\n")
    filler.journal(run_id, {"t": NOW - 300, "kind": "event", "event": "oom", "message": "not told here", "step": 41})
    filler.conn.execute("UPDATE runs SET state = 'interrupted', finished = ?, reason = 'lost' WHERE id = 1", (NOW,))
    prints("last words\n")
    async with Shown(tmp_path) as shown:
        await shown.go(run_id)
        shown.main.run.go("Log")
        await until(lambda: "last words" in "\n".join(shown.main.run.shown_text()))
        said = [text.strip("│┃ ") for text in shown.main.run.shown_text()[2:-1]]
    assert [text for text in said if text] == [
        "── 2026-09-20 13:13 ○ queued",
        "── 14:03:20 ● started",
        "loading 训练",
        "── 14:03:30 ● running",
        "a warning",
        "90%|###",
        "── 14:05:00 ✖ failed: out of memory",
        "Traceback",
        "── 14:06:40 ● started again, attempt 2",
        "── 14:06:41 ● goes on from step 40",
        "again",
        "last words",
        "── 14:13:20 ! interrupted: lost",
    ]
    filler.close()
