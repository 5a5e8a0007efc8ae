"""What the actions need of the main screen, and the words for a run's state in what they say."""

from collections.abc import Callable
from typing import Any, Protocol

from engine.store.run_records import Run, RunState
from tui.host import Host
from tui.widgets.checkpoints_pane import CheckpointsPane
from tui.widgets.run_pane import RunPane
from tui.widgets.runs_pane import RunsPane


class RunScreen(Protocol):
    """`tui.screens.main_screen.MainScreen` is it."""

    runs: RunsPane
    run: RunPane
    checkpoints: CheckpointsPane

    @property
    def host(self) -> Host: ...

    @property
    def chosen(self) -> list[Run]:
        """The marked runs, or else the one under the cursor."""

    def ask(self, label: str, text: str, done: Callable[[str], Any]) -> None: ...


_ENDED_WORDS = {
    RunState.DONE: "has already finished",
    RunState.STOPPED: "has been stopped",
    RunState.FAILED: "has failed",
    RunState.INTERRUPTED: "was interrupted",
}


def state_words(run: Run) -> str:
    """A run's state as the end of a sentence that begins with it."""
    if run.ended:
        return _ENDED_WORDS[run.state]
    return "is still waiting" if run.state is RunState.QUEUED else "is running"
