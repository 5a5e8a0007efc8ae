"""Pane 3: the selected run in tabs: why it failed, its charts, log, settings and events.

With two panes GPUs and checkpoints are tabs here as well; they are drawn by their own panes, which are not seen then.
"""

import contextlib
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.base.errors import EngineError
from engine.base.messages import msg
from engine.base.workspace import LOG
from engine.monitor.samples import GpuSample
from engine.present.text import cells, one_line, wrap
from engine.store import queries
from engine.store.run_records import Run, RunState, Series
from tui.data.feed import Answer
from tui.data.log_reader import Tail
from tui.data.log_reader import read as read_log
from tui.data.snapshot import Detail, Snapshot
from tui.render.chart_data import LOSS, CurveSpec
from tui.render.failure_panel import failure_panel
from tui.render.line import Line
from tui.render.log_markers import log_markers
from tui.render.log_tab import LogSheet
from tui.render.run_figures import figure_lines, why_no_chart
from tui.render.tab_line import tab_line
from tui.render.text_tabs import ConfigSheet, EventsSheet, Sheet, TextSheet
from tui.widgets.checkpoints_pane import CheckpointsPane
from tui.widgets.gpus_pane import GpusPane
from tui.widgets.log_keys import LOG_ANSWERS, LogKeys
from tui.widgets.rows import Rows
from tui.widgets.scroll import ScrollPane

if TYPE_CHECKING:
    from engine.plan.fixes import Fix

CHARTS: dict[str, tuple[str, ...]] = {
    "Loss": LOSS,
    "Eval": (),  # what the run's evaluations gave, see `eval_charts`
    "LR": ("train/lr",),
    "Grad": ("train/grad_norm",),
    "Tok/s": ("train/tokens_per_s",),
    "VRAM": ("gpu/memory",),
    "RAM": ("host/rss",),
}
_MEMORY = ("VRAM", "RAM")
"""One of them is shown: the memory of the GPUs that the run has, or of the machine where it trains on none."""
WHY, GPUS, POINTS, LOGS, CONFIG, EVENTS = "Why", "GPUs", "Ckpts", "Log", "Config", "Events"
CHART_SECONDS = 0.9
"""Least time between two pictures of a chart that only grew; the numbers beside it come twice a second. Less than a
second, so that every second picture of the feed finds it due."""
_TO_THE_END = 1_000_000
"""More lines than anything here has."""
FAILED = (RunState.FAILED, RunState.INTERRUPTED)
_MOST_CURVES = 4
"""Beyond it curves of one chart are hard to tell apart."""


def eval_charts(series: Mapping[str, Series]) -> list[tuple[str, ...]]:
    """What of a run's evaluations fits on one axis: the losses of the whole and of each source, the scores between 0
    and 1 together, each of the rest (perplexity) alone."""
    losses = sorted(key for key in series if key == "eval/loss" or key.startswith("eval/loss@"))
    keys = sorted(key for key in series if key.startswith("eval/") and key not in losses)
    scores = [key for key in keys if (series[key].low or 0.0) >= 0.0 and (series[key].high or 0.0) <= 1.0]
    charts = [tuple(losses[at : at + _MOST_CURVES]) for at in range(0, len(losses), _MOST_CURVES)]
    charts += [tuple(scores[at : at + _MOST_CURVES]) for at in range(0, len(scores), _MOST_CURVES)]
    return charts + [(key,) for key in keys if key not in scores]


class RunPane(LogKeys):
    """The selected run in tabs; charts are drawn as any chart, the rest as text."""

    scope = "run"
    number = 3

    def __init__(self, gpus: GpusPane, points: CheckpointsPane) -> None:
        super().__init__(id="run")
        self.detail: Detail | None = None
        self.now = 0.0
        self.tab = "Loss"
        self._on_gpu = True
        self.lone = False
        """Two panes only: GPUs and checkpoints are tabs here."""
        self.why, self.config, self.events = TextSheet(), ConfigSheet(), EventsSheet()
        self.fixes: list[Fix] | None = None
        self._gpus, self._points = gpus, points
        self._chosen_tab = "Loss"
        self._eval_chart = 0
        """Which of several the tab Eval shows."""
        self._failure: tuple[int, str] | None = None
        self._follows_at = 0.0
        self._gpu_samples: Sequence[GpuSample] = ()

    def take(self, run: Run | None, snapshot: Snapshot) -> None:
        """Show a run; another run begins at why it failed, or at the tab that was chosen."""
        other = (run.id if run else None) != (self.run.id if self.run else None)
        failed_now = (
            run is not None and run.state in FAILED and (other or self.run is None or self.run.state not in FAILED)
        )
        self.run, self.now = run, snapshot.taken
        detail = snapshot.detail
        self._gpu_samples = snapshot.machine.gpus if snapshot.machine else ()
        self.detail = detail if run is not None and detail is not None and detail.run_id == run.id else None
        if other:
            self.logs, self.fixes, self._failure = LogSheet(), None, None
            self.config.top = self.events.top = self.why.top = 0
        self._on_gpu = self._has_gpu(snapshot)
        if self._chosen_tab in _MEMORY:
            self._chosen_tab = self._memory_tab()
        tabs = self.tabs()
        if other or failed_now or self.tab not in tabs:
            # A run that failed says why first, also one that was being watched; the tab that was chosen comes back with
            # the next run.
            tab = WHY if failed_now and self._chosen_tab in CHARTS else self._chosen_tab
            self.tab = tab if tab in tabs else tabs[0]
        self.ask()
        self.repaint()

    def tabs(self) -> list[str]:
        """The tabs there are for this run."""
        tabs = [WHY] if self.run is not None and self.run.state in FAILED else []
        tabs += [tab for tab in CHARTS if tab not in _MEMORY or tab == self._memory_tab()]
        tabs += [GPUS, POINTS] if self.lone else []
        return [*tabs, LOGS, CONFIG, EVENTS]

    def _memory_tab(self) -> str:
        return "VRAM" if self._on_gpu else "RAM"

    def _has_gpu(self, snapshot: Snapshot) -> bool:
        """Whether the run has, or had, a GPU; for one that has not started, whether the machine has any."""
        series = self.detail.series if self.detail else {}
        if self.run is None or self.run.gpus or "gpu/memory" in series:
            return True
        if self.run.state is not RunState.QUEUED:
            return False
        return snapshot.machine is None or bool(snapshot.machine.gpus)

    def ask(self) -> None:
        """Make what the tab shows, or ask the feed for it."""
        run, tab = self.run, self.tab
        if run is None:
            return
        if tab == CONFIG and self.detail is not None:
            self.config.take(run, self.detail.settings, str(self.host.workspace.runs / str(run.id)))
        if tab == EVENTS and self.detail is not None:
            self.events.take(run, self.detail.events)
        if tab in CHARTS:
            keys = CHARTS[tab]
            if tab == "Eval":
                charts = self._eval_charts()
                keys = charts[self._eval_chart % len(charts)] if charts else ("eval/loss",)
            curves = [CurveSpec(run.id, key, series) for series, key in enumerate(keys)]
            self.show(curves, self._version_of(run, curves))
        if tab in (LOGS, WHY):
            if self.logs.tail is not None:
                self._take_log(self.logs.tail)  # the run may have changed where its log has not
            path, last = self.host.workspace.runs / str(run.id) / LOG, self.logs.tail
            self.host.feed.read("log", lambda: (run.id, read_log(path, last)))
        if tab == WHY and self._failure != (run.id, run.reason or ""):
            self._failure = run.id, run.reason or ""
            self.host.feed.query("fixes", self.fixes_question(run))

    def _version_of(self, run: Run, curves: Sequence[CurveSpec]) -> Hashable:
        """Changes when the chart is worth drawing again: new steps alone make it so once a second."""
        version, now = (run.step, run.state, run.eval_loss), time.monotonic()
        drawn = self._version
        grew = isinstance(drawn, tuple) and drawn != version and drawn[1:] == version[1:]
        if grew and tuple(curves) == self._curves:
            if now < self._follows_at:
                return drawn
            self._follows_at = now + CHART_SECONDS
        return version

    def _eval_charts(self) -> list[tuple[str, ...]]:
        return eval_charts(self.detail.series if self.detail else {})

    def fixes_question(self, run: Run) -> "Callable[[Any], tuple[int, list[Fix], str]]":
        """For the feed: the id of a run that failed, what helps, and the setting that is to be changed first."""
        folder, gpus = self.host.workspace.runs / str(run.id), self._gpu_samples

        def question(conn: Any) -> "tuple[int, list[Fix], str]":
            from engine.plan.fixes import fixes_of, gpu_of, wrong_setting  # 15 ms, when the first failure is looked at

            settings = {setting.key: setting.value for setting in queries.settings(conn, run.id)}
            hints = [str(event.detail.get("hint", "")) for event in queries.events(conn, run.id, limit=500)]
            words = "\n".join([run.reason or "", queries.error(conn, run.id), *hints])
            fixes: list[Fix] = []
            with contextlib.suppress(EngineError):  # no settings to change: the folder is gone
                fixes = fixes_of(conn, run, folder, gpu_of(run, gpus))
            return run.id, fixes, wrong_setting(fixes, words, settings)

        return question

    def answered(self, answer: Answer) -> None:
        """Take the log, or the fixes of a failure, if they are of this run."""
        if answer.key == "log" and answer.value is not None and self.run is not None:
            run_id, tail = answer.value
            if run_id == self.run.id and isinstance(tail, Tail) and self._take_log(tail):
                self.repaint()
        elif answer.key in LOG_ANSWERS:
            self.take_log_answer(answer)
        elif answer.key == "fixes" and answer.value is not None and self.run is not None:
            run_id, fixes, _ = answer.value
            if run_id == self.run.id:
                self.fixes = fixes
                self.repaint()

    def _take_log(self, tail: Tail) -> bool:
        assert self.run is not None
        return self.logs.take(tail, log_markers(self.run, self.detail.events if self.detail else ()))

    def _draw_failure(self, width: int) -> None:
        if self.run is not None:
            lines = self.logs.tail.shown() if self.logs.tail and not self.logs.tail.problem else ()
            self.why.take(failure_panel(self.run, self.detail, self.fixes, lines[-60:], width))

    # what is drawn

    def title(self) -> Line:
        if self.run is None:
            return [("Run", "title")]
        return [(f"Run {self.run.id}  ", "title"), (one_line(self.run.name), "text")]

    def hint(self) -> str:
        if self.tab == POINTS and (below := self._points.rows_below):
            return msg("↓ {below} more · [ ] tab", below=below)
        if not self.has_focus:
            return "[ ] tab"
        if (sheet := self.sheet()) is not None:
            return f"[ ] tab · {sheet.where()}".rstrip(" ·")
        if self.tab not in CHARTS:
            return "[ ] tab"
        amount = len(self._eval_charts()) if self.tab == "Eval" else 1
        more = f" · m {self._eval_chart % amount + 1} of {amount}" if amount > 1 else ""
        return msg("[ ] tab{more} · l log y · z smooth · t x axis · ←→ read", more=more)

    def sheet(self) -> Sheet | None:
        """The text of the tab; None where it is a chart or another pane."""
        return {WHY: self.why, LOGS: self.logs, CONFIG: self.config, EVENTS: self.events}.get(self.tab)

    def places(self) -> tuple[str, ...]:
        """Keys depend on the tab."""
        if self.tab in CHARTS:
            return ("chart", "run")
        if self.tab == LOGS:
            return ("log", "list", "run")
        return ("checkpoints", "list", "run") if self.tab == POINTS else ("list", "run")

    def body(self, width: int, height: int) -> list[Line]:
        """The tabs, and what is in the one shown."""
        if self.run is None:
            return [[], [("   no run is selected", "dim")]]
        lines = [self._tab_line(width)]
        room = height - 1
        if self.tab in CHARTS:
            series = self.detail.series if self.detail else {}
            below = figure_lines(self.run, series, self.now, width, self._logged())
            below = below[: 2 if room > 12 else 1 if room > 7 else 0]
            if self._logged():
                lines += self.chart_lines(width, room - len(below))
            else:
                why = why_no_chart(self.run, self.tab)
                lines += [[], *([("   " + text, "dim")] for text in wrap(why, max(20, width - 6)))]
                lines += [[] for _ in range(room + 1 - len(below) - len(lines))]
            return lines + below
        if self.tab == GPUS:
            return lines + self._gpus.body(width, room)
        if self.tab == POINTS:
            return lines + self._points.lines_at(width, room)
        if self.tab == WHY:
            self._draw_failure(width)
        sheet = self.sheet()
        return lines + (sheet.body(width, room) if sheet else [])

    def clicked(self, x: int, y: int) -> bool:
        """On a tab: it is shown; below, what the pane that is drawn there does."""
        if y > 0:
            taken = self.tab == POINTS and self._points.clicked(x, y - 1)
            if taken:
                self.repaint()  # that pane itself may be out of sight
            return taken
        left = 0
        for text, _ in self._tab_line(self.outer_size.width - 2):
            left += cells(text)
            if left > x:
                if text.strip() in self.tabs():
                    self.go(text.strip())
                break
        return False

    def _tab_line(self, width: int) -> Line:
        tabs = self.tabs()
        groups = ((WHY, *CHARTS), (GPUS, POINTS), (LOGS, CONFIG, EVENTS))
        return tab_line([[tab for tab in tabs if tab in group] for group in groups], self.tab, width)

    def _logged(self) -> bool:
        series = self.detail.series if self.detail else {}
        if self.tab == "Eval":
            return any(key.startswith("eval/") for key in series)
        return self.detail is None or any(key in series for key in CHARTS[self.tab])

    # what the keys do

    def turn(self, by: int) -> None:
        """The next tab, around the end."""
        tabs = self.tabs()
        self.go(tabs[(tabs.index(self.tab) + by) % len(tabs)])

    def go(self, tab: str) -> None:
        """Show a tab."""
        self.tab = tab
        if tab != WHY:
            self._chosen_tab = tab
        self.ask()
        self.repaint()
        self.key_screen.focus_changed()

    def action_chart_metric(self) -> None:
        """The next chart: of the tab, where it has several, then of the next tab."""
        if self.tab == "Eval" and self._eval_chart + 1 < len(self._eval_charts()):
            self._eval_chart += 1
            self.go(self.tab)
            return
        charts = [tab for tab in self.tabs() if tab in CHARTS]
        self._eval_chart = 0
        self.go(charts[(charts.index(self.tab) + 1) % len(charts)])

    def _scroll(self, by: int, elsewhere: Callable[[Rows | ScrollPane], None]) -> None:
        """Scroll the text that is shown by lines; in a pane that is a tab here do what its own key does."""
        if (sheet := self.sheet()) is not None:
            offset = self.logs.wanted_part(by) if sheet is self.logs else None
            sheet.scroll(by)
            if offset is not None:
                self.read_part(0 if by <= -_TO_THE_END else offset)
        elif self.tab in (POINTS, GPUS):
            elsewhere(self._points if self.tab == POINTS else self._gpus)
        self.repaint()

    def action_list_down(self) -> None:
        self._scroll(1, lambda pane: pane.action_list_down())

    def action_list_up(self) -> None:
        self._scroll(-1, lambda pane: pane.action_list_up())

    def action_list_page_down(self) -> None:
        self._scroll(self._page(), lambda pane: pane.action_list_page_down())

    def action_list_page_up(self) -> None:
        self._scroll(-self._page(), lambda pane: pane.action_list_page_up())

    def action_list_top(self) -> None:
        self._scroll(-_TO_THE_END, lambda pane: pane.action_list_top())

    def action_list_bottom(self) -> None:
        """To the end; the log then follows."""
        if self.tab == LOGS:
            self.action_log_follow(True)
        else:
            self._scroll(_TO_THE_END, lambda pane: pane.action_list_bottom())

    def action_list_right(self) -> None:
        """Further right in long lines."""
        self._sideways(8)

    def action_list_left(self) -> None:
        """Back to the left."""
        self._sideways(-8)

    def _page(self) -> int:
        sheet = self.sheet()
        return sheet.page() if sheet is not None else 1

    def _sideways(self, by: int) -> None:
        if (sheet := self.sheet()) is not None:
            sheet.sideways(by)
            self.repaint()
