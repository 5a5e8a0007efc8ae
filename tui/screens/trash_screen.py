"""The trash as a list over the screen: what was deleted last on top; each is taken back or deleted for good."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from engine.base.messages import msg
from engine.base.units import bytes_text
from engine.base.workspace import folder_bytes
from engine.present import numbers
from engine.present.text import fit, one_line, wrap
from engine.store.run_records import Outcome
from engine.store.trash import Trashed
from tui.data.feed import Answer
from tui.data.snapshot import Snapshot
from tui.keymap import Action
from tui.render.line import Line
from tui.screens.dialogs import Confirm, Dialog
from tui.screens.shared_actions import change
from tui.widgets.rows import Row, Rows


def restore(trashed: Trashed, control: Any) -> Outcome:
    """Take it back out."""
    run_id, step = trashed.run_id, trashed.step
    return control.restore(run_id) if step is None else control.restore_checkpoint(run_id, step)


def purge(trashed: Trashed, control: Any) -> Outcome:
    """Delete it for good."""
    run_id, step = trashed.run_id, trashed.step
    return control.purge(run_id) if step is None else control.purge_checkpoint(run_id, step)


def named(trashed: Trashed) -> str:
    """`run 41`, or `the checkpoint of step 600 of run 41`."""
    if trashed.step is None:
        return msg("run {id}", id=trashed.run_id)
    return msg("the checkpoint of step {step} of run {id}", step=trashed.step, id=trashed.run_id)


class _Trash(Rows):
    scope = "trash"

    def __init__(self) -> None:
        super().__init__(id="dialog")
        self.sizes: Mapping[str, int] = {}

    def title(self) -> str:
        if not self.sizes:
            return "Trash"
        return msg("Trash: {total}", total=bytes_text(sum(self.sizes.values())))

    def hint(self) -> str:
        return "enter takes it back · d deletes it for good · D all of it · esc back" if self.rows else "esc back"

    def places(self) -> tuple[str, ...]:
        return ("trash", "list")

    def head(self, width: int) -> list[Line]:
        return [[(self._columns(width, "", "name", "size", "deleted"), "dim")]] if self.rows else []

    def _columns(self, width: int, label: str, name: str, size: str, deleted: str) -> str:
        return "  " + fit(label, 12) + fit(name, max(8, width - 36)) + fit(size, 8, ">") + fit(deleted, 12, ">")

    def make_rows(self, width: int) -> Sequence[Row]:
        snapshot = self.host.snapshot
        rows = []
        for trashed in reversed(snapshot.trash):
            size = numbers.size(self.sizes.get(trashed.label))
            ago = msg("{age} ago", age=numbers.age(snapshot.taken - trashed.deleted))
            text = self._columns(width, trashed.label, one_line(trashed.name), size, ago)
            rows.append(Row(trashed.label, [(text, "text")], trashed))
        return rows

    def nothing(self, width: int, height: int) -> list[Line]:
        words = (
            "What d deletes, runs and checkpoints, comes here until you delete it for good, or a disk is full: then"
            " what has lain here longest goes first."
        )
        lines: list[Line] = [[], [("  The trash is empty.", "text")], []]
        return [*lines, *([("  " + text, "dim")] for text in wrap(words, max(20, width - 4)))]


class TrashScreen(Dialog[_Trash]):
    """Sizes are read on the feed's thread: folders may be large."""

    own_places = ("trash", "list", "any")

    def box(self) -> _Trash:
        return _Trash()

    def box_size(self, width: int, height: int) -> tuple[int, int]:
        return min(width - 4, 100), min(height - 4, max(9, len(self.host.snapshot.trash) + 3))

    def on_mount(self) -> None:
        self._measure()

    def take(self, snapshot: Snapshot) -> None:
        """Something may have come or gone."""
        if {trashed.label for trashed in snapshot.trash} != set(self.pane.sizes):
            self._measure()
        self.place_box()
        self.pane.rebuild()

    def _measure(self) -> None:
        paths = {trashed.label: trashed.path for trashed in self.host.snapshot.trash}
        self.host.feed.read("trash", lambda: {label: folder_bytes(path) for label, path in paths.items()})

    def answered(self, answer: Answer) -> None:
        if answer.key == "trash" and isinstance(answer.value, dict):
            self.pane.sizes = answer.value
            self.pane.rebuild()

    def status_changed(self) -> None:
        """What came of it stands on the screen below."""

    def disabled_reason(self, action: Action) -> str:
        """Nothing can be done to an empty trash."""
        if reason := super().disabled_reason(action):
            return reason
        return "the trash is empty" if action.where == "trash" and not self.pane.rows else ""

    def action_trash_restore(self) -> None:
        """Take the one under the cursor back."""
        if self.pane.current is not None:
            trashed = self.pane.current.value
            change(self.host, "restore", [partial(restore, trashed)], msg("back again: {what}", what=named(trashed)))

    def action_trash_purge(self) -> None:
        """Delete the one under the cursor for good, after a question."""
        if self.pane.current is not None:
            trashed = self.pane.current.value
            self._ask(msg("Delete {what} for good?", what=named(trashed)), [trashed])

    def action_trash_empty(self) -> None:
        """Delete all of it for good, after a question."""
        # Checkpoints first: a run takes those it has there along.
        everything = sorted(self.host.snapshot.trash, key=lambda trashed: trashed.step is None)
        self._ask("Delete all of the trash for good?", everything)

    def _ask(self, heading: str, doomed: Sequence[Trashed]) -> None:
        total = sum(self.pane.sizes.get(trashed.label, 0) for trashed in doomed)
        lost = [msg("{size}; nothing can bring it back.", size=bytes_text(total))]

        def delete() -> None:
            calls = [partial(purge, trashed) for trashed in doomed]
            done = msg("deleted for good: {what}", what=numbers.listed([trashed.label for trashed in doomed]))
            change(self.host, "delete", calls, done)

        self.host.push_screen(Confirm(heading, lost, delete, verb="deletes"))

    def action_main_trash(self) -> None:
        """The key that opened it closes it."""
        self.app.pop_screen()
