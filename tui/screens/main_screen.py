"""The main screen: panes where `main_layout.arrange` puts them, the selected run followed through all of them."""

from collections.abc import Sequence
from dataclasses import replace

from textual import events
from textual.app import ComposeResult
from textual.geometry import Region
from textual.timer import Timer

from engine.base.messages import msg
from engine.present import numbers
from engine.present.text import cells, one_line
from engine.store.run_records import Run
from tui.data.feed import Answer
from tui.data.snapshot import Snapshot, View
from tui.keymap import Action
from tui.render.notifications import ended_since, since_last_time
from tui.screens.checkpoint_actions import CheckpointActions
from tui.screens.key_screen import KeyScreen, place
from tui.screens.main_actions import FIXES_FOR_KEY, RunActions
from tui.screens.main_layout import Layout, arrange
from tui.screens.too_small import TooSmall
from tui.widgets.bars import Footer, Header, StatusLine
from tui.widgets.checkpoints_pane import CheckpointsPane
from tui.widgets.gpus_pane import GpusPane
from tui.widgets.pane import Pane
from tui.widgets.rows import Rows
from tui.widgets.run_pane import GPUS, LOGS, POINTS, RunPane
from tui.widgets.runs_pane import SORTS, RunsPane

FOLLOW_SECONDS = 0.2
"""The other panes follow once the cursor has stood still so long: running down the list moves the cursor alone."""
PANES = ("runs", "gpus", "run", "checkpoints")


class MainScreen(KeyScreen):
    """The runs, the machine, and the selected run with its checkpoints."""

    own_places = ("main", "any")

    def __init__(self) -> None:
        super().__init__()
        self.layout_now = Layout("small")
        self.zoomed = ""
        self.grow = 0
        self.selected: int | None = None
        self._follow_timer: Timer | None = None
        self._visit_shown = False

    def compose(self) -> ComposeResult:
        self.header = Header(id="header")
        self.runs = RunsPane()
        self.gpus = GpusPane()
        self.checkpoints = CheckpointsPane()
        self.run = RunPane(self.gpus, self.checkpoints)
        self.status_line = StatusLine(id="news")
        self.footer = Footer(id="footer")
        self.notice = TooSmall(id="notice")
        self.run_actions, self.checkpoint_actions = RunActions(self), CheckpointActions(self)
        yield from (self.header, self.runs, self.gpus, self.run, self.checkpoints)
        yield from (self.status_line, self.footer, self.notice)

    def on_mount(self) -> None:
        memory = self.host.memory.values
        self.grow = memory.get("grow", 0) if isinstance(memory.get("grow"), int) else 0
        self.place_panes()
        self.runs.focus()

    @property
    def ready(self) -> bool:
        """Not before the first snapshot, nor while a question is being prepared."""
        # Before the first picture there is no run to act on.
        return bool(self.host.snapshot.taken) and not self.host.question_pending

    # where things are

    def pane(self, name: str) -> Pane:
        """A pane by its name in `PANES`."""
        panes: dict[str, Pane] = {"runs": self.runs, "gpus": self.gpus, "run": self.run}
        return panes.get(name, self.checkpoints)

    def on_resize(self, event: events.Resize) -> None:
        self.place_panes()

    def on_screen_resume(self) -> None:
        # Textual sends the size to the screen in front: while this one was being made, that was another.
        self.place_panes()

    def place_panes(self) -> None:
        """Place all panes for the size of the terminal; the focus leaves a pane that is hidden, and returns to it."""
        self.layout_now = layout = arrange(*self.app.size, self.zoomed, self.grow)
        self.run.lone = layout.kind in ("two", "list") or (layout.kind == "zoom" and self._narrow())
        place(self.header, layout.header if layout.kind != "small" else None)
        place(self.notice, layout.header if layout.kind == "small" else None)
        place(self.status_line, layout.news or None)
        place(self.footer, layout.footer or None)
        for name in PANES:
            place(self.pane(name), layout.panes.get(name))
        self.show_prompt()
        self.settle_focus()
        self._show_all()

    def _narrow(self) -> bool:
        return arrange(*self.app.size).kind != "four"

    # news

    def take(self, snapshot: Snapshot) -> None:
        """Show a snapshot, and what happened since the last visit with the first one."""
        if snapshot.view.focus is None and self.selected is None and snapshot.runs:
            self.selected = snapshot.runs[0].id
        self._show_all()
        if not self._visit_shown and snapshot.runs:
            self._visit_shown = True
            self._show_since_last_visit(snapshot)
        self.host.show_events(snapshot)

    def _show_all(self) -> None:
        snapshot = self.host.snapshot
        self.runs.take(snapshot)
        if self.runs.run is not None:
            self.selected = self.runs.run.id
        self.gpus.take(snapshot.machine)  # first: where there is no room for it, the run's pane draws its lines
        self._show_detail()
        self.header.repaint()
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
        if answer.key == FIXES_FOR_KEY:
            self.run_actions.offer_fixes(answer)

    def focus_changed(self) -> None:
        """The footer names other keys."""
        self.footer.repaint()

    def status_changed(self) -> None:
        """Draw the status line again."""
        self.status_line.repaint()

    def _show_since_last_visit(self, snapshot: Snapshot) -> None:
        """What happened since this user last left the screen, once; in the log with a line for each run."""
        seen = snapshot.seen
        if seen is not None and (parts := since_last_time(snapshot.runs, seen)):
            away = numbers.ago(seen, snapshot.taken)
            text = msg("since you last looked, {away}: {events}", away=away, events=" · ".join(parts))
            self.host.say(text, whole="\n".join([text, *ended_since(snapshot.runs, seen)]))

    def set_view(self, view: View) -> None:
        """Ask the feed for other runs or another order, and for the detail of the run that is selected now."""
        self.host.view = replace(view, focus=self.selected)
        self.host.feed.set_view(self.host.view)

    def on_rows_moved(self, message: Rows.Moved) -> None:
        """The other panes follow the cursor once it stands still."""
        if message.rows is not self.runs or not isinstance(message.key, int):
            self.footer.repaint()
            return
        self.selected = message.key
        if self._follow_timer is not None:
            self._follow_timer.stop()
        self._follow_timer = self.set_timer(FOLLOW_SECONDS, self._follow_cursor)

    def _follow_cursor(self) -> None:
        self._follow_timer = None
        self.set_view(self.host.view)
        self.footer.repaint()

    @property
    def chosen(self) -> list[Run]:
        """What keys act on: the marked runs, else the one under the cursor."""
        return self.runs.chosen()

    def show_prompt(self) -> None:
        """Place the line for a text over the status line."""
        if self.prompt is not None:
            # Also on too small a terminal: were it hidden, what is typed on would be taken for keys.
            width, height = self.app.size
            line = self.layout_now.news or Region(0, max(0, height - 1), width, 1)
            lead = cells(self.prompt.label) + 3 if self.layout_now.news else 0
            place(self.prompt, Region(lead, line.y, max(1, line.width - lead), 1))
        self.status_line.repaint()

    # what the keys do: getting about

    def action_any_back(self) -> None:
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

    def action_main_pane(self, name: str) -> None:
        """Go to a pane; one that the layout has no room for opens as a tab of the run, or grows."""
        layout = self.layout_now
        if name in layout.panes:
            self.pane(name).focus()
        elif layout.kind == "zoom":
            self.zoomed = name
            self.place_panes()
        elif layout.kind != "small":
            self.run.go({"gpus": GPUS, "checkpoints": POINTS}.get(name, self.run.tab))
            if layout.kind == "list":
                self._zoom("run")
            else:
                self.run.focus()

    def action_main_step_pane(self, by: int) -> None:
        """The next pane; where one is alone on the screen, its next tab."""
        seen = [name for name in PANES if name in self.layout_now.panes]
        if len(seen) < 2:
            self.run.turn(by) if "run" in seen else None
            return
        here = next((index for index, name in enumerate(seen) if self.focused is self.pane(name)), 0)
        self.pane(seen[(here + by) % len(seen)]).focus()

    def action_main_step_tab(self, by: int) -> None:
        """The next tab of the selected run, whichever pane has the focus."""
        self.run.turn(by)

    def _zoom(self, name: str) -> None:
        self.zoomed = name
        self.place_panes()
        self.set_view(self.host.view)

    def action_main_open(self) -> None:
        """A pane on the whole screen: a run opens as itself, other panes grow."""
        if self.zoomed:
            return
        focused = next((name for name in PANES if self.focused is self.pane(name)), "runs")
        self._zoom("run" if focused == "runs" else focused)

    def action_main_log(self) -> None:
        """The run's log on the whole screen."""
        self.run.go(LOGS)
        self._zoom("run")

    def action_main_resize(self, by: int) -> None:
        """Make the pane with the focus larger or smaller by lines; the runs' lower edge is what moves."""
        lines = by if self.focused is self.runs else -by
        region = self.layout_now.panes.get("runs")
        self.grow += lines
        self.place_panes()
        if self.layout_now.panes.get("runs") == region:
            self.grow -= lines
            self.host.say("there is no more room to move that edge", "dim")
        self.host.memory.values["grow"] = self.grow

    def action_main_jump(self) -> None:
        """Ask for the number of a run to go to."""
        self.ask("go to run", "", self._jump)

    def go_to_run(self, run_id: int) -> None:
        """Put the cursor on a run, as soon as the list has it: it may have been queued, or brought back, just now."""
        self.runs.go_to_run(run_id)

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

    def action_runs_mark(self) -> None:
        """Mark the run or take its mark away, and go on to the next."""
        run = self.runs.run
        if run is None:
            return
        marked = run.id not in self.runs.marks
        (self.runs.marks.add if marked else self.runs.marks.discard)(run.id)
        self.runs.last_mark = run.id if marked else None
        self.runs.rebuild()
        self.runs.action_list_down()
        self.footer.repaint()

    def action_runs_mark_range(self) -> None:
        """Mark all runs from the last mark to the cursor."""
        order = [row.value.id for row in self.runs.rows if row.key is not None]
        here = self.runs.run.id if self.runs.run else None
        if here not in order:
            return
        first = self.runs.last_mark if self.runs.last_mark in order else here
        low, high = sorted((order.index(first), order.index(here)))
        self.runs.marks.update(order[low : high + 1])
        self.runs.last_mark = here
        self.runs.rebuild()
        self.footer.repaint()

    def action_runs_filter(self) -> None:
        """Ask for a filter, which applies while it is typed."""
        matching = self.host.view.matching
        self.ask("filter", matching, self.filter, self.filter, lambda: self.filter(matching), replaced=True)

    def filter(self, text: str) -> None:
        """Show only runs that match; all for an empty text."""
        self.set_view(replace(self.host.view, matching=text.strip()))

    def action_runs_sort(self) -> None:
        """Sort by the next column; after the last by state again."""
        view = self.host.view
        sort = SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)] if view.sort in SORTS else None
        # What people look for comes first: low losses, the last that ended, names from A.
        self._sort(sort, sort in ("finished", "seconds"))

    def on_runs_pane_head_clicked(self, message: RunsPane.HeadClicked) -> None:
        """Sort by the column; the other way around at the second click."""
        column = {"train/eval": "eval", "loss": "eval", "train": "loss"}.get(message.title, message.title)
        if column in SORTS or column == "state":
            sort = None if column == "state" else column
            self._sort(sort, sort == self.host.view.sort and not self.host.view.descending)

    def action_runs_sort_invert(self) -> None:
        """Turn the order around."""
        self._sort(self.host.view.sort, not self.host.view.descending)

    def _sort(self, sort: str | None, descending: bool) -> None:
        self.host.remember_sort(sort, descending)
        self.set_view(replace(self.host.view, sort=sort, descending=descending))
        self.host.say(
            "running, queue, finished"
            if not sort
            else msg("sorted by {sort}, the other way around", sort=sort)
            if descending
            else msg("sorted by {sort}", sort=sort),
            "dim",
        )

    # the picture, leaving

    def action_main_pause(self) -> None:
        """Stop the picture, or let it go on."""
        self.host.pause(not self.host.paused)
        self.header.repaint()

    def action_main_copy(self) -> None:
        """The folder of the run, or of the checkpoint, through the terminal (OSC 52), which works over SSH."""
        if (run := self.runs.run) is None:
            return
        folder = self.host.workspace.runs / str(run.id)
        point = self.checkpoints.checkpoint if self.focused is self.checkpoints else None
        text = str(folder / point.path) if point is not None and point.path else str(folder)
        self.host.copy_to_clipboard(text)
        self.host.say(msg("copied: {path}", path=text))

    def action_main_quit(self) -> None:
        """Leave; runs go on."""
        self.host.leave()

    # what cannot be done now

    def disabled_reason(self, action: Action) -> str:
        """Why an action cannot be done to what is chosen."""
        actions = self.checkpoint_actions if action.id.startswith("checkpoints.") else self.run_actions
        return super().disabled_reason(action) or actions.disabled_reason(action.id)

    def listeners(self) -> Sequence[object]:
        """Also the objects that hold the actions on runs and checkpoints."""
        return [*super().listeners(), self.run_actions, self.checkpoint_actions]
