"""Pane 1: the runs in their sections, running, queue, finished, one row each."""

import re
from collections.abc import Sequence

from textual.message import Message

from engine.base.messages import msg
from engine.present.text import fit, one_line, wrap
from engine.store.filters import WORDS, unknown_words
from engine.store.run_records import Run, RunState
from tui.data.snapshot import Snapshot
from tui.render.line import Line, line_cells
from tui.render.run_row import Columns, WidestFields, row_line
from tui.widgets.rows import Row, Rows

_SECTIONS = ("RUNNING", "QUEUE", "FINISHED")
SORTS = (None, "eval", "loss", "name", "step", "finished", "seconds", "model", "data", "sweep")
"""What `s` goes through; None: running, the queue in its order, then the last finished."""


def section(run: Run) -> int:
    """The section of a run: 0 running, 1 queue, 2 finished."""
    return 0 if run.active else 1 if run.state is RunState.QUEUED else 2


def _unknown(matching: str) -> str:
    """Which words of a filter were taken for text, and what there is instead."""
    if not (words := unknown_words(matching)):
        return ""
    return msg(
        "{words} is looked for as text: the filter has {fields}", words=" ".join(map(one_line, words)), fields=WORDS
    )


class RunsPane(Rows):
    """The list of runs. Marks stay while a filter hides what they are on."""

    scope = "runs"
    number = 1

    def __init__(self) -> None:
        super().__init__(id="runs")
        self.snapshot = Snapshot(0.0)
        self._columns = Columns(40)
        self._columns_are_for: tuple[object, ...] = ()
        self._columns_runs: tuple[Run, ...] | None = None
        self._widest = WidestFields()
        self._first_waiting: int | None = None
        self._awaited: int | None = None
        self.marks: set[int] = set()
        self.last_mark: int | None = None

    def take(self, snapshot: Snapshot) -> None:
        """Show a snapshot; nothing is done where list, view and store are the same."""
        last, self.snapshot = self.snapshot, snapshot
        if snapshot.runs is last.runs and snapshot.view == last.view and snapshot.store == last.store and self.rows:
            return  # nothing here changes by itself
        if not snapshot.view.matching:
            self.marks &= {run.id for run in snapshot.runs}
        self.rebuild()
        if self._awaited is not None:
            self.move_to(self._awaited)

    def go_to_run(self, run_id: int) -> None:
        """Put the cursor on a run, or, where it is not there yet, on it when it comes."""
        self._awaited = None if self.move_to(run_id) else run_id

    def _go(self, index: int) -> None:
        self._awaited = None  # the user has gone elsewhere
        super()._go(index)

    def places(self) -> tuple[str, ...]:
        return ("runs", "list")

    @property
    def run(self) -> Run | None:
        """The run under the cursor."""
        return self.current.value if self.current else None

    def chosen(self) -> list[Run]:
        """The marked runs in the order shown, or else the one under the cursor."""
        marked = [run for run in self.snapshot.runs if run.id in self.marks] if self.marks else []
        return marked or ([self.run] if self.run else [])

    def title(self) -> Line:
        view = self.snapshot.view
        line: Line = [("Runs", "title")]
        if view.matching:
            line.append((f"  {one_line(view.matching)}", "key"))
            line.append((f"  {len(self.snapshot.runs)} of {self.snapshot.total}", "dim"))
        if view.sort:
            line.append((f"  by {view.sort} {'▲' if not view.descending else '▼'}", "dim"))
        return line

    def hint(self) -> str:
        marked = msg("{marked} marked", marked=len(self.marks)) if self.marks else ""
        more = msg("↓ {below} more", below=below) if (below := self.rows_below) else ""
        return " · ".join(filter(None, (marked, more, "/ filter · s sort")))

    def nothing(self, width: int, height: int) -> list[Line]:
        """What a newcomer sees, or whoever filters too much."""
        host, snapshot = self.host, self.snapshot
        if snapshot.view.matching:
            return [
                [],
                [("   No run matches ", "text"), (one_line(snapshot.view.matching), "key")],
                *([("   " + text, "warning")] for text in wrap(_unknown(snapshot.view.matching), width - 6) if text),
                [],
                [("   esc shows all again", "dim")],
            ]
        if snapshot.store.problem:
            return [
                [],
                *([("   " + text, "warning")] for text in wrap(snapshot.store.problem, width - 6)),
                *([("   " + text, "dim")] for text in wrap(snapshot.store.hint, width - 6)),
            ]
        if not snapshot.taken:
            return []
        if host.readonly and host.workspace.run_ids():
            unknown = "There are runs in this folder that runs.db does not know yet."
            hint = "`finetop ls` takes them in, and so does the screen without --readonly."
            return [
                [],
                *([("   " + text, "text")] for text in wrap(unknown, width - 6)),
                *([("   " + text, "dim")] for text in wrap(hint, width - 6)),
            ]
        return [
            [],
            [("   No runs yet.", "bright")],
            [],
            [("   n", "key"), ("   start one from a preset", "text")],
            [("   ?", "key"), ("   what the keys do", "text")],
            [],
            [("   From a shell: ", "dim"), ("finetop add --preset quick --data-file chats.jsonl", "text")],
            [("   A tour with a small model: ", "dim"), ("finetop demo", "text")],
            [],
            [(msg("   Runs live in {root};", root=one_line(str(host.workspace.root))), "dim")],
            [("   nothing leaves this machine.", "dim")],
        ]

    class HeadClicked(Message):
        """A column's title was clicked."""

        def __init__(self, title: str) -> None:
            self.title = title
            super().__init__()

    def clicked(self, x: int, y: int) -> bool:
        """On a row, or on a column's title, by which the list is then sorted."""
        if y > 0 or not self.rows:
            return super().clicked(x, y)
        titles = "".join(text for text, _ in self.head(self._width)[0])
        for match in re.finditer(r"\S+", titles):
            if match.start() <= x < match.end():
                self.post_message(self.HeadClicked(match[0]))
        return False

    def head(self, width: int) -> list[Line]:
        return [self._columns_for(width).head()]

    def make_rows(self, width: int) -> Sequence[Row]:
        """Headings, and rows whose lines are made when they come in sight."""
        snapshot = self.snapshot
        self._columns_for(width)
        heads = self._has_heads()
        rows: list[Row] = []
        current = -1
        for run in snapshot.runs:
            if heads and section(run) != current:
                current = section(run)
                rows.append(Row(None, self._section_line(current, width)))
            rows.append(Row(run.id, None, run))
        waiting = [run.id for run in snapshot.runs if run.state is RunState.QUEUED]
        self._first_waiting = waiting[0] if waiting else None
        return rows

    def _has_heads(self) -> bool:
        return self.snapshot.view.sort is None and self.outer_size.height > 12

    def _columns_for(self, width: int) -> Columns:
        runs, sort, heads = self.snapshot.runs, self.snapshot.view.sort, self._has_heads()
        if self._columns_runs is not runs or self._columns_are_for != (width, sort, heads):
            self._columns = Columns(width, sort, heads, runs, self._widest)
            self._columns_runs, self._columns_are_for = runs, (width, sort, heads)
        return self._columns

    def line_of(self, row: Row) -> Line:
        run = row.value
        return row_line(run, self._columns, run.id in self.marks, run.id == self._first_waiting)

    def _section_line(self, which: int, width: int) -> Line:
        amount = sum(section(run) == which for run in self.snapshot.runs)
        line: Line = [(" " + _SECTIONS[which] + " ", "title"), (str(amount), "dim")]
        if which == 1:
            line.append(("   K/J moves", "dim"))
        return [
            *line,
            (fit(("train", "memory", "best eval")[which], self._columns.loss_end - line_cells(line), ">"), "dim"),
        ]
