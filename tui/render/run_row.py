"""One run as a line of the list: the widths of its fields for a pane of so many cells, and what each says. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.base.messages import msg
from engine.present import numbers
from engine.present.text import cells, fit, one_line, without_folders
from engine.store.run_records import Run, RunState
from tui.render.line import Line
from tui.render.theme import state_style

_ETA = 5
_STEP = 7
_LEAST_NAME = 8
_LEAST = _LEAST_NAME + 10
"""Of name and state together."""
_WIDE_NAME, _WIDE_STATE = 40, 12
"""What names, where they are so long, and states have before there is room for more columns."""
MEASURED = ("eval", "loss")


@dataclass(frozen=True, slots=True)
class _More:
    """A column for which there is not always room."""

    title: str
    most: int
    """How wide it may be."""
    text: Callable[[Run], str]


def _ended(run: Run) -> str:
    return numbers.date_time(run.finished)[5:16] if run.ended else ""


def _took(run: Run) -> str:
    if run.started is None or not run.ended or run.finished is None:
        return ""
    return numbers.short_duration(run.busy_seconds + max(0.0, run.finished - run.started))


_MORE = {
    "seconds": _More("took", 6, _took),
    "finished": _More("ended", 12, _ended),
    "sweep": _More("group", 16, lambda run: one_line(run.sweep)),
    "tags": _More("tags", 16, lambda run: one_line(", ".join(run.tags))),
    "data": _More("data", 20, lambda run: one_line(run.data.rstrip("/").rpartition("/")[2])),
    "model": _More("model", 20, lambda run: one_line(run.model.rstrip("/").rpartition("/")[2])),
}
"""In the order in which they get room; the one that the list is sorted by comes first."""


class FieldCells(NamedTuple):
    """How wide the fields of one run are."""

    name: int
    reason: int
    more: tuple[int, ...]
    """In the order of _MORE."""


def _field_cells(run: Run) -> FieldCells:
    more = tuple(cells(column.text(run)) for column in _MORE.values())
    return FieldCells(cells(one_line(run.name)), cells(one_line(_reason(run))), more)


class WidestFields:
    """The widest fields among many runs. A run is measured once for as long as it stays the same: 1,000 of them take
    30 ms, and a list is drawn at every key and whenever a run has logged."""

    def __init__(self) -> None:
        self._measured: dict[int, tuple[Run, FieldCells]] = {}

    def among(self, runs: Sequence[Run]) -> FieldCells:
        """Of these runs, 0 where there is none; those that are not among them are forgotten."""
        old, self._measured = self._measured, {}
        for run in runs:
            measured = old.get(run.id)
            same = measured is not None and (measured[0] is run or measured[0] == run)
            self._measured[run.id] = (run, measured[1] if same and measured else _field_cells(run))
        fields = [fields for _, fields in self._measured.values()]
        return FieldCells(
            max((run_fields.name for run_fields in fields), default=0),
            max((run_fields.reason for run_fields in fields), default=0),
            tuple(map(max, zip(*(run_fields.more for run_fields in fields), strict=True))) or (0,) * len(_MORE),
        )


def _reason(run: Run) -> str:
    """What is worth more than a row's numbers: why a run waits, why it failed, that its loss is none."""
    if run.loss_is_nan and run.state is not RunState.QUEUED:
        state = state_text(run, False).strip()
        return msg("{state}, loss NaN since step {step:,}", state=state, step=run.nan_since)
    if run.state is RunState.QUEUED and not run.held:
        return f"waits: {run.wait_reason}" if run.wait_reason else ""
    return run.reason or "" if run.state in (RunState.FAILED, RunState.INTERRUPTED) else ""


class Columns:
    """The widths of a row's fields, and which loss is shown.

    A run that trains shows its training loss, one that has ended its best evaluation. The headings of the sections say
    so; without them the column does, and sorted by one of the two it shows that one of every run.
    """

    def __init__(
        self,
        width: int,
        sort: str | None = None,
        heads: bool = True,
        runs: Sequence[Run] = (),
        widest: WidestFields | None = None,
    ) -> None:
        """`runs`: those to be shown. One that training made no better takes more room: `3.073 at 0`. `widest` keeps
        what it measures of them from one list to the next."""
        self.width, self.heads = width, heads
        self.sort = sort if sort in MEASURED else ""
        self.loss_name = {"eval": "eval", "loss": "train"}.get(self.sort, "loss" if heads else "train/eval")
        self.number = max(4, 1 + max((len(str(run.id)) for run in runs), default=0))
        self.lead = 3 + self.number + 1  # cursor, mark, glyph
        self.loss = max(
            6, len(self.loss_name), *(len(self.loss_text(run)) for run in runs if run.start_eval is not None)
        )
        self.step, self.eta = 1 + _STEP, 1 + _ETA
        free = width - self.lead - 1 - self.step - 1 - self.loss - self.eta
        fields = (widest or WidestFields()).among(runs)
        taken_by = {
            name: 2 + min(column.most, max(cells_wide, len(column.title))) if cells_wide else 0
            for (name, column), cells_wide in zip(_MORE.items(), fields.more, strict=True)
        }
        if sort in _MORE and free - taken_by[sort] < _LEAST:
            # What the list is sorted by is worth more than how far a run is.
            free, self.step, self.eta = free + self.step + self.eta, 0, 0
        self.more: list[tuple[_More, int]] = []
        for column in sorted(_MORE, key=lambda column: column != sort):
            taken = taken_by[column]
            least = _LEAST if column == sort else max(_LEAST, min(_WIDE_NAME, fields.name) + _WIDE_STATE)
            if taken and free - taken >= least:
                self.more.append((_MORE[column], taken))
                free -= taken
        self.state = 10 if free < 34 else 12 if free < 44 or self.more else 18 if free < 70 else 30
        # Names that are short leave room for why a run waits or failed.
        self.state += max(0, min(free - self.state - max(fields.name, _LEAST_NAME), fields.reason - self.room))
        self.name = max(_LEAST_NAME, free - self.state)

    @property
    def room(self) -> int:
        """For a reason that takes the place of state, step, loss and time left."""
        return self.state + self.step + 1 + self.loss + self.eta

    def loss_text(self, run: Run) -> str:
        """The loss that the column shows of a run; of one that waits what it was evaluated at before."""
        if self.sort == "eval" or (not self.sort and not run.active):
            return run.best.brief(numbers.short_metric) or (numbers.short_metric(None) if run.ended else "")
        return numbers.short_metric(run.train_loss) if run.step else ""

    @property
    def loss_end(self) -> int:
        """Where the losses end."""
        return self.lead + self.name + 1 + self.state + self.step + 1 + self.loss

    def head(self) -> Line:
        """The titles over the rows."""
        titles = (
            fit("#", self.lead - 1, ">")
            + " "
            + fit("name", self.name + 1)
            + fit("state", self.state)
            + fit("step", self.step, ">")
            + fit(self.loss_name, self.loss + 1, ">")
            + fit("left", self.eta, ">")
        )
        return [(titles + "".join("  " + fit(more.title, wide - 2) for more, wide in self.more), "dim")]


def state_text(run: Run, is_first: bool) -> str:
    """The state in words: progress, why it waits, or how it ended."""
    style = state_style(run)
    if run.wanted and run.active:
        return "stopping" if run.wanted == "stop" else "killing"
    if run.active and run.phase:
        return one_line(run.phase)
    if run.state is RunState.RUNNING and run.total_steps:
        return f"run {min(100, 100 * run.step // run.total_steps):>3}%"
    if run.active:
        return style.word
    if run.state is RunState.QUEUED:
        if run.held:
            return "held"
        reason = one_line(run.wait_reason or "")
        return "next" if is_first and not reason else f"waits: {reason}" if reason else "waits"
    return style.word


def row_line(run: Run, columns: Columns, marked: bool, is_first: bool) -> Line:
    """One run as a line. The cursor's cell comes first, then mark, glyph and number."""
    style = state_style(run)
    line: Line = [(" ", "text"), ("✓" if marked else " ", "mark" if marked else "text"), (style.glyph, style.role)]
    line += [
        (fit(str(run.id), columns.number, ">") + " ", "dim" if run.ended else "text"),
        (fit(one_line(run.name) or "—", columns.name), "text"),
        (" ", "text"),
    ]
    line += _middle(run, columns, is_first)
    if columns.more:
        line.append(("".join("  " + fit(more.text(run), wide - 2) for more, wide in columns.more), "dim"))
    return line


def _middle(run: Run, columns: Columns, is_first: bool) -> Line:
    """State, step, loss and time left; a reason is worth more than the numbers it would leave no room for."""
    role = state_style(run).role
    room = columns.room
    if run.state in (RunState.FAILED, RunState.INTERRUPTED) and run.reason:
        return [(fit(without_folders(one_line(run.reason), room), room), role)]
    text = state_text(run, is_first)
    if run.loss_is_nan and run.state is not RunState.QUEUED:
        return [(fit(_reason(run), room), "warning")]
    if run.state is RunState.QUEUED:
        loss = columns.loss_text(run)
        if not loss and columns.heads and run.estimate_bytes:  # the heading of the queue says that it is memory
            loss = f"~{numbers.size(run.estimate_bytes)}"
        left = columns.state + columns.step
        if cells(text) > left and columns.heads and run.wait_reason and cells(one_line(run.wait_reason)) <= left:
            text = one_line(run.wait_reason)  # that it waits stands in the heading
        if cells(text) > left:
            return [(fit(text, room), role)]
        return [
            (fit(text, left), role),
            (fit(loss, columns.loss + 1, ">"), "dim"),
            (fit(numbers.short_duration(run.estimate_seconds), columns.eta, ">"), "dim"),
        ]
    return [
        (fit(text, columns.state), role),
        (fit(numbers.count(run.step), columns.step, ">"), "text"),
        (fit(columns.loss_text(run), columns.loss + 1, ">"), "bright" if run.active else "text"),
        (fit(numbers.short_duration(run.seconds_left), columns.eta, ">"), "dim"),
    ]
