"""Two to four runs or checkpoints side by side: curves, results, settings that differ, answers.

The comparison is made on a worker thread with connections of its own (it may have to read journals that nobody has
imported), the curves come from the feed like every chart. How sure the differences are is added when it is known.
"""

import contextlib
import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textual.app import ComposeResult
from textual.geometry import Region
from textual.message import Message

from engine.base.errors import EngineError
from engine.base.messages import msg
from engine.base.workspace import Workspace
from engine.compare.comparison import compare
from engine.compare.comparison_records import SettingRow
from engine.present import comparison_report
from engine.present.text import cells
from engine.store import connect, queries
from engine.store.run_records import ACTIVE
from tui.data.feed import Answer
from tui.data.snapshot import Snapshot
from tui.render import chart_data
from tui.render.line import Line
from tui.screens.compare_candidates import asked_run, candidates, candidates_line, checkpoint_names
from tui.screens.compare_layout import layout
from tui.screens.compare_panes import AnswersPane, Caution, CompareData, Curves, Head, Results, SettingsPane
from tui.screens.key_screen import KeyScreen, place
from tui.widgets.bars import Footer, StatusLine
from tui.widgets.pane import Pane
from tui.widgets.prompt import CompletingPrompt

MOST = 4
"""Runs side by side: more than four lines cannot be told apart, nor four columns read."""
_REPEAT_SECONDS = 2.0
"""Live runs are compared again no more often than this."""
_ANSWERS = 50
_CLIPBOARD_BYTES = 74_000
"""Terminals that follow xterm take 100,000 bytes of base64 in one OSC 52, and drop longer ones without a word."""


def read_comparison(workspace: Workspace, names: Sequence[str]) -> CompareData:
    """Compare, and read what the comparison leaves out. Raises EngineError."""
    comparison = compare(workspace, names, curves=(), answers=_ANSWERS)
    ids = [subject.run_id for subject in comparison.subjects]
    with contextlib.closing(connect.reader(workspace.database)) as conn:
        settings = [
            {} if run_id is None else {row.key: row.value for row in queries.settings(conn, run_id)} for run_id in ids
        ]
        keys: set[str] = set()
        for run_id in ids:
            keys |= queries.series(conn, run_id).keys() if run_id is not None else set()
    everything = tuple(
        SettingRow(key, tuple(by_key.get(key) for by_key in settings))
        for key in sorted({key for by_key in settings for key in by_key})
    )
    metrics: list[tuple[str, tuple[str, ...]]] = [
        (chart_data.title(key), (key,)) for key in chart_data.LOSS if key in keys
    ]
    metrics += chart_data.metrics(keys)[1:]
    return CompareData(comparison, everything, tuple(metrics))


class CompareScreen(KeyScreen):
    """`names` are runs (`41`) and checkpoints (`41@best`); the first is the baseline."""

    own_places = ("compare", "chart", "any")

    class Compared(Message):
        """The comparison has been made; `final` with all that takes longer."""

        def __init__(self, data: CompareData | None, error: str = "", final: bool = True) -> None:
            self.data, self.error, self.final = data, error, final
            super().__init__()

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)[:MOST]
        self.data: CompareData | None = None
        self.error = ""
        self.all_settings = False
        self.metric = 0
        self._full = ""
        self._version: Any = None
        self._compared_at = 0.0
        self._busy = False
        self._points: dict[int, Sequence[str]] = {}
        """The names of the checkpoints of runs that were asked for while adding."""

    def compose(self) -> ComposeResult:
        self.head = Head(self)
        self.curves = Curves(self)
        self.results = Results(self, "results")
        self.settings = SettingsPane(self, "settings")
        self.answers = AnswersPane(self, "answers")
        self.caution = Caution(self)
        self.status_line = StatusLine(id="news")
        self.footer = Footer(id="footer")
        self.panes: dict[str, Pane] = {
            "curves": self.curves,
            "results": self.results,
            "settings": self.settings,
            "answers": self.answers,
        }
        yield from (self.head, self.curves, self.results, self.settings, self.answers, self.caution)
        yield from (self.status_line, self.footer)

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
                data = read_comparison(workspace, names)
                self.post_message(self.Compared(data, final=False))
                if any(data.comparison.evaluations):
                    from engine.compare.significance import with_evidence  # numpy: 0.1 s

                    data = CompareData(with_evidence(data.comparison), data.settings, data.metrics)
                self.post_message(self.Compared(data))
            except EngineError as error:
                self.post_message(self.Compared(None, "\n".join(filter(None, (error.message, error.hint)))))
            except Exception as error:  # a fault in the comparison must not end the screen
                self.post_message(self.Compared(None, f"{type(error).__name__}: {error}"))

        self.run_worker(work, thread=True, exclusive=True, group="compare", exit_on_error=False)

    def on_compare_screen_compared(self, message: Compared) -> None:
        """Show a comparison; what was compared before stays where a name turns out wrong."""
        self._busy = not message.final
        self.error = message.error
        shown = tuple(subject.asked for subject in self.data.comparison.subjects) if self.data else ()
        if message.error and shown and shown != self.names:  # a name that is none was added
            self.names, self.error = shown, ""
            self.host.say_whole("compare", message.error, "failed")
        if message.data is not None:
            if self.data is not None and not message.final and self.data.comparison.evidence:
                return  # the same without its evidence, which comes in a moment
            self.data = message.data
        self.show_data()

    def show_data(self) -> None:
        """Draw curves and panes again."""
        self._show_curves()
        for pane in (self.head, self.curves, self.results, self.settings, self.answers, self.caution):
            pane.repaint()

    def _show_curves(self) -> None:
        if self.data is None:
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
                for index, subject in enumerate(self.data.comparison.subjects)
                if subject.run_id is not None
            ],
            self._version,
        )

    def shown_metric(self) -> tuple[str, tuple[str, ...]]:
        """The title and the key of the metric that the curves show."""
        metrics = self.data.metrics if self.data else ()
        return metrics[self.metric % len(metrics)] if metrics else ("train loss", ("train/loss",))

    def take(self, snapshot: Snapshot) -> None:
        """Compare again, at most every two seconds, while one of the runs goes on."""
        if self.data is None:
            return
        subjects = self.data.comparison.subjects
        progress: dict[int | None, object] = {run.id: (run.state, run.step, run.eval_loss) for run in snapshot.runs}
        self._version = tuple(
            progress.get(subject.run_id, snapshot.taken if subject.state in ACTIVE else None) for subject in subjects
        )
        self._show_curves()
        live = any(subject.state in ACTIVE for subject in subjects)
        if live and not self._busy and time.monotonic() - self._compared_at > _REPEAT_SECONDS:
            self.load()

    # where the panes are

    def on_resize(self) -> None:
        self.place_panes()

    def on_descendant_focus(self) -> None:
        """Answers take the whole screen while they have the focus."""
        self.place_panes()

    def place_panes(self) -> None:
        """Place all panes for the size of the terminal and for the pane with the focus."""
        focused = next((name for name, pane in self.panes.items() if pane is self.focused), "curves")
        regions = layout(*self.app.size, focused, bool(self._full), isinstance(self.prompt, CompletingPrompt))
        bars = {"head": self.head, "caution": self.caution, "news": self.status_line, "footer": self.footer}
        for name, widget in (self.panes | bars).items():
            # No size, but not hidden: what has the focus would lose it.
            place(widget, regions.get(name, Region()))
        self.place_prompt()

    def place_prompt(self) -> None:
        """The line for a text, where the status text stands otherwise."""
        if self.prompt is not None:
            width, height = self.app.size
            lead = min(cells(self.prompt.label) + 3, width // 2)
            place(self.prompt, Region(lead, height - 2, width - lead, 1))
        self.status_line.repaint()
        self.caution.repaint()

    def show_prompt(self) -> None:
        self.place_panes()

    def status_changed(self) -> None:
        self.status_line.repaint()

    # what the keys do

    def listeners(self) -> Sequence[object]:
        """Also the curves, from everywhere on this screen."""
        return [*super().listeners(), self.curves]

    def action_chart_metric(self) -> None:
        """Show the next metric."""
        self.metric += 1
        self.show_data()

    def action_compare_pane(self, name: str) -> None:
        """Go to a pane by its name."""
        self.panes[name].focus()

    def action_compare_answers(self) -> None:
        """Go to the answers, and back."""
        (self.curves if self.focused is self.answers else self.answers).focus()

    def action_compare_step_pane(self, by: int) -> None:
        """The next pane, the answers too."""
        order = list(self.panes.values())
        at = next((index for index, pane in enumerate(order) if pane is self.focused), 0)
        order[(at + by) % len(order)].focus()

    def action_compare_open(self) -> None:
        """The pane with the focus on the whole screen, and back."""
        self._full = "" if self._full else "full"
        self.place_panes()

    def action_any_back(self) -> None:
        """One step back; the last closes the screen."""
        if self.give_up() or self.curves.drop_cursor():
            return
        if self._full:
            self.action_compare_open()
        elif self.focused is self.answers:
            self.curves.focus()
        else:
            super().action_any_back()

    def action_compare_all(self) -> None:
        """All settings, or those that differ."""
        self.all_settings = not self.all_settings
        self.settings.repaint()

    def action_compare_baseline(self) -> None:
        """The next one becomes the first, to which differences are taken."""
        self.names = (*self.names[1:], self.names[0])
        self.load()

    def action_compare_add(self) -> None:
        """Ask for one more run or checkpoint."""
        if len(self.names) >= MOST:
            self.host.say(msg("add: {most} are the most side by side; - leaves one out", most=MOST), "warning")
            return

        def add(text: str) -> None:
            if text.strip():
                self.names = (*self.names, text.strip())
                self.load()

        self.open_prompt(CompletingPrompt("add a run or checkpoint", self.offered, add, self._typed))

    def offered(self, text: str) -> list[str]:
        """What may be added, as far as it is typed."""
        return candidates(text, self.host.snapshot.runs, self._points, self.names)

    def offered_line(self) -> Line:
        """The same, to be shown while it is asked for."""
        if not isinstance(self.prompt, CompletingPrompt):
            return []
        return candidates_line(self.offered(self.prompt.value), self.host.snapshot.runs)

    def _typed(self, text: str) -> None:
        """Ask for the checkpoints of a run as soon as its number stands there."""
        run_id = asked_run(text)
        if run_id is not None and run_id not in self._points:
            self.host.feed.query(
                "compare checkpoints", lambda conn: (run_id, checkpoint_names(queries.checkpoints(conn, run_id)))
            )
        self.caution.repaint()

    def answered(self, answer: Answer) -> None:
        """Offer the checkpoints of a run."""
        if answer.key == "compare checkpoints" and answer.value is not None:
            run_id, self._points[run_id] = answer.value
            self.caution.repaint()

    def action_compare_remove(self) -> None:
        """Leave out the last; two stay."""
        if len(self.names) <= 2:
            self.host.say("remove: two are the least that can be compared", "warning")
            return
        self.names = self.names[:-1]
        self.load()

    def action_compare_step_answer(self, by: int) -> None:
        """The answers to the next prompt at the top of their pane."""
        self.answers.jump(by)

    def action_compare_only(self) -> None:
        """Only some of the answers: those that differ, those where the first scores better; and all again."""
        self.answers.next_choice()

    def action_compare_copy(self) -> None:
        """Copy it as Markdown, without the answers where a terminal would not take them."""
        if self.data is None:
            self.host.say("copy: the comparison is not there yet", "warning")
            return
        text = comparison_report.markdown(self.data.comparison)
        words = "copied as Markdown (if the terminal lets programs copy; w writes it all to a file)"
        if len(text.encode()) > _CLIPBOARD_BYTES:
            text = comparison_report.markdown(dataclasses.replace(self.data.comparison, answers=()))
            words = (
                "copied as Markdown, without the answers, which are too long for a terminal"
                " (if the terminal lets programs copy; w writes it all to a file)"
            )
        self.host.copy_to_clipboard(text)
        self.host.say(words)

    def action_compare_export(self) -> None:
        """Write it as Markdown into the workspace."""
        if self.data is None:
            self.host.say("export: the comparison is not there yet", "warning")
            return
        text, root = comparison_report.markdown(self.data.comparison), self.host.workspace.root
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

    def action_compare_new(self) -> None:
        """A new run with the settings of the first."""
        subject = self.data.comparison.subjects[0] if self.data else None
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
