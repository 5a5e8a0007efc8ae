"""What the main screen's keys do to runs: every change goes through the command thread, what destroys asks first, and
what cannot be done now says why."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.base.messages import msg, msg_n
from engine.base.units import bytes_text
from engine.present import numbers
from engine.present.numbers import listed
from engine.present.text import cells, fit, one_line
from engine.store.run_records import Checkpoint, Outcome, Run, RunState
from tui.data.feed import Answer
from tui.host import Undo
from tui.render.line import Line
from tui.screens.choice import Choose, ChooseSome
from tui.screens.dialogs import Confirm
from tui.screens.run_screen import RunScreen, state_words
from tui.screens.shared_actions import change, for_run, go_on, open_compare, open_new_run
from tui.screens.trash_screen import TrashScreen, named, restore
from tui.widgets.checkpoints_pane import eval_of, kept_words
from tui.widgets.run_pane import FAILED

if TYPE_CHECKING:
    from engine.plan.fixes import Fix

_MOST_COMPARED = 4
_MOST_NAMED = 6
"""Runs that a question before something is lost names one by one."""
FIXES_FOR_KEY = "fixes-for-key"
"""Of the feed's answers the one that the key for mending a run waits for."""
_OFF_QUEUE = "taken off the queue:"


def _can_stop(run: Run) -> bool:
    return not run.ended and run.wanted != "kill"


def _can_kill(run: Run) -> bool:
    return not run.ended


def _can_resume(run: Run) -> bool:
    return run.ended


def _can_hold(run: Run) -> bool:
    return run.state is RunState.QUEUED


def _can_delete(run: Run) -> bool:
    return not run.active


_GUARDS: dict[str, Callable[[Run], bool]] = {
    "main.stop": _can_stop,
    "main.kill": _can_kill,
    "main.resume": _can_resume,
    "main.hold": _can_hold,
    "main.move_down": _can_hold,
    "main.move_up": _can_hold,
    "main.move_top": _can_hold,
    "main.delete": _can_delete,
}
_NEED_A_RUN = (
    *_GUARDS, "main.edit", "main.rename", "main.tag", "main.note", "main.copy", "main.log", "main.compare", "runs.mark",
    "runs.mark_range", "runs.fork",
)  # fmt: skip


class RunActions:
    """Owned by the main screen, which asks `disabled_reason` before any of these is done."""

    def __init__(self, screen: RunScreen) -> None:
        self._screen = screen
        self._host = screen.host
        self._mended: Run | None = None
        """The failed run for which help is being looked for."""

    # what cannot be done now

    def disabled_reason(self, action_id: str) -> str:
        """Why an action cannot be done to what is chosen; empty if it can, to at least one of several."""
        chosen, snapshot = self._screen.chosen, self._host.snapshot
        verb = action_id.partition(".")[2].replace("_", " ")
        if action_id in _NEED_A_RUN and not chosen:
            return msg("{verb}: there is no run", verb=verb)
        if (guard := _GUARDS.get(action_id)) and not any(map(guard, chosen)):
            return msg("{verb}: run {id} {state}", verb=verb, id=chosen[0].id, state=state_words(chosen[0]))
        if action_id == "main.compare":
            return self._compare_disabled_reason(chosen)
        if action_id == "main.daemon" and snapshot.daemon.running:
            return msg("the daemon is running already (pid {pid})", pid=snapshot.daemon.pid)
        if action_id == "main.undo" and not self._host.undoes and not snapshot.trash:
            return "undo: nothing was done here that it takes back, and the trash is empty"
        return ""

    def _compare_disabled_reason(self, chosen: Sequence[Run]) -> str:
        if len(chosen) > _MOST_COMPARED:
            return msg(
                "compare: {num_chosen} runs are marked, {most_compared} fit side by side",
                num_chosen=len(chosen),
                most_compared=_MOST_COMPARED,
            )
        if len(chosen) == 1 and self._best_other(chosen[0]) is None:
            return "compare: no other run on the same data has an evaluation; space marks runs to compare"
        return ""

    def _best_other(self, run: Run) -> Run | None:
        """The run to compare with: the best other one on the same data; of those that are shown while the run's detail
        is on its way."""
        snapshot = self._host.snapshot
        if snapshot.detail is not None and snapshot.detail.run_id == run.id:
            return snapshot.detail.rival
        rivals = [other for other in snapshot.runs if other.id != run.id and other.data == run.data]
        scored = [other for other in rivals if other.best_eval is not None and other.best_by == run.best_by]
        return min(scored, key=lambda other: other.best.badness or 0.0, default=None)

    # changing the chosen runs

    def _change_chosen(
        self, verb: str, done: str, able: Callable[[Run], bool], call: Callable[[Any, Run], Any], off: str = ""
    ) -> None:
        """Ask for a change of every chosen run that can be changed so, and say what came of it; `off` of those that
        the change has stopped at once."""

        def words(outcomes: Sequence[Outcome]) -> str:
            ended = [outcome.run_id for outcome in outcomes if off and outcome.state is RunState.STOPPED]
            changed = [outcome.run_id for outcome in outcomes if outcome.run_id not in ended]
            parts = [f"{done} {listed(changed)}" if changed else "", f"{off} {listed(ended)}" if ended else ""]
            if ended:
                calls = tuple(partial(_put_back, run_id) for run_id in ended)
                self._host.undoes.append(Undo(calls, msg("back in the queue: {runs}", runs=listed(ended)), ended[0]))
                parts.append("u puts it back" if len(ended) == 1 else "u puts them back")
            return " · ".join(filter(None, parts))

        runs = [run for run in self._screen.chosen if able(run)]
        change(self._host, verb, [for_run(call, run) for run in runs], words, notes=True)

    def action_main_stop(self) -> None:
        """Stop the chosen runs after the step they are in."""
        self._change_chosen(
            "stop", "stops after this step:", _can_stop, lambda control, run: control.stop(run.id), _OFF_QUEUE
        )

    def action_main_kill(self) -> None:
        """Waiting runs leave the queue, which loses nothing; where a process would be ended, ask first."""
        runs = [run for run in self._screen.chosen if run.active]
        waiting = [run.id for run in self._screen.chosen if run.state is RunState.QUEUED]

        def kill() -> None:
            self._change_chosen("kill", "killed", _can_kill, lambda control, run: control.kill(run.id), _OFF_QUEUE)

        if not runs:
            kill()
            return
        losses = [f"Run {run.id} {one_line(run.name)}: {self._unsaved(run)}" for run in runs[:_MOST_NAMED]]
        losses += _and_more(runs)
        losses += [msg("Off the queue: {waiting}", waiting=listed(waiting))] if waiting else []
        losses += ["", "x would let it finish its step and save first."]
        heading = msg_n("Kill {n:,} run without saving?", "Kill {n:,} runs without saving?", len(runs))
        self._host.push_screen(Confirm(heading, losses, kill, "kills"))

    def _unsaved(self, run: Run) -> str:
        detail = self._host.snapshot.detail
        if detail is None or detail.run_id != run.id:
            return msg("what came after its last checkpoint is lost (it is at step {step})", step=run.step)
        last = max((point.step for point in detail.checkpoints), default=0)
        return msg_n(
            "{n:,} step since the checkpoint of step {last} are lost",
            "{n:,} steps since the checkpoint of step {last} are lost",
            max(0, run.step - last),
            last=last,
        )

    def action_main_hold(self) -> None:
        """Hold those that may start, or release if all of them are held."""
        waiting = [run for run in self._screen.chosen if _can_hold(run)]
        if all(run.held for run in waiting):
            self._change_chosen("release", "released", _can_hold, lambda control, run: control.release(run.id))
        else:
            self._change_chosen("hold", "held", _can_hold, lambda control, run: control.hold(run.id))

    def action_main_move(self, to: str) -> None:
        """Move waiting runs in the queue: 'up', 'down' or to the 'top'."""
        runs = [run for run in self._screen.chosen if _can_hold(run)]
        if to != "up":
            runs.reverse()  # several keep their order among themselves
        change(self._host, "move", [for_run(lambda control, run: control.move(run.id, to), run) for run in runs])

    def action_main_resume(self) -> None:
        """Go on from a checkpoint: one run from one that is chosen from a list, several from their latest."""
        chosen = [run for run in self._screen.chosen if _can_resume(run)]
        points = self._points_of(chosen[0]) if len(chosen) == 1 else []
        if not points:
            self._change_chosen(
                "resume", "queued again:", _can_resume, lambda control, run: control.resume(run.id, "latest")
            )
            return
        run = chosen[0]
        choices: list[tuple[Any, Line]] = []
        for index, point in enumerate(points):
            lost = "" if not index else msg("   later checkpoints are set aside ({index})", index=index)
            choices.append((point.step, [*_choice(point), (lost, "dim")]))

        def resume(step: int) -> None:
            go_on(self._screen, run, step, step == points[0].step)

        self._host.push_screen(Choose(msg("Go on with run {id} from", id=run.id), choices, resume))

    def _points_of(self, run: Run) -> list[Checkpoint]:
        """The checkpoints of a run whose files are there, the newest first; none while they are being read."""
        detail = self._host.snapshot.detail
        if detail is None or detail.run_id != run.id:
            return []
        return [point for point in detail.checkpoints if detail.present is None or point.step in detail.present]

    def action_runs_fork(self) -> None:
        """A new run from the weights of one of its checkpoints; its best comes first."""
        run = self._screen.runs.run
        points = self._points_of(run) if run is not None else []
        if run is None or not points:
            self._host.say("fork: the run has no checkpoint whose files are there", "warning")
            return
        points.sort(key=lambda point: "best" not in point.kept)
        choices: list[tuple[Any, Line]] = [(point.step, _choice(point)) for point in points]
        heading = msg("New run from the weights of run {id} at", id=run.id)
        self._host.push_screen(Choose(heading, choices, lambda step: open_new_run(self._host, parent=(run.id, step))))

    def action_main_delete(self) -> None:
        """To the trash, after saying what that is: how many bytes and checkpoints."""
        runs = [run for run in self._screen.chosen if _can_delete(run)]

        def confirm(sizes: Sequence[int]) -> None:
            detail = self._host.snapshot.detail
            losses = []
            for run, size in list(zip(runs, sizes, strict=True))[:_MOST_NAMED]:
                points = len(detail.checkpoints) if detail is not None and detail.run_id == run.id else None
                words = msg_n(", {n:,} checkpoint", ", {n:,} checkpoints", points) if points else ""
                losses.append(f"Run {run.id} {one_line(run.name)}: {bytes_text(size)}{words}")
            losses += _and_more(runs)
            losses += ["", msg("{bytes} go to the trash; u takes them back out.", bytes=bytes_text(sum(sizes)))]
            heading = msg_n("Delete {n:,} run?", "Delete {n:,} runs?", len(runs))
            self._host.push_screen(Confirm(heading, losses, lambda: self._delete(runs), "deletes"))

        self._host.question_pending = True
        self._host.commands.do(
            "delete", *(for_run(lambda control, run: control.run_bytes(run.id), run) for run in runs), then=confirm
        )

    def _delete(self, runs: Sequence[Run]) -> None:
        def words(outcomes: Sequence[Outcome]) -> str:
            deleted = [outcome.run_id for outcome in outcomes]
            calls = tuple(partial(_restore, run_id) for run_id in deleted)
            self._host.undoes.append(Undo(calls, msg("back again: {runs}", runs=listed(deleted)), deleted[0]))
            self._screen.runs.marks.difference_update(deleted)
            self._screen.runs.rebuild()
            if len(deleted) == 1:
                return msg("in the trash: {deleted} · u takes it back out", deleted=listed(deleted))
            return msg("in the trash: {deleted} · u takes them back out", deleted=listed(deleted))

        change(self._host, "delete", [for_run(lambda control, run: control.trash(run.id), run) for run in runs], words)

    def action_main_undo(self) -> None:
        """Take back what was done last from here; of an earlier session what was deleted last."""
        if self._host.undoes:
            undo = self._host.undoes.pop()
        else:
            last = self._host.snapshot.trash[-1]
            undo = Undo((partial(restore, last),), msg("back again: {what}", what=named(last)), last.run_id)

        def report(outcomes: Sequence[Outcome]) -> str:
            self._host.go_to_run(undo.run_id)
            return undo.done

        change(self._host, "undo", undo.calls, report)

    def action_main_trash(self) -> None:
        """What lies in the trash."""
        self._host.push_screen(TrashScreen())

    # names, tags and notes

    def action_main_rename(self) -> None:
        """Ask for another name of the run under the cursor."""
        if run := self._screen.runs.run:
            label = msg("name of {id}", id=run.id)
            self._screen.ask(label, run.name, lambda name: self._rename(run, name))

    def _rename(self, run: Run, name: str) -> None:
        done = msg("run {id} is called {name}", id=run.id, name=name)
        change(self._host, "rename", [lambda control: control.rename(run.id, name, run.name)], done, notes=True)

    def action_main_note(self) -> None:
        """Ask for a note on the run under the cursor."""
        if run := self._screen.runs.run:
            self._screen.ask(msg("note on {id}", id=run.id), run.note, lambda note: self._note(run, note))

    def _note(self, run: Run, note: str) -> None:
        done = msg("run {id} noted: {note}", id=run.id, note=note)
        change(self._host, "note", [lambda control: control.note(run.id, note, run.note)], done, notes=True)

    def action_main_tag(self) -> None:
        """Ask for the tags of the chosen runs; all of them get the same."""
        runs = self._screen.chosen

        def tag(text: str) -> None:
            tags = tuple(dict.fromkeys(text.replace(",", " ").split()))
            done = f"tagged {' '.join(tags) or 'with nothing'}:"
            self._change_chosen("tag", done, lambda run: True, lambda control, run: control.tag(run.id, tags, run.tags))

        self._screen.ask(msg("tags of {runs}", runs=listed([run.id for run in runs])), " ".join(runs[0].tags), tag)

    # new runs

    def action_main_new(self) -> None:
        """The form of a new run from the defaults or a preset."""
        open_new_run(self._host)

    def action_main_edit(self) -> None:
        """A new run from this one; of a failed run first the fixes, however lately it failed."""
        run = self._screen.runs.run
        if run is None:
            return
        if run.state not in FAILED:
            open_new_run(self._host, run.id)
            return
        self._mended = run
        self._host.question_pending = True
        self._host.feed.query(FIXES_FOR_KEY, self._screen.run.fixes_question(run))

    def offer_fixes(self, answer: Answer) -> None:
        """What helps a failed run has been found out: offer it, and beside it the form."""
        run, self._mended = self._mended, None
        self._host.question_pending = False
        if run is not None:
            _, fixes, wrong_setting = answer.value or (run.id, [], "")
            self._offer(run, fixes, wrong_setting)
        self._host.call_later(self._host.dispatch_keys)

    def _offer(self, run: Run, fixes: "Sequence[Fix]", wrong_setting: str) -> None:
        if not fixes:
            open_new_run(self._host, run.id, at=wrong_setting)
            return
        labels = [one_line(fix.label) for fix in fixes]
        width = max(map(cells, labels)) + 2
        choices: list[tuple[Any, Line]] = [
            (fix, [(fit(label, width), "text"), (fix.effect, "dim")]) for fix, label in zip(fixes, labels, strict=True)
        ]
        choices.append((None, [("other settings …", "text")]))

        def choose(chosen: "list[Fix | None]") -> None:
            if None in chosen:
                open_new_run(self._host, run.id, at=wrong_setting)
            else:
                self._queue_fixed(run, [fix for fix in chosen if fix is not None])

        self._host.push_screen(ChooseSome(msg("Queue run {id} again with", id=run.id), choices, choose))

    def _queue_fixed(self, run: Run, fixes: "Sequence[Fix]") -> None:
        from engine.plan.fixes import fixed, together  # loaded already: it found the fixes

        folder, fix = self._host.workspace.runs / str(run.id), together(fixes)

        def queue(control: Any) -> int:
            return control.add(fixed(folder, fix))

        def report(run_ids: Sequence[int]) -> None:
            self._host.go_to_run(run_ids[0])
            self._host.say(msg("run {id} is queued: {label}", id=run_ids[0], label=fix.label))

        self._host.commands.do("queue", queue, then=report)

    def action_main_compare(self) -> None:
        """The marked runs side by side, or this one with the best other on its data."""
        run_ids = [run.id for run in self._screen.chosen]
        if len(run_ids) == 1 and (rival := self._best_other(self._screen.chosen[0])):
            run_ids.append(rival.id)
        open_compare(self._host, list(map(str, run_ids)))

    def action_main_daemon(self) -> None:
        """Start the daemon."""

        def report(started: Sequence[bool]) -> None:
            self._host.say("the daemon starts" if started[0] else "the daemon is running already")

        self._host.commands.do("start daemon", lambda control: control.start_daemon(), then=report)


def _choice(point: Checkpoint) -> Line:
    text = msg(
        "step {step:>8}   eval {loss:>6}   {kept_words}",
        step=numbers.count(point.step),
        loss=numbers.short_metric(eval_of(point)),
        kept_words=kept_words(point),
    )
    return [(text, "text")]


def _restore(run_id: int, control: Any) -> Outcome:
    return control.restore(run_id)


def _put_back(run_id: int, control: Any) -> Outcome:
    return control.put_back(run_id)


def _and_more(runs: Sequence[Run]) -> list[str]:
    return [msg("and {num_runs} more", num_runs=len(runs) - _MOST_NAMED)] if len(runs) > _MOST_NAMED else []
