"""The main screen says what is so: the words, marks and numbers that people act on."""

from stage import played, until
from test_screen_main import Shown

from engine.store.records import Outcome, RunState
from tui.screens.dialogs import Confirm


@played
async def test_kill_takes_a_waiting_run_off_the_queue_without_asking_and_says_so(filled):
    async with Shown(filled) as shown:
        shown.control.kill = lambda run_id: Outcome(True, run_id, RunState.STOPPED)
        waiting = next(run.id for run in shown.app.snapshot.runs if run.state is RunState.QUEUED)
        await shown.go(waiting)
        await shown.press("X")
        await until(lambda: shown.news == f"taken off the queue: {waiting}")
        assert not isinstance(shown.app.screen, Confirm)
