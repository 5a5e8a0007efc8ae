"""The parts of the new-run screen: a row for each setting, all about the one under the cursor, and the line in which it
is edited."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from engine.base.messages import msg, msg_n
from engine.present.numbers import count, duration
from engine.present.text import cells, cut, fit, one_line, wrap
from engine.settings.schema import SETTINGS
from tui.data.data_preview import DataPreview
from tui.render.line import Line
from tui.screens import new_run_form
from tui.screens.new_run_form import Checked, Form, FormChecks
from tui.widgets.pane import Lines
from tui.widgets.prompt import Prompt
from tui.widgets.rows import Row, Rows
from tui.widgets.scroll import ScrollPane

SOURCE = "start from"
"""The key of the first row."""
_SHORT = 14
"""A pane lower than this shows the essential."""
_GROUPS = ("data", *dict.fromkeys(path.split(".")[0] for path in SETTINGS if not path.startswith("data.")))
"""The data first: it is what every new run needs."""


class NewRun(Protocol):
    """What the parts read of their screen, `tui.screens.new_run_screen.NewRunScreen`."""

    form: Form
    checked: Checked
    form_checks: FormChecks
    data: DataPreview | None
    tokens: Mapping[str, Any] | str | None
    reading: str
    """What of the data is being read just now, in words."""
    all_settings: bool
    names: tuple[str, ...]
    """Completions of what is typed."""
    parent_checkpoint: tuple[int, int | str] | None
    fields: "Fields"

    @property
    def editing(self) -> "FieldLine | None": ...

    def problems(self) -> dict[str, str]: ...

    def problem(self, path: str) -> str: ...


class FieldLine(Prompt):
    """The line in which a setting is edited; tab completes."""

    path = ""


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


class Info(ScrollPane):
    """The setting under the cursor, what is wrong, the data, the memory."""

    scope = "form"

    def __init__(self, form: NewRun) -> None:
        super().__init__(id="info")
        self._new_run = form

    def hint(self) -> str:
        return msg("↓ {below} more · tab", below=self.below) if self.below else ""

    def title(self) -> str:
        return "What it takes"

    def content(self, width: int) -> list[Line]:
        """All of it; memory shortened where there is little room."""
        screen = self._new_run
        lines: list[Line] = []
        editing = screen.editing
        path = editing.path if editing is not None and editing.path else screen.fields.key
        if path in SETTINGS:
            lines += _about(path, screen, editing.value if editing is not None and editing.path else None, width)
        if screen.names:
            names = "  ".join(
                os.path.basename(name.rstrip("/")) + ("/" if name.endswith("/") else "") for name in screen.names[:80]
            )
            lines += [[(f" {line}", "text")] for line in wrap(names, width - 2)[:8]]
        problems = screen.problems()
        for wrong, why in problems.items():
            if wrong != path:
                lines += _wrapped(f"✖ {wrong}: {why}", width, "failed")
        report = screen.tokens if isinstance(screen.tokens, dict) else {}
        for warning in [finding["message"] for finding in report.get("findings", ())] or screen.form_checks.warnings:
            lines += _wrapped(f"! {warning}", width, "warning")
        short = self.outer_size.height < _SHORT
        lines += [] if short else [[]]
        lines += [*_runs(screen, width), *_data(screen, width), *_tokens(screen, width)]
        memory = _memory(screen)
        # In little room the parts of the memory are the first to go.
        return lines + (memory[:1] + memory[2:] if short else memory)

    def on_resize(self) -> None:
        self.repaint()


def _wrapped(text: str, width: int, role: str) -> list[Line]:
    return [
        [(f" {line}" if not index else f"   {line}", role)] for index, line in enumerate(wrap(text, max(width - 4, 8)))
    ]


def _about(path: str, screen: NewRun, typing: str | None, width: int) -> list[Line]:
    setting = SETTINGS[path]
    default = new_run_form.text_of(setting.default) or "—"
    lines = [[(f" {path}", "title")], *_wrapped(setting.doc, width, "text")]
    lines += _wrapped(f"{new_run_form.kind_of(path)}; default {default}", width, "dim")
    problem = screen.problem(path) if typing is None else new_run_form.problem_of(path, typing.strip())
    if problem:
        lines += _wrapped(f"✖ {problem}", width, "failed")
    elif typing is not None and (several := len(new_run_form.alternatives(path, typing.strip()))) > 1:
        lines.append([(msg(" {several:,} values: a sweep", several=several), "key")])
    return lines


def _runs(screen: NewRun, width: int) -> list[Line]:
    if screen.checked.count == 1:
        return []
    product = " × ".join(f"{path} {many}" for path, many in screen.checked.varied.items())
    lines = _wrapped(f"{screen.checked.count} runs: {product}", width, "key")
    for run in screen.checked.runs[:4]:
        lines.append([(f"   {cut(one_line(run.config.run.name), width - 5)}", "dim")])
    if len(screen.checked.runs) > 4:
        lines.append([(msg("   and {num_runs} more", num_runs=len(screen.checked.runs) - 4), "dim")])
    return lines


def _memory(screen: NewRun) -> list[Line]:
    lines: list[Line] = [[(" ", "text"), *line] for line in screen.form_checks.memory]
    if lines and screen.checked.count > 1:
        lines.append([(" (of the first run)", "dim")])
    return lines


def _data(screen: NewRun, width: int) -> list[Line]:
    data = screen.data
    lines: list[Line] = [[(f" {screen.reading}", "dim")]] if screen.reading else []
    if data is None:
        return lines
    if data.rows:
        role = "warning" if data.bad_rows else "text"
        lines.append([(f" {count(data.rows)} rows", "bright"), (f", {count(data.bad_rows)} bad", role)])
        for path, kind, rows in data.files[:3]:
            lines.append(
                [
                    (f"   {cut(one_line(os.path.basename(path)), max(width - 30, 10))}", "text"),
                    (f" {kind}, {count(rows)} rows", "dim"),
                ]
            )
        if len(data.files) > 3:
            lines.append([(msg("   and {num_files:,} files more", num_files=len(data.files) - 3), "dim")])
    if data.error:
        lines += _wrapped(f"✖ {data.error}", width, "failed")
    else:
        for problem in data.problems[:3]:
            lines += _wrapped(f"! {problem}", width, "warning")
    return lines


def _tokens(screen: NewRun, width: int) -> list[Line]:
    report = screen.tokens
    if report is None:
        return []
    if isinstance(report, str):
        return _wrapped(f"✖ {report}", width, "failed")
    lines: list[Line] = []
    for side in ("train", "val"):
        counts = report.get("data", {}).get(side) or {}
        if counts.get("examples"):
            words = msg(
                "{side}: {examples:,} examples, {tokens:,} tokens",
                side=side,
                examples=counts["examples"],
                tokens=counts["tokens"],
            )
            words += f", longest {count(counts['longest'])}"
            lines += _wrapped(words, width, "text")
            if counts.get("overlong"):
                lines += _wrapped(
                    msg("! {overlong} longer than data.max_length", overlong=count(counts["overlong"])),
                    width,
                    "warning",
                )
    plan = report.get("plan", {})
    if plan.get("total_steps"):
        steps = msg(
            "{total_steps:,} steps, {steps_per_epoch:,} an epoch",
            total_steps=plan["total_steps"],
            steps_per_epoch=plan["steps_per_epoch"],
        )
        lines += _wrapped(steps, width, "text")
    time = report.get("time") or {}
    if time.get("seconds"):
        off = msg(", off by up to {factor:g}× either way", factor=time["factor"]) if time.get("factor") else ""
        lines += _wrapped(
            msg(
                "takes about {duration} ({source}{off})",
                duration=duration(time["seconds"]),
                source=time.get("from", ""),
                off=off,
            ),
            width,
            "text",
        )
    for advice in report.get("advice") or ():
        lines += _wrapped(f"! {advice.get('message', '')}", width, "warning")
    return lines
