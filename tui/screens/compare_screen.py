"""Two to four runs or checkpoints side by side: curves, results, settings that differ, answers.

The comparison is made on a worker thread with connections of its own (it may have to read journals that nobody has
imported), the curves come from the feed like every chart. How sure the differences are is added when it is known.
"""

import contextlib
import dataclasses
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual.app import ComposeResult
from textual.dom import DOMNode
from textual.geometry import Region
from textual.message import Message

from engine.base.errors import EngineError
from engine.base.messages import msg
from engine.base.workspace import Workspace
from engine.compare.comparison import compare
from engine.compare.comparison_records import Comparison, SettingRow
from engine.present.numbers import plural
from engine.present.text import cells, one_line
from engine.store import connect, queries
from engine.store.run_records import ACTIVE
from tui.data.snapshot import Snapshot
from tui.render import chart_data, comparison_view
from tui.render.line import Line
from tui.screens.key_screen import KeyScreen, lay
from tui.widgets.bars import Footer, NewsLine
from tui.widgets.chart_widget import Chart, ChartView
from tui.widgets.pane import Lines
from tui.widgets.prompt import Prompt
from tui.widgets.scroll import ScrollPane

MOST = 4
"""Runs side by side: more than four lines cannot be told apart, nor four columns read."""
_AGAIN_SECONDS = 2.0
"""Live runs are compared anew no more often than this."""
_ANSWERS = 50
_CLIPBOARD_BYTES = 74_000
"""Terminals that follow xterm take 100,000 bytes of base64 in one OSC 52, and drop longer ones without a word."""


@dataclass(frozen=True, slots=True)
class CompareData:
    """What the screen shows."""

    comparison: Comparison
    settings: tuple[SettingRow, ...]
    """Every setting of the runs, those that differ and those that do not."""
    metrics: tuple[tuple[str, tuple[str, ...]], ...]
    """What the curves may show: a title and the metric."""


def find(workspace: Workspace, names: Sequence[str]) -> CompareData:
    """Compare, and read what the comparison leaves out. Raises EngineError."""
    comparison = compare(workspace, names, curves=(), answers=_ANSWERS)
    ids = [subject.run_id for subject in comparison.subjects]
    with contextlib.closing(connect.reader(workspace.database)) as conn:
        settings = [
            {} if run_id is None else {one.key: one.value for one in queries.settings(conn, run_id)} for run_id in ids
        ]
        keys: set[str] = set()
        for run_id in ids:
            keys |= queries.series(conn, run_id).keys() if run_id is not None else set()
    everything = tuple(
        SettingRow(key, tuple(own.get(key) for own in settings))
        for key in sorted({key for own in settings for key in own})
    )
    offered = [(chart_data.title(key), (key,)) for key in chart_data.LOSS if key in keys]
    offered += chart_data.metrics(keys)[1:]
    return CompareData(comparison, everything, tuple(offered))


class CompareScreen(KeyScreen):
    """`names` are runs (`41`) and checkpoints (`41@best`); the first is the baseline."""

    own_places = ("compare", "chart", "any")

    class Compared(Message):
        """The comparison has been made; `final` with all that takes longer."""

        def __init__(self, found: CompareData | None, error: str = "", final: bool = True) -> None:
            self.found, self.error, self.final = found, error, final
            super().__init__()

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)[:MOST]
        self.found: CompareData | None = None
        self.error = ""
        self.all_settings = False
        self.metric = 0
        self._full = ""
        self._version: Any = None
        self._compared_at = 0.0
        self._busy = False

    def compose(self) -> ComposeResult:
        self.head = Head(id="head")
        self.curves = Curves(ChartView(), id="curves")
        self.results = Results(id="results")
        self.settings = Settings(id="settings")
        self.answers = AnswersPane(id="answers")
        self.caution = Caution(id="caution")
        self.news_line = NewsLine(id="news")
        self.footer = Footer(id="footer")
        yield from (self.head, self.curves, self.results, self.settings, self.answers, self.caution)
        yield from (self.news_line, self.footer)

    def on_mount(self) -> None:
        self.curves.focus()
        self.load()

    # what is compared

    def load(self) -> None:
        """Make the comparison on a worker thread."""
        self._busy = True
        self._compared_at = time.monotonic()
        workspace, names = self.host.workspace, self.names

        def work() -> None:
            try:
                found = find(workspace, names)
                self.post_message(self.Compared(found, final=False))
                if any(found.comparison.evaluations):
                    from engine.compare.significance import with_evidence  # numpy: 0.1 s

                    found = CompareData(with_evidence(found.comparison), found.settings, found.metrics)
                self.post_message(self.Compared(found))
            except EngineError as error:
                self.post_message(self.Compared(None, f"{error.message} {error.hint}".strip()))
            except Exception as error:  # a fault in the comparison must not end the screen
                self.post_message(self.Compared(None, f"{type(error).__name__}: {error}"))

        self.run_worker(work, thread=True, exclusive=True, group="compare", exit_on_error=False)

    def on_compare_screen_compared(self, message: Compared) -> None:
        self._busy = not message.final
        self.error = message.error
        if message.error and self.found is not None:  # a name that is none was added
            self.names = tuple(subject.asked for subject in self.found.comparison.subjects)
        if message.found is not None:
            before = self.found
            if before is not None and not message.final and before.comparison.evidence:
                return  # the same without its evidence: the whole comes in a moment
            self.found = message.found
        self.show_found()

    def show_found(self) -> None:
        self._show_curves()
        for pane in (self.head, self.results, self.settings, self.answers, self.caution):
            pane.repaint()

    def _show_curves(self) -> None:
        if self.found is None:
            self.curves.repaint()
            return
        (key,) = self.shown_metric()[1]
        self.curves.show(
            [
                chart_data.CurveSpec(
                    subject.run_id,
                    key,
                    index,
                    subject.letter,
                    f"{subject.asked} {subject.title}" + (f" ({subject.state})" if subject.state in ACTIVE else ""),
                    None if subject.is_run else subject.last_step,
                )
                for index, subject in enumerate(self.found.comparison.subjects)
                if subject.run_id is not None
            ],
            self._version,
        )

    def shown_metric(self) -> tuple[str, tuple[str, ...]]:
        offered = self.found.metrics if self.found else ()
        return offered[self.metric % len(offered)] if offered else ("train loss", ("train/loss",))

    def take(self, snapshot: Snapshot) -> None:
        if self.found is None:
            return
        subjects = self.found.comparison.subjects
        known = {run.id: (run.state, run.step, run.eval_loss) for run in snapshot.runs}
        self._version = tuple(
            known.get(subject.run_id, snapshot.taken if subject.state in ACTIVE else None) for subject in subjects
        )
        self._show_curves()
        live = any(subject.state in ACTIVE for subject in subjects)
        if live and not self._busy and time.monotonic() - self._compared_at > _AGAIN_SECONDS:
            self.load()

    # where the panes are

    def on_resize(self) -> None:
        self.place_panes()

    def on_descendant_focus(self) -> None:
        self.place_panes()

    def place_panes(self) -> None:
        panes = {"curves": self.curves, "results": self.results, "settings": self.settings, "answers": self.answers}
        focused = next((name for name, pane in panes.items() if pane is self.focused), "curves")
        regions = layout(*self.app.size, focused, bool(self._full))
        bars = {"head": self.head, "caution": self.caution, "news": self.news_line, "footer": self.footer}
        for name, widget in (panes | bars).items():
            # No size, but not hidden: what has the focus would lose it.
            lay(widget, regions.get(name, Region()))
        self.show_prompt()

    def show_prompt(self) -> None:
        if self.prompt is not None:
            width, height = self.app.size
            lead = min(cells(self.prompt.label) + 3, width // 2)
            lay(self.prompt, Region(lead, height - 2, width - lead, 1))
        self.news_line.repaint()

    def show_news(self) -> None:
        self.news_line.repaint()

    # what the keys do

    def listeners(self) -> list[DOMNode]:
        return [*super().listeners(), self.curves]  # they listen from everywhere on this screen

    def do_chart_metric(self) -> None:
        self.metric += 1
        self.show_found()

    def do_compare_pane1(self) -> None:
        self.curves.focus()

    def do_compare_pane2(self) -> None:
        self.results.focus()

    def do_compare_pane3(self) -> None:
        self.settings.focus()

    def do_compare_pane4(self) -> None:
        self.answers.focus()

    def do_compare_answers(self) -> None:
        (self.curves if self.focused is self.answers else self.answers).focus()

    def do_compare_next_pane(self) -> None:
        self._step_pane(1)

    def do_compare_previous_pane(self) -> None:
        self._step_pane(-1)

    def _step_pane(self, by: int) -> None:
        order = [self.curves, self.results, self.settings, self.answers]
        at = next((index for index, pane in enumerate(order) if pane is self.focused), 0)
        order[(at + by) % len(order)].focus()

    def do_compare_open(self) -> None:
        self._full = "" if self._full else "full"
        self.place_panes()

    def do_any_back(self) -> None:
        if self.give_up() or self.curves.drop_cursor():
            return
        if self._full:
            self.do_compare_open()
        elif self.focused is self.answers:
            self.curves.focus()
        else:
            super().do_any_back()

    def do_compare_all(self) -> None:
        self.all_settings = not self.all_settings
        self.settings.repaint()

    def do_compare_baseline(self) -> None:
        """The next one becomes the first, to which differences are taken."""
        self.names = (*self.names[1:], self.names[0])
        self.load()

    def do_compare_add(self) -> None:
        if len(self.names) >= MOST:
            self.host.say(msg("add: {most} are the most side by side; - leaves one out", most=MOST), "warning")
            return

        def done(text: str) -> None:
            if text.strip():
                self.names = (*self.names, text.strip())
                self.load()

        self.ask(Prompt("add a run or a checkpoint (41, 41@best)", "", done))

    def do_compare_remove(self) -> None:
        if len(self.names) <= 2:
            self.host.say("remove: two are the least that can be compared", "warning")
            return
        self.names = self.names[:-1]
        self.load()

    def do_compare_next_answer(self) -> None:
        self.answers.jump(1)

    def do_compare_previous_answer(self) -> None:
        self.answers.jump(-1)

    def do_compare_copy(self) -> None:
        if self.found is None:
            self.host.say("copy: the comparison is not there yet", "warning")
            return
        text, without = comparison_view.markdown(self.found.comparison), ""
        if len(text.encode()) > _CLIPBOARD_BYTES:
            text = comparison_view.markdown(dataclasses.replace(self.found.comparison, answers=()))
            without = ", without the answers, which are too long for a terminal"
        self.host.copy_to_clipboard(text)
        self.host.say(
            msg(
                "copied as Markdown{without} (if the terminal lets programs copy; w writes it all to a file)",
                without=without,
            )
        )

    def do_compare_export(self) -> None:
        if self.found is None:
            self.host.say("export: the comparison is not there yet", "warning")
            return
        text, root = comparison_view.markdown(self.found.comparison), self.host.workspace.root
        stem = "compare-" + "-".join(re.sub(r"[^\w@.-]+", "_", name)[-40:] for name in self.names)

        def work() -> None:
            try:
                path = write_new(root, stem, text)
                self.app.call_from_thread(self.host.say, msg("written to {path}", path=path))
            except OSError as error:
                self.app.call_from_thread(
                    self.host.say, msg("export to {root}: {strerror}", root=root, strerror=error.strerror), "failed"
                )

        self.run_worker(work, thread=True, group="export", exit_on_error=False)

    def do_compare_new(self) -> None:
        """A new run with the settings of the first."""
        subject = self.found.comparison.subjects[0] if self.found else None
        if subject is None or subject.run_id is None:
            self.host.say("new: the first of these is no run", "warning")
            return
        from tui.screens.new_run_screen import NewRunScreen

        self.app.push_screen(NewRunScreen(source=subject.run_id))


def write_new(folder: Path, stem: str, text: str) -> Path:
    """Write a file under a name that is not taken."""
    for number in range(1, 10_000):
        path = folder / f"{stem}{f'-{number}' if number > 1 else ''}.md"
        with contextlib.suppress(FileExistsError):
            with open(path, "x", encoding="utf-8") as file:
                file.write(text)
            return path
    raise FileExistsError(17, "too many files of that name")


def layout(width: int, height: int, focused: str, full: bool) -> dict[str, Region]:
    """Where everything stands; panes that are not in it are not shown."""
    caution = 1 if height >= 20 else 0
    body = Region(0, 1, width, max(height - 3 - caution, 1))
    regions = {
        "head": Region(0, 0, width, 1),
        "news": Region(0, height - 2, width, 1),
        "footer": Region(0, height - 1, width, 1),
    }
    if caution:
        regions["caution"] = Region(0, height - 3, width, 1)
    if full or focused == "answers" or width < 100 or height < 30:
        return regions | {focused: body}
    above = max(body.height * 3 // 5, 10)
    left = width // 2
    return regions | {
        "curves": Region(0, body.y, width, above),
        "results": Region(0, body.y + above, left, body.height - above),
        "settings": Region(left, body.y + above, width - left, body.height - above),
    }


# panes


class Head(Lines):
    def lines(self, width: int, height: int) -> list[Line]:
        names = " · ".join(one_line(name) for name in self.screen.names)
        right = "esc back "
        return [
            [
                (" finetop", "title"),
                (f"  compare {names}", "text"),
                (" " * max(width - 19 - len(names) - len(right), 1), "text"),
                (right, "dim"),
            ]
        ]


class Caution(Lines):
    """The gravest warning."""

    def lines(self, width: int, height: int) -> list[Line]:
        found = self.screen.found
        if self.screen.error:
            return [[(f" ✖ {one_line(self.screen.error)}", "failed")]]
        warnings = found.comparison.warnings if found else ()
        if not warnings:
            return []
        more = (
            msg(" ({num_warnings} under Results)", num_warnings=plural(len(warnings) - 1, "more"))
            if len(warnings) > 1
            else ""
        )
        return [[(f" ! {one_line(warnings[0])}", "warning"), (more, "dim")]]


class Curves(Chart):
    number = 1

    def title(self) -> Line:
        return [
            (
                msg("Curves: {shown_metric} by {x}", shown_metric=self.screen.shown_metric()[0], x=self.views.view.x),
                "title",
            )
        ]


class _Pane(ScrollPane):
    place = "compare"

    @property
    def found(self) -> CompareData | None:
        return self.screen.found

    def hint(self) -> str:
        return f"↓ {self.below} more" if self.below else ""

    def content(self, width: int) -> list[Line]:
        if self.found is not None:
            return self.made(self.found, width)
        said = self.screen.error or "reading …"
        return [[(f" {one_line(said)}", "failed" if self.screen.error else "dim")]]

    def made(self, found: CompareData, width: int) -> list[Line]:
        raise NotImplementedError


class Results(_Pane):
    number = 2

    def title(self) -> str:
        return "Results"

    def head(self, width: int) -> list[Line]:
        return comparison_view.result_head(self.found.comparison, width) if self.found else []

    def made(self, found: CompareData, width: int) -> list[Line]:
        return comparison_view.result_lines(found.comparison, width)


class Settings(_Pane):
    number = 3

    def title(self) -> str:
        return "All settings" if self.screen.all_settings else "Settings that differ"

    def head(self, width: int) -> list[Line]:
        return comparison_view.setting_head(self.found.comparison.subjects, width) if self.found else []

    def made(self, found: CompareData, width: int) -> list[Line]:
        differing, subjects = found.comparison.settings, found.comparison.subjects
        if self.screen.all_settings:
            return comparison_view.setting_lines(found.settings, subjects, width, 0)
        return comparison_view.setting_lines(differing, subjects, width, max(len(found.settings) - len(differing), 0))


class AnswersPane(_Pane):
    """The answers, laid out on a worker thread: marking and wrapping 50 long ones takes a second."""

    number = 4

    class LaidOut(Message):
        def __init__(self, key: Any, lines: list[Line], begins: list[int]) -> None:
            self.key, self.lines, self.begins = key, lines, begins
            super().__init__()

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id)
        self._key: Any = None
        """What was asked for last: the comparison and the width."""
        self._laid_out: list[Line] = []
        self._begins: list[int] = []

    def title(self) -> str:
        return "Answers to the same prompts"

    def made(self, found: CompareData, width: int) -> list[Line]:
        answers, subjects = found.comparison.answers, found.comparison.subjects
        if not answers:
            return [[(" no answers were sampled: set eval.prompts or eval.metrics", "dim")]]
        key = (answers, subjects, width)
        if key != self._key:
            self._key = key

            def work() -> None:
                self.post_message(self.LaidOut(key, *comparison_view.answer_lines(answers, subjects, width)))

            self.run_worker(work, thread=True, exclusive=True, group="answers", exit_on_error=False)
        return self._laid_out or [[(" reading …", "dim")]]

    def on_answers_pane_laid_out(self, message: LaidOut) -> None:
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
