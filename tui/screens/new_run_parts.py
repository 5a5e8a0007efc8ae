"""The screen of a new run as its parts know it: the panes, and the object that holds its actions."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from textual.widget import Widget

from tui.host import Host
from tui.screens.new_run_form import Checked, Form
from tui.screens.new_run_reading import Reading
from tui.widgets.prompt import Prompt
from tui.widgets.rows import Rows
from tui.widgets.scroll import ScrollPane


class FieldLine(Prompt):
    """The line in which a setting is edited; tab completes."""

    path = ""


class NewRun(Protocol):
    """`tui.screens.new_run_screen.NewRunScreen`."""

    form: Form
    checked: Checked
    reading: Reading
    earlier: list[Form]
    """The form before each change."""
    first_source: int | str | None
    """What it was opened with."""
    parent_checkpoint: tuple[int, int | str] | None
    all_settings: bool
    names: tuple[str, ...]
    """Completions of what is typed."""
    queueing: str
    """What is being queued, in words; empty while nothing is."""

    @property
    def host(self) -> Host: ...

    @property
    def fields(self) -> Rows: ...

    @property
    def info(self) -> ScrollPane: ...

    @property
    def focused(self) -> Widget | None: ...

    @property
    def editing(self) -> FieldLine | None: ...

    @property
    def pristine(self) -> bool:
        """Whether it is as it was when nothing was typed."""

    def problems(self) -> dict[str, str]:
        """All that is wrong, by setting."""

    def problem(self, path: str) -> str: ...

    def load(self, source: int | str | None, typed: Mapping[str, str], words: str = "") -> None:
        """Start from the settings of a preset or a run, with others typed over them, and say so."""

    def changed(self, form: Form, keep: bool = True) -> None:
        """Show another form."""

    def edit(self, label: str, text: str, done: Callable[[str], Any], path: str = "") -> None:
        """Open a line for a text."""

    def refuse(self, words: str) -> None:
        """Say what cannot be done while something is wrong."""

    def queue(self, held: bool) -> None:
        """Queue all runs of the form."""

    def show_all(self) -> None: ...
