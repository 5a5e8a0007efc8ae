"""Pane 4: the checkpoints of the selected run, newest first, and what it started from."""

from collections.abc import Sequence

from engine.base.messages import msg
from engine.present import numbers
from engine.present.text import cells, fit, one_line
from engine.store.run_records import Checkpoint, Run
from tui.data.snapshot import Detail
from tui.render.line import Line
from tui.widgets.rows import Row, Rows

_TITLES = ("step", "epoch", "eval", "size", "kept because", "age", "from")


def kept_words(checkpoint: Checkpoint) -> str:
    """Why a checkpoint is kept."""
    words = []
    if "best" in checkpoint.kept:  # of one that nothing has been trained in, best is no achievement
        words.append("★ best" if checkpoint.step else "untrained, none better")
    words += ["pinned"] if checkpoint.pinned else []
    words += [one_line(label.replace("-", " ")) for label in checkpoint.kept if label not in ("best", "latest")]
    words += ["latest"] if "latest" in checkpoint.kept else []
    return ", ".join(words) or "recent"


def eval_of(checkpoint: Checkpoint) -> float | None:
    """Its validation loss, or the first score there is."""
    scores = checkpoint.eval
    return scores.get("eval/loss", next(iter(scores.values()), None))


class CheckpointsPane(Rows):
    """A row for each checkpoint, and one for the weights that training began with."""

    scope = "checkpoints"
    number = 4

    def __init__(self) -> None:
        super().__init__(id="checkpoints")
        self.run: Run | None = None
        self.detail: Detail | None = None
        self.now = 0.0
        self._moved = False
        """Whether the cursor is where the user put it."""

    def take(self, run: Run | None, detail: Detail | None, now: float) -> None:
        """Show the checkpoints of a run; the cursor goes to the foremost until it is moved."""
        if (run.id if run else None) != (self.run.id if self.run else None):
            self.home()
            self._moved = False
        self.run, self.now = run, now
        self.detail = detail if run is not None and detail is not None and detail.run_id == run.id else None
        if not self._moved and (step := self._foremost()) is not None:
            self.key = step
        self.rebuild()

    def _foremost(self) -> int | None:
        """Where the cursor rests until it is moved: on the newest while the run goes on, then on the best."""
        points = self.detail.checkpoints if self.detail else ()
        best = next((point.step for point in points if "best" in point.kept and point.step), None)
        newest = points[0].step if points else None
        return newest if best is None or (self.run is not None and self.run.active) else best

    def _go(self, index: int) -> None:
        self._moved = True
        super()._go(index)

    def places(self) -> tuple[str, ...]:
        return ("checkpoints", "list")

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The one under the cursor."""
        value = self.current.value if self.current else None
        return value if isinstance(value, Checkpoint) else None

    def title(self) -> Line:
        return [(msg("Checkpoints of {id}", id=self.run.id) if self.run else "Checkpoints", "title")]

    def hint(self) -> str:
        return "P pin · d delete · r resume here" if self.has_focus else ""

    def head(self, width: int) -> list[Line]:
        return [[(self._columns(width, *_TITLES), "dim")]]

    def _columns(
        self, width: int, step: str, epoch: str, loss: str, size: str, kept: str, made: str, parent: str
    ) -> str:
        """A line. Each column is as wide as what stands in it: why a checkpoint is kept gets the rest."""
        steps, epochs, losses, sizes, _, ages, parents = self._widths(width)
        text = fit(step, 1 + steps, ">") + (fit(epoch, 2 + epochs, ">") if epochs else "")
        text += fit(loss, 2 + losses, ">") + fit(size, 2 + sizes, ">") + "  "
        room = max(8, width - cells(text) - ages - 2 - (parents + 2 if parents else 0))
        text += fit(kept, room) + fit(made, 2 + ages, ">")
        return text + (fit(parent, 2 + parents, ">") if parents else "")

    def _widths(self, width: int) -> list[int]:
        """Of the columns; 0 for one that is left out: without entries, or the epoch in a narrow pane."""
        entries = [self._entries(point) for point in (self.detail.checkpoints if self.detail else ())]
        widths = [max([cells(title), *(cells(entry[i]) for entry in entries)]) for i, title in enumerate(_TITLES)]
        if width < 72:
            widths[1] = 0
        if not any(entry[-1] for entry in entries):
            widths[-1] = 0
        return widths

    def _entries(self, point: Checkpoint) -> tuple[str, ...]:
        gone = self.detail is not None and self.detail.present is not None and point.step not in self.detail.present
        return (
            numbers.count(point.step),
            "·" if point.epoch is None else f"{point.epoch:.2f}",
            numbers.short_metric(eval_of(point)),
            numbers.size(point.bytes),
            "files gone: cannot be resumed" if gone else kept_words(point),
            numbers.age(self.now - point.time),
            self._from(point),
        )

    def _from(self, point: Checkpoint) -> str:
        if point.parent_step is None:
            return ""
        same_run = point.parent_run in (None, point.run_id)
        return numbers.count(point.parent_step) if same_run else f"{point.parent_run}@{point.parent_step}"

    def make_rows(self, width: int) -> Sequence[Row]:
        detail, run = self.detail, self.run
        if detail is None or run is None:
            return ()
        rows = []
        for point in detail.checkpoints:
            gone = detail.present is not None and point.step not in detail.present
            text = self._columns(width, *self._entries(point))
            role = "failed" if gone else "bright" if "best" in point.kept and point.step else "text"
            rows.append(Row(point.step, [(text, role)], point))
        if run.parent_run is not None:
            base = f"base: {run.parent_run}@{run.parent_step}"
        else:
            base = f"base: {one_line(run.model)}" if run.model else ""
        if base:
            text = self._columns(width, "0", "—", "—", "—", base, "", "")
            rows.append(Row("base" if not rows else None, [(text, "dim")]))
        return rows

    def nothing(self, width: int, height: int) -> list[Line]:
        return [[("  none yet", "dim")]] if self.run else []
