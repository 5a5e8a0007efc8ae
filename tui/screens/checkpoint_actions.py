"""What keys do to the checkpoints of the selected run, and why they cannot."""

from collections.abc import Sequence
from typing import Any

from engine.base.messages import msg
from engine.base.units import bytes_text
from engine.metrics.best_evaluation import criteria, parse_criterion
from engine.present import numbers
from engine.present.text import fit, one_line
from engine.store.run_records import Checkpoint, Outcome, Run
from tui.data.snapshot import Detail
from tui.host import Undo
from tui.render.line import Line
from tui.screens.choice import Choose
from tui.screens.dialogs import Confirm
from tui.screens.run_screen import RunScreen, state_words
from tui.screens.shared_actions import change, go_on, open_compare, open_new_run
from tui.widgets.checkpoints_pane import kept_words
from tui.widgets.run_pane import eval_charts


class CheckpointActions:
    """Owned by the main screen, which asks `disabled_reason` before any of these is done."""

    def __init__(self, screen: RunScreen) -> None:
        self._screen = screen

    def disabled_reason(self, action_id: str) -> str:
        """Why an action cannot be done to the checkpoint under the cursor; empty if it can."""
        pane = self._screen.checkpoints
        point, run, detail = pane.checkpoint, pane.run, pane.detail
        verb = action_id.partition(".")[2]
        if point is None or run is None:
            return msg("{verb}: there is no checkpoint here", verb=verb)
        gone = detail is not None and detail.present is not None and point.step not in detail.present
        if action_id == "checkpoints.resume":
            if gone:
                return msg("resume: the files of step {step} are gone", step=point.step)
            return "" if run.ended else msg("resume: run {id} {state}", id=run.id, state=state_words(run))
        if action_id == "checkpoints.best" and not run.ended:
            return msg("best: run {id} {state}; it can be chosen once it has ended", id=run.id, state=state_words(run))
        if action_id == "checkpoints.fork" and gone:
            return msg("fork: the files of step {step} are gone", step=point.step)
        if action_id == "checkpoints.delete" and point.pinned:
            return msg("delete: the checkpoint of step {step} is pinned; P takes the pin away", step=point.step)
        return ""

    def _selected(self) -> tuple[Run, Checkpoint, Detail] | None:
        pane = self._screen.checkpoints
        if pane.run is None or pane.checkpoint is None or pane.detail is None:
            return None
        return pane.run, pane.checkpoint, pane.detail

    def action_checkpoints_pin(self) -> None:
        """Pin the checkpoint under the cursor, or take its pin away."""
        if selected := self._selected():
            _, point, _ = selected
            pinned = not point.pinned
            done = (
                msg("step {step} is pinned: nothing deletes it", step=point.step)
                if pinned
                else msg("step {step} is no longer pinned", step=point.step)
            )
            change(self._screen.host, "pin", [lambda control: control.pin(point.run_id, point.step, pinned)], done)

    def action_checkpoints_delete(self) -> None:
        """Move a checkpoint to the trash, after saying what that is."""
        if not (selected := self._selected()):
            return
        _, point, detail = selected
        only = len(detail.checkpoints) == 1
        losses = [
            msg(
                "Step {step} of run {run_id}: {bytes}, kept because: {reason}.",
                step=numbers.count(point.step),
                run_id=point.run_id,
                bytes=bytes_text(point.bytes or 0),
                reason=kept_words(point),
            )
        ]
        losses += ["It is the only one: the run could then not be resumed."] if only else []
        losses += ["It goes to the trash; u takes it back out."]
        host = self._screen.host

        def delete() -> None:
            def words(outcomes: Sequence[Outcome]) -> str:
                back = msg("back again: the checkpoint of step {step}", step=point.step)
                call = lambda control: control.restore_checkpoint(point.run_id, point.step)  # noqa: E731
                host.undoes.append(Undo((call,), back, point.run_id))
                return msg("in the trash: the checkpoint of step {step} · u takes it back out", step=point.step)

            call = lambda control: control.delete_checkpoint(point.run_id, point.step, force=only)  # noqa: E731
            change(host, "delete", [call], words)

        host.push_screen(Confirm("Delete this checkpoint?", losses, delete, "deletes"))

    def action_checkpoints_resume(self) -> None:
        """Go on from the checkpoint under the cursor."""
        if selected := self._selected():
            run, point, detail = selected
            go_on(self._screen, run, point.step, point is detail.checkpoints[0])

    def action_checkpoints_fork(self) -> None:
        """A new run from the checkpoint's weights, edited first."""
        if selected := self._selected():
            _, point, _ = selected
            open_new_run(self._screen.host, parent=(point.run_id, point.step))

    def action_checkpoints_compare(self) -> None:
        """This checkpoint beside the run's best; the best beside the newest."""
        if selected := self._selected():
            _, point, _ = selected
            other = "latest" if "best" in point.kept else "best"
            open_compare(self._screen.host, [f"{point.run_id}@{point.step}", f"{point.run_id}@{other}"])

    def action_checkpoints_best(self) -> None:
        """Which metric says what the best is: one that was measured, or any that can be worked out."""
        if not (selected := self._selected()):
            return
        run, _, detail = selected
        choices: list[tuple[Any, Line]] = []
        for text in (text for keys in eval_charts(detail.series) for key in keys for text in criteria(key)):
            criterion = parse_criterion(text)
            series = detail.series[criterion.key]
            best, step = (series.low, series.low_step) if criterion.lower else (series.high, series.high_step)
            words = (
                msg("{loss:>8} at step {step}", loss=numbers.short_metric(best), step=numbers.count(step))
                if best is not None
                else ""
            )
            so_far = "   so far" if text == run.best_by else ""
            choices.append((text, [(fit(one_line(text), 28), "text"), (words + so_far, "dim")]))
        choices.append(("", [("another metric …", "text")]))

        def choose(text: str) -> None:
            if text:
                self._choose_best(run, text)
            else:
                label = msg("best of {id} by (METRIC, METRIC:min)", id=run.id)
                self._screen.ask(label, "", lambda typed: self._choose_best(run, typed))

        heading = msg("Best of run {id} goes by", id=run.id)
        self._screen.host.push_screen(Choose(heading, choices, choose))

    def _choose_best(self, run: Run, criterion: str) -> None:
        host = self._screen.host
        host.commands.do(
            "best",
            lambda control: control.choose_best(run.id, criterion),
            then=lambda texts: host.say_whole(msg("run {run_id}", run_id=run.id), texts[0]),
        )
