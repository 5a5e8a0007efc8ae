"""The left part of the new-run screen: what the form is of, a row for each setting, the line in which it is edited."""

from collections.abc import Sequence

from engine.base.messages import msg, msg_n
from engine.present.numbers import auto_text
from engine.present.text import cells, cut, fit, one_line
from engine.settings.schema import SETTINGS
from tui.render.line import Line
from tui.screens import new_run_form
from tui.screens.new_run_parts import NewRun
from tui.widgets.pane import Lines
from tui.widgets.rows import Row, Rows

SOURCE = "start from"
"""The key of the first row."""
_GROUPS = ("data", *dict.fromkeys(path.split(".")[0] for path in SETTINGS if not path.startswith("data.")))
"""The data first: it is what every new run needs."""


class Head(Lines):
    """How many runs the form makes, and how much is wrong."""

    def __init__(self, form: NewRun) -> None:
        super().__init__(id="head")
        self._new_run = form

    def lines(self, width: int, height: int) -> list[Line]:
        screen = self._new_run
        parent = screen.parent_checkpoint
        what = (
            msg("new run from the weights of {run_id}@{point}", run_id=parent[0], point=parent[1])
            if parent
            else "new run"
        )
        runs = screen.checked.count
        line: Line = [(" finetop", "title"), (f"  {what}", "text")]
        if runs > 1:
            line.append((f" × {runs} runs", "key"))
        if screen.queueing:
            return [[*line, (f"   {screen.queueing}", "warning")]]
        if problems := screen.problems():
            line.append((msg_n("   ✖ {n:,} problem", "   ✖ {n:,} problems", len(problems)), "failed"))
        return [line]


class EditLabel(Lines):
    """What is being edited, left of the line itself."""

    def __init__(self, form: NewRun) -> None:
        super().__init__(id="label")
        self._new_run = form

    def lines(self, width: int, height: int) -> list[Line]:
        editing = self._new_run.editing
        return [[(f" {one_line(editing.label)} = ", "title")]] if editing is not None else []


class Fields(Rows):
    """A row for each setting: those that most runs are made with, those that were typed or are wrong, or all."""

    scope = "form"
    number = 0

    def __init__(self, form: NewRun) -> None:
        super().__init__(id="fields")
        self._new_run = form

    def places(self) -> tuple[str, ...]:
        return ("form", "list")

    def title(self) -> str:
        return "All settings" if self._new_run.all_settings else "Settings"

    def hint(self) -> str:
        return "enter edits · 8,16 makes a sweep"

    def make_rows(self, width: int) -> Sequence[Row]:
        """The rows, by group; the first says where the form starts from."""
        screen = self._new_run
        rows = [Row(SOURCE, _field_line(SOURCE, screen.form.source.label, "", "", False, width))]
        for group in _GROUPS:
            paths = [path for path in SETTINGS if path.startswith(f"{group}.") and self.shows(path)]
            if paths:
                rows.append(Row(None, [("  ", "text"), (group.upper(), "dim")]))
            for path in paths:
                text, problem = screen.form.text(path), screen.problem(path)
                if path in screen.reading.auto:
                    text = auto_text(screen.reading.auto[path])
                note = ""
                if (many := screen.checked.varied.get(path, 1)) > 1:
                    note = f"× {many}"
                elif path not in screen.form.typed:
                    note = screen.form.origin(path)
                rows.append(Row(path, _field_line(path, text, problem, note, path in screen.form.typed, width)))
        if not screen.all_settings:
            rows.append(Row(None, [("  ", "text"), ("a shows all settings", "dim")]))
        return rows

    def shows(self, path: str) -> bool:
        """Whether a setting has a row."""
        screen = self._new_run
        return (
            screen.all_settings or path in new_run_form.USUAL or path in screen.form.typed or bool(screen.problem(path))
        )


def _field_line(label: str, text: str, problem: str, note: str, typed: bool, width: int) -> Line:
    """`  ✖ lora.r   8,x   ← x must be a whole number`."""
    name = min(30, max(width // 3, 16))
    sign, role = ("✖ ", "failed") if problem else ("● ", "key") if typed else ("  ", "text")
    room = max(width - name - 4, 4)
    value = one_line(text) or "—"
    line: Line = [("  ", "text"), (sign, role), (fit(label, name), "text")]
    if problem:
        shown = cut(value, max(room // 3, 4))
        return [*line, (shown, "bright"), (cut(f" ← {one_line(problem)}", room - cells(shown)), "failed")]
    # The end of a path says more than its beginning.
    if "/" in value and cells(value) > room - 2:
        value = "…" + _tail(value, room - 3)
    line.append((cut(value, room), "bright" if typed else "text"))
    left = room - cells(line[-1][0])
    if note and left > cells(note) + 2:
        line += [(" " * (left - cells(note) - 1), "text"), (one_line(note), "key" if note.startswith("×") else "dim")]
    return line


def _tail(text: str, width: int) -> str:
    """As many of the last characters as fit into so many cells."""
    while text and cells(text) > width:
        text = text[1:]
    return text
