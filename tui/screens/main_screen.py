"""The main screen: panes in the places `layout` gives them, the selected run followed through all of them."""

from dataclasses import replace
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.geometry import Region

from engine.base.messages import msg
from engine.present.text import cells, fit, one_line
from engine.store.run_records import Run
from tui.data.feed import Answer
from tui.data.snapshot import Snapshot
from tui.keymap import Action
from tui.render.line import Line
from tui.screens.key_screen import KeyScreen, lay
from tui.screens.main_layout import LEAST_HEIGHT, LEAST_WIDTH, Layout, arrange
from tui.screens.screen_actions import Acts
from tui.widgets.bars import Footer, Header, NewsLine
from tui.widgets.checkpoints_pane import CheckpointsPane
from tui.widgets.gpus_pane import GpusPane
from tui.widgets.pane import Lines
from tui.widgets.prompt import Prompt
from tui.widgets.rows import Rows
from tui.widgets.run_pane import GPUS, LOGS, POINTS, RunPane
from tui.widgets.runs_pane import SORTS, RunsPane

REST_SECONDS = 0.2
"""The other panes follow once the cursor rests so long: running down the list moves nothing but the cursor."""
PANES = ("runs", "gpus", "run", "checkpoints")


class Notice(Lines):
    """All there is room for on a very small terminal."""

    def lines(self, width: int, height: int) -> list[Line]:
        text = [
            "finetop needs more room:",
            msg(
                "{least_width}x{least_height} at least, this is {width}x{height}.",
                least_width=LEAST_WIDTH,
                least_height=LEAST_HEIGHT,
                width=width,
                height=height,
            ),
            "Runs go on. q leaves.",
        ]
        return [[(fit(line, width), "text")] for line in text]


class MainScreen(Acts, KeyScreen):
    own_places = ("main", "any")

    def __init__(self) -> None:
        super().__init__()
        self.layout_now = Layout("small")
        self.zoomed = ""
        self.grow = 0
        self.selected: int | None = None
        self._rest: Any = None
        self._welcomed = False

    def compose(self) -> ComposeResult:
        self.header = Header(id="header")
        self.runs = RunsPane()
        self.gpus = GpusPane()
        self.checkpoints = CheckpointsPane()
        self.run = RunPane(self.gpus, self.checkpoints)
        self.news_line = NewsLine(id="news")
        self.footer = Footer(id="footer")
        self.notice = Notice(id="notice")
        yield from (self.header, self.runs, self.gpus, self.run, self.checkpoints)
        yield from (self.news_line, self.footer, self.notice)

    def on_mount(self) -> None:
        memory = self.host.memory.values
        self.grow = memory.get("grow", 0) if isinstance(memory.get("grow"), int) else 0
        self.place_panes()
        self.runs.focus()

    @property
    def ready(self) -> bool:
        # Before the first picture there is no run to act on.
        return bool(self.host.snapshot.taken) and not self.host.asking

    # where things are

    def pane(self, name: str) -> Any:
        return {"runs": self.runs, "gpus": self.gpus, "run": self.run, "checkpoints": self.checkpoints}[name]

    def on_resize(self, event: events.Resize) -> None:
        self.place_panes()

    def on_screen_resume(self) -> None:
        # Textual tells the size to the screen that is in front: while this one was being made, that was another.
        self.place_panes()

    def place_panes(self) -> None:
        self.layout_now = layout = arrange(*self.app.size, self.zoomed, self.grow)
        self.run.lone = layout.kind in ("two", "list") or (layout.kind == "zoom" and self._narrow())
        lay(self.header, layout.header if layout.kind != "small" else None)
        lay(self.notice, layout.header if layout.kind == "small" else None)
        lay(self.news_line, layout.news or None)
        lay(self.footer, layout.footer or None)
        for name in PANES:
            lay(self.pane(name), layout.panes.get(name))
        self.show_prompt()
        focused = self.focused
        if layout.panes and focused in map(self.pane, PANES) and not focused.display:
            self.pane(next(iter(layout.panes))).focus()
        self._show_all()

    def _narrow(self) -> bool:
        return arrange(*self.app.size).kind != "four"

    # news

    def take(self, snapshot: Snapshot) -> None:
        if snapshot.view.focus is None and self.selected is None and snapshot.runs:
            self.selected = snapshot.runs[0].id
        self._show_all()
        if not self._welcomed and snapshot.runs:
            self._welcomed = True
            self.welcome(snapshot)
        self.host.tell_event(snapshot)

    def _show_all(self) -> None:
        snapshot = self.host.snapshot
        self.runs.take(snapshot)
        if self.runs.run is not None:
            self.selected = self.runs.run.id
        self._show_detail()
        self.gpus.take(snapshot.machine)
        self.header.repaint()
        self.news_line.repaint()  # its age: written when the minute turns
        self.footer.repaint()
        self.notice.repaint()

    def _show_detail(self) -> None:
        """The panes of the selected run; until its detail has been read they stay with the one before."""
        snapshot = self.host.snapshot
        run = snapshot.run(self.selected)
        if run is not None and snapshot.detail is not None and snapshot.detail.run_id != run.id:
            shown = snapshot.run(snapshot.detail.run_id)
            if shown is not None and self.run.run is not None:
                run = shown
        self.checkpoints.take(run, snapshot.detail, snapshot.taken)
        self.run.take(run, snapshot)

    def answered(self, answer: Answer) -> None:
        self.run.answered(answer)

    def show_news(self) -> None:
        self.news_line.repaint()

    def look(self, **changes: Any) -> None:
        """Ask the feed for what is wanted now: the selected run, and another filter or order."""
        self.host.view = replace(self.host.view, focus=self.selected, **changes)
        self.host.feed.look(self.host.view)

    def on_rows_moved(self, message: Rows.Moved) -> None:
        if message.rows is not self.runs or not isinstance(message.key, int):
            self.footer.repaint()
            return
        self.selected = message.key
        if self._rest is not None:
            self._rest.stop()
        self._rest = self.set_timer(REST_SECONDS, self._rested)

    def _rested(self) -> None:
        self._rest = None
        self.look()
        self.footer.repaint()

    def on_descendant_focus(self) -> None:
        self.footer.repaint()

    @property
    def chosen(self) -> list[Run]:
        """What keys act on: the marked runs, else the one under the cursor."""
        return self.runs.chosen()

    def show_prompt(self) -> None:
        if self.prompt is not None:
            # Also on too small a terminal: were it hidden, what is typed on would be taken for keys.
            width, height = self.app.size
            line = self.layout_now.news or Region(0, max(0, height - 1), width, 1)
            lead = cells(self.prompt.label) + 3 if self.layout_now.news else 0
            lay(self.prompt, Region(lead, line.y, max(1, line.width - lead), 1))
        self.news_line.repaint()

    # what the keys do: getting about

    def do_any_back(self) -> None:
        """One step back; never leaves the screen."""
        if self.give_up():
            return
        if self.focused is self.run and self.run.views.view.cursor is not None:
            self.run.drop_cursor()
        elif self.zoomed:
            self.zoomed = ""
            self.place_panes()
        elif self.runs.marks:
            self.runs.marks.clear()
            self.runs.rebuild()
        elif self.host.view.matching:
            self.filter("")
        elif self.focused is not self.runs:
            self.runs.focus()

    def _go(self, name: str) -> None:
        layout = self.layout_now
        if name in layout.panes:
            self.pane(name).focus()
        elif layout.kind == "zoom":
            self.zoomed = name
            self.place_panes()
            self.pane(name).focus()
        elif layout.kind != "small":
            self.run.go({"gpus": GPUS, "checkpoints": POINTS}.get(name, self.run.tab))
            if layout.kind == "list":
                self._zoom("run")
            else:
                self.run.focus()

    def do_main_pane1(self) -> None:
        self._go("runs")

    def do_main_pane2(self) -> None:
        self._go("gpus")

    def do_main_pane3(self) -> None:
        self._go("run")

    def do_main_pane4(self) -> None:
        self._go("checkpoints")

    def do_main_next_pane(self) -> None:
        self._cycle(1)

    def do_main_previous_pane(self) -> None:
        self._cycle(-1)

    def _cycle(self, by: int) -> None:
        if self.layout_now.kind in ("zoom", "list"):
            self.run.turn(by) if self.run.display else None
            return
        seen = [name for name in PANES if name in self.layout_now.panes]
        here = next((index for index, name in enumerate(seen) if self.focused is self.pane(name)), 0)
        self.pane(seen[(here + by) % len(seen)]).focus()

    def do_main_next_tab(self) -> None:
        self.run.turn(1)

    def do_main_previous_tab(self) -> None:
        self.run.turn(-1)

    def _zoom(self, name: str) -> None:
        self.zoomed = name
        self.place_panes()
        self.pane(name).focus()
        self.look()

    def do_main_open(self) -> None:
        """A pane on the whole screen: a run opens as itself, other panes grow."""
        if self.zoomed:
            return
        focused = next((name for name in PANES if self.focused is self.pane(name)), "runs")
        self._zoom("run" if focused == "runs" else focused)

    def do_main_log(self) -> None:
        self.run.go(LOGS)
        self._zoom("run")

    def do_main_bigger(self) -> None:
        self._grow(1)

    def do_main_smaller(self) -> None:
        self._grow(-1)

    def _grow(self, by: int) -> None:
        """The pane with the focus; the runs' lower edge is what moves."""
        above = self.focused is self.runs
        before = self.layout_now.panes.get("runs")
        self.grow += by if above else -by
        self.place_panes()
        if self.layout_now.panes.get("runs") == before:
            self.grow -= by if above else -by
            self.host.say("there is no more room to move that edge", "dim")
        self.host.memory.values["grow"] = self.grow

    def do_main_jump(self) -> None:
        self.ask(Prompt("go to run", "", self._jump))

    def _jump(self, text: str) -> None:
        number = text.strip().lstrip("#")
        if not number:
            return
        if number.isdigit() and self.runs.move_to(int(number)):
            self.runs.focus()
        else:
            filtered = " that matches the filter" if self.host.view.matching else ""
            self.host.say(msg("there is no run {text}{filtered}", text=one_line(text), filtered=filtered), "warning")

    # finding runs

    def do_runs_mark(self) -> None:
        run = self.runs.run
        if run is None:
            return
        marked = run.id not in self.runs.marks
        (self.runs.marks.add if marked else self.runs.marks.discard)(run.id)
        self.runs.last_mark = run.id if marked else None
        self.runs.rebuild()
        self.runs.do_list_down()
        self.footer.repaint()

    def do_runs_mark_range(self) -> None:
        order = [row.key for row in self.runs.rows if row.key is not None]
        here = self.runs.key
        if here not in order:
            return
        first = self.runs.last_mark if self.runs.last_mark in order else here
        low, high = sorted((order.index(first), order.index(here)))
        self.runs.marks.update(order[low : high + 1])
        self.runs.last_mark = here
        self.runs.rebuild()
        self.footer.repaint()

    def do_runs_filter(self) -> None:
        before = self.host.view.matching
        self.ask(Prompt("filter", before, self.filter, self.filter, lambda: self.filter(before)))

    def filter(self, text: str) -> None:
        self.look(matching=text.strip())

    def do_runs_sort(self) -> None:
        view = self.host.view
        sort = SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)] if view.sort in SORTS else None
        # What one looks for comes first: low losses, the last that ended, names from A.
        self._sort(sort, sort in ("finished", "seconds"))

    def do_runs_sort_invert(self) -> None:
        self._sort(self.host.view.sort, not self.host.view.descending)

    def _sort(self, sort: str | None, descending: bool) -> None:
        self.host.memory.values |= {"sort": sort, "descending": descending}
        self.look(sort=sort, descending=descending)
        self.host.say(
            msg("sorted by {sort}{suffix}", sort=sort, suffix=", the other way around" if descending else "")
            if sort
            else "running, queue, finished",
            "dim",
        )

    def refusal(self, action: Action) -> str:
        return super().refusal(action) or self.why_not(action.id)
