"""The panes of the compare screen: curves, results, settings that differ, answers, and the gravest warning."""

from dataclasses import dataclass
from typing import Any, Protocol

from textual.message import Message

from engine.base.messages import msg
from engine.compare.comparison_records import Comparison, SettingRow
from engine.present.text import cells, one_line, wrap
from tui.render import comparison_view
from tui.render.line import Line
from tui.widgets.chart_widget import Chart, ChartView
from tui.widgets.pane import Lines
from tui.widgets.scroll import ScrollPane


@dataclass(frozen=True, slots=True)
class CompareData:
    """What the screen shows."""

    comparison: Comparison
    settings: tuple[SettingRow, ...]
    """Every setting of the runs, those that differ and those that do not."""
    metrics: tuple[tuple[str, tuple[str, ...]], ...]
    """What the curves may show: a title and the metric."""


class CompareModel(Protocol):
    """What the panes draw: `tui.screens.compare_screen.CompareScreen` is it."""

    names: tuple[str, ...]
    data: CompareData | None
    """None until the first comparison has been made."""
    error: str
    all_settings: bool

    def shown_metric(self) -> tuple[str, tuple[str, ...]]: ...

    def offered_line(self) -> Line:
        """What may be added, while that is asked for."""


class Head(Lines):
    """What is compared."""

    def __init__(self, model: CompareModel) -> None:
        super().__init__(id="head")
        self._model = model

    def lines(self, width: int, height: int) -> list[Line]:
        names = " · ".join(one_line(name) for name in self._model.names)
        right = "esc back "
        return [
            [
                (" finetop", "title"),
                (f"  compare {names}", "text"),
                (" " * max(width - 19 - cells(names) - len(right), 1), "text"),
                (right, "dim"),
            ]
        ]


class Caution(Lines):
    """The gravest warning; what may be added, while that is asked for."""

    def __init__(self, model: CompareModel) -> None:
        super().__init__(id="caution")
        self._model = model

    def lines(self, width: int, height: int) -> list[Line]:
        if offered := self._model.offered_line():
            return [offered]
        if self._model.error:
            error = self._model.error.replace("\n", " · ")
            return [[(f" ✖ {one_line(error)}", "failed")]]
        warnings = self._model.data.comparison.warnings if self._model.data else ()
        if not warnings:
            return []
        more = msg(" ({more:,} more under Results)", more=len(warnings) - 1) if len(warnings) > 1 else ""
        return [[(f" ! {one_line(warnings[0])}", "warning"), (more, "dim")]]


class Curves(Chart):
    """A curve of each run, in the metric that `m` chooses."""

    number = 1

    def __init__(self, model: CompareModel) -> None:
        super().__init__(ChartView(), id="curves")
        self._model = model

    def title(self) -> Line:
        """The metric and the x axis, once it is known what there is."""
        if self._model.data is None:
            return [("Curves", "title")]
        return [
            (
                msg("Curves: {metric} by {x}", metric=self._model.shown_metric()[0], x=self.views.view.x),
                "title",
            )
        ]

    def body(self, width: int, height: int) -> list[Line]:
        """The chart; until it has been read, that it is being read, and not that there is none."""
        if self._model.data is None:
            return unread(self._model, width)
        lines = self.chart_lines(width, height)
        return lines if self.picture is not None or self.problem else unread(self._model, width)


def unread(model: CompareModel, width: int) -> list[Line]:
    """In place of what has not been read: that it is being read, or why it cannot be."""
    role = "failed" if model.error else "dim"
    return [[(f" {text}", role)] for text in wrap(model.error or "reading …", max(20, width - 2))]


class ComparePane(ScrollPane):
    """Lines about the comparison, once there is one."""

    scope = "compare"

    def __init__(self, model: CompareModel, id: str) -> None:
        super().__init__(id)
        self._model = model

    def hint(self) -> str:
        return f"↓ {self.below} more" if self.below else ""

    def content(self, width: int) -> list[Line]:
        """The comparison; until it has been made, that it is being read, or why it cannot be."""
        if self._model.data is not None:
            return self.comparison_lines(self._model.data, width)
        return unread(self._model, width)

    def comparison_lines(self, data: CompareData, width: int) -> list[Line]:
        """All lines of a comparison, for a pane of so many cells."""
        raise NotImplementedError


class Results(ComparePane):
    """Scores of all, with how sure the differences are."""

    number = 2

    def title(self) -> str:
        return "Results"

    def head(self, width: int) -> list[Line]:
        return comparison_view.result_head(self._model.data.comparison, width) if self._model.data else []

    def comparison_lines(self, data: CompareData, width: int) -> list[Line]:
        return comparison_view.result_lines(data.comparison, width)


class SettingsPane(ComparePane):
    """The settings that differ, or all."""

    number = 3

    def title(self) -> str:
        """Which settings are shown."""
        return "All settings" if self._model.all_settings else "Settings that differ"

    def head(self, width: int) -> list[Line]:
        return comparison_view.setting_head(self._model.data.comparison.subjects, width) if self._model.data else []

    def comparison_lines(self, data: CompareData, width: int) -> list[Line]:
        """The settings that differ and how many do not, or all."""
        differing, subjects = data.comparison.settings, data.comparison.subjects
        if self._model.all_settings:
            return comparison_view.setting_lines(data.settings, subjects, width, 0)
        return comparison_view.setting_lines(differing, subjects, width, max(len(data.settings) - len(differing), 0))


class AnswersPane(ComparePane):
    """The answers, laid out on a worker thread: marking and wrapping 50 long ones takes a second."""

    number = 4

    class LaidOut(Message):
        """The lines of all answers, and where each prompt begins."""

        def __init__(self, key: Any, lines: list[Line], begins: list[int]) -> None:
            self.key, self.lines, self.begins = key, lines, begins
            super().__init__()

    def __init__(self, model: CompareModel, id: str) -> None:
        super().__init__(model, id)
        self._key: Any = None
        """What was laid out last: the comparison and the width."""
        self._laid_out: list[Line] = []
        self._begins: list[int] = []
        self.which = ""
        """Which prompts are shown, one of `comparison_view.WHICH_ANSWERS`."""

    def title(self) -> str:
        if not self.which or self._model.data is None:
            return "Answers to the same prompts"
        answers = self._model.data.comparison.answers
        shown = len(comparison_view.chosen_answers(answers, self.which))
        return msg("Answers {which}, {shown} of {total}", which=self.which, shown=shown, total=len(answers))

    def next_choice(self) -> None:
        """Show other prompts: all, those that differ, those where the first scores better."""
        choices = comparison_view.WHICH_ANSWERS
        self.which = choices[(choices.index(self.which) + 1) % len(choices)]
        self.action_list_top()
        self.repaint()

    def comparison_lines(self, data: CompareData, width: int) -> list[Line]:
        """The answers that are laid out already; asks for another layout where comparison or width differ."""
        answers, subjects = data.comparison.answers, data.comparison.subjects
        if not answers:
            names = " ".join(one_line(subject.asked) for subject in subjects)
            texts = (
                "No answers were sampled while these runs trained: eval.prompts or eval.metrics asks for that.",
                msg("finetop sample {names} --prompt TEXT lets them answer now.", names=names),
            )
            return [[(" " + part, "dim")] for text in texts for part in wrap(text, max(20, width - 2))]
        if not (answers := comparison_view.chosen_answers(answers, self.which)):
            return [[(msg(" there are no answers {which}: o shows others", which=self.which), "dim")]]
        key = (answers, subjects, width)
        if key != self._key:
            self._key = key

            def work() -> None:
                self.post_message(self.LaidOut(key, *comparison_view.answer_lines(answers, subjects, width)))

            self.run_worker(work, thread=True, exclusive=True, group="answers", exit_on_error=False)
        return self._laid_out or [[(" reading …", "dim")]]

    def on_answers_pane_laid_out(self, message: LaidOut) -> None:
        """Show the lines, unless others were asked for meanwhile."""
        message.stop()
        if message.key is self._key:
            self._laid_out, self._begins = message.lines, message.begins
            self.repaint()

    def jump(self, by: int) -> None:
        """To the next prompt, or the one before."""
        begins = self._begins
        if by > 0:
            goal = next((begin for begin in begins if begin > self._top), None)
        else:
            goal = next((begin for begin in reversed(begins) if begin < self._top), None)
        if goal is not None:
            self.scroll_lines(goal - self._top)
