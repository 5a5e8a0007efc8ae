"""The right part of the new-run screen: all about the setting under the cursor, what is wrong, and what the run takes:
data, tokens, time, memory."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from engine.base.messages import msg
from engine.present.numbers import count
from engine.present.text import cut, one_line, wrap
from engine.settings.schema import SETTINGS
from tui.render.line import Line
from tui.screens import new_run_form
from tui.screens.new_run_parts import NewRun
from tui.widgets.scroll import ScrollPane

_SHORT = 14
"""A pane lower than this shows the essential."""
_MOST_NAMES, _MOST_NAME_LINES = 80, 8


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
        """All of it; shortened where there is little room."""
        screen, short = self._new_run, self.outer_size.height < _SHORT
        editing = screen.editing
        path = editing.path if editing is not None and editing.path else screen.fields.key
        lines = _wrapped("  ".join(_last_parts(screen.names)), width, "bright")[:_MOST_NAME_LINES]
        if path in SETTINGS:
            lines += _about(path, screen, editing.value if editing is not None and editing.path else None, width, short)
        for words in screen.reading.busy.values():
            lines += _wrapped(words, width, "key")
        for wrong, why in screen.problems().items():
            if wrong != path:
                lines += _wrapped(f"✖ {wrong}: {why}", width, "failed")
        for warning in _warnings(screen):
            lines += _wrapped(f"! {warning}", width, "warning")
        lines += [] if short else [[]]
        return [
            *lines,
            *_runs(screen, width),
            *_data(screen, width),
            *_report(screen, width),
            *_memory(screen, width, short),
        ]

    def on_resize(self) -> None:
        self.repaint()


def _wrapped(text: str, width: int, role: str) -> list[Line]:
    return [[(line, role)] for line in wrap(text, width, " ", "   ")] if text else []


def _last_parts(names: Sequence[str]) -> list[str]:
    """What completions differ in: the last parts of paths; names of models are whole."""
    folders = {os.path.dirname(name.rstrip("/")) for name in names}
    if len(folders) > 1:
        return list(names[:_MOST_NAMES])
    return [os.path.basename(name.rstrip("/")) + ("/" if name.endswith("/") else "") for name in names[:_MOST_NAMES]]


def _about(path: str, screen: NewRun, typing: str | None, width: int, short: bool) -> list[Line]:
    setting = SETTINGS[path]
    default = new_run_form.text_of(setting.default) or "—"
    lines: list[Line] = [] if short else [[(f" {path}", "title")]]  # in little room its row says it
    lines += _wrapped(setting.doc, width, "text")
    lines += _wrapped(msg("{kind}; default {default}", kind=new_run_form.kind_of(path), default=default), width, "dim")
    if path == "model.name" and screen.reading.models:
        names = ", ".join(model.name for model in screen.reading.models)
        lines += _wrapped(msg("here: {names}; space chooses", names=names), width, "dim")
    if path == "run.name" and screen.checked.count > 1:
        lines += _wrapped(f"also the name of the group that the {screen.checked.count} runs form", width, "key")
    problem = screen.problem(path) if typing is None else new_run_form.problem_of(path, typing.strip())
    if problem:
        lines += _wrapped(f"✖ {problem}", width, "failed")
    elif typing is not None and (several := len(new_run_form.alternatives(path, typing.strip()))) > 1:
        lines += _wrapped(msg("{several:,} values: a sweep", several=several), width, "key")
    return lines


def _warnings(screen: NewRun) -> list[str]:
    """What of the plan is not as asked, and its advice: as counted by the token report, else what needs no data."""
    report = screen.reading.report
    content = report.content if report is not None else {}
    counted = [piece["message"] for piece in (*content.get("findings", ()), *content.get("advice", ()))]
    return list(dict.fromkeys([*counted, *screen.reading.checks.warnings]))


def _runs(screen: NewRun, width: int) -> list[Line]:
    if screen.checked.count == 1:
        return []
    product = " × ".join(f"{path} {many}" for path, many in screen.checked.varied.items())
    lines = _wrapped(f"{screen.checked.count} runs: {product}", width, "key")
    group = new_run_form.group_name(screen.form)
    lines += _wrapped(msg("   in the group {group}; /group:{group} shows them", group=group), width, "dim")
    for run in screen.checked.runs[:4]:
        lines.append([(f"   {cut(one_line(run.config.run.name), width - 5)}", "dim")])
    if len(screen.checked.runs) > 4:
        lines.append([(msg("   and {num_runs} more", num_runs=len(screen.checked.runs) - 4), "dim")])
    return lines


def _memory(screen: NewRun, width: int, short: bool) -> list[Line]:
    memory = screen.reading.checks.memory
    if isinstance(memory, str):
        return _wrapped(memory, width, "dim")
    from tui.render.memory_lines import memory_lines  # with the plan, which made the view: it is loaded by now

    lines: list[Line] = [[(" ", "text"), *line] for line in memory_lines(memory, width - 1, short)]
    if screen.checked.count > 1:
        lines.append([(" (of the first run)", "dim")])
    return lines


def _data(screen: NewRun, width: int) -> list[Line]:
    data = screen.reading.data
    if data is None:
        return []
    lines: list[Line] = []
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


def _report(screen: NewRun, width: int) -> list[Line]:
    """Tokens, steps, time and cost; before they are counted, the key that counts them."""
    report = screen.reading.report
    if screen.reading.busy:
        return []
    if report is None:
        again = "r counts again: the form was changed" if screen.reading.report_is_old else ""
        first = "r counts tokens, steps, time and cost" if screen.reading.data is not None else ""
        return _wrapped(again or first, width, "dim") if screen.checked.runs else []
    if report.error:
        return _wrapped(f"✖ {report.error}", width, "failed")
    from engine.plan.forecast import forecast_of  # like the next: 60 ms, which opening the form need not pay
    from engine.present.plan_view import forecast_lines

    content, lines = report.content, []
    for side in ("train", "val"):
        counts = content["data"].get(side) or {}
        if counts.get("examples"):
            lines += _wrapped(_tokens(side, counts), width, "text")
            if counts.get("overlong"):
                longer = msg("! {overlong} longer than data.max_length", overlong=count(counts["overlong"]))
                lines += _wrapped(longer, width, "warning")
    plan = content["plan"]
    steps = msg(
        "{total_steps:,} steps, {steps_per_epoch:,} an epoch",
        total_steps=plan["total_steps"],
        steps_per_epoch=plan["steps_per_epoch"],
    )
    for words in (steps, *forecast_lines(forecast_of(content))):
        lines += _wrapped(words, width, "text")
    return lines


def _tokens(side: str, counts: Mapping[str, Any]) -> str:
    return msg(
        "{side}: {examples:,} examples, {tokens:,} tokens, longest {longest:,}",
        side=side,
        examples=counts["examples"],
        tokens=counts["tokens"],
        longest=counts["longest"],
    )
