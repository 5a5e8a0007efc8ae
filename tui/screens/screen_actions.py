"""What the main screen's keys do to runs: every change goes through the actor, what destroys asks first, and what
cannot be done now says why."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.base.messages import msg
from engine.base.units import bytes_text
from engine.metrics.best_evaluation import criteria, parse_criterion
from engine.present import numbers
from engine.present.numbers import listed, plural
from engine.present.text import fit, one_line
from engine.store.run_records import Run, RunState
from tui.data.snapshot import Snapshot
from tui.render.line import Line
from tui.render.notifications import since_last_time
from tui.screens.dialogs import Choose, Confirm, Notice
from tui.widgets.checkpoints_pane import eval_of, kept_words
from tui.widgets.prompt import Prompt
from tui.widgets.run_pane import WHY, eval_charts

if TYPE_CHECKING:
    from tui.screens.key_screen import KeyScreen as Base
else:
    Base = object

_ENDED_WORDS = {
    RunState.DONE: "has already finished",
    RunState.STOPPED: "has been stopped",
    RunState.FAILED: "has failed",
    RunState.INTERRUPTED: "was interrupted",
}
_MOST_COMPARED = 4
_OFF_QUEUE = "taken off the queue:"


def _state_words(run: Run) -> str:
    if run.ended:
        return _ENDED_WORDS[run.state]
    return "is still waiting" if run.state is RunState.QUEUED else "is running"


def _can_stop(run: Run) -> bool:
    return not run.ended and run.wanted != "kill"


def _can_resume(run: Run) -> bool:
    return run.ended


def _can_hold(run: Run) -> bool:
    return run.state is RunState.QUEUED


def _can_delete(run: Run) -> bool:
    return not run.active


_GUARDS: dict[str, Callable[[Run], bool]] = {
    "main.stop": _can_stop,
    "main.kill": lambda run: not run.ended,
    "main.resume": _can_resume,
    "main.hold": _can_hold,
    "main.move_down": _can_hold,
    "main.move_up": _can_hold,
    "main.move_top": _can_hold,
    "main.delete": _can_delete,
}


class Acts(Base):
    """Mixed into the main screen."""

    # what cannot be done now

    def why_not(self, action_id: str) -> str:
        """Why an action cannot be done to what is chosen; empty if it can, to at least one of several."""
        if action_id.startswith("checkpoints."):
            return self._why_not_checkpoint(action_id)
        chosen = self.chosen
        verb = action_id.partition(".")[2].replace("_", " ")
        needs = (*_GUARDS, "main.edit", "main.rename", "main.tag", "main.note", "main.copy", "main.log", "main.compare")
        if (action_id in needs or action_id.startswith("runs.mark")) and not chosen:
            return msg("{verb}: there is no run", verb=verb)
        if (guard := _GUARDS.get(action_id)) and not any(map(guard, chosen)):
            return f"{verb}: run {chosen[0].id} {_state_words(chosen[0])}"
        if action_id == "main.compare":
            return self._why_not_compare(chosen)
        if action_id == "main.daemon" and self.host.snapshot.daemon.running:
            return msg("the daemon is running already (pid {pid})", pid=self.host.snapshot.daemon.pid)
        if action_id == "main.undo" and not self.host.deleted:
            return "undo: nothing was deleted from here"
        return ""

    def _why_not_checkpoint(self, action_id: str) -> str:
        point, run = self.checkpoints.checkpoint, self.checkpoints.run
        verb = action_id.partition(".")[2]
        if point is None or run is None:
            return msg("{verb}: there is no checkpoint here", verb=verb)
        detail = self.checkpoints.detail
        gone = detail is not None and detail.present is not None and point.step not in detail.present
        if action_id == "checkpoints.resume":
            if gone:
                return msg("resume: the files of step {step} are gone", step=point.step)
            return "" if run.ended else msg("resume: run {id} {run}", id=run.id, run=_state_words(run))
        if action_id == "checkpoints.best" and not run.ended:
            return msg("best: run {id} {run}; it can be told once it has ended", id=run.id, run=_state_words(run))
        if action_id == "checkpoints.fork" and gone:
            return msg("fork: the files of step {step} are gone", step=point.step)
        if action_id == "checkpoints.delete" and point.pinned:
            return msg("delete: the checkpoint of step {step} is pinned; P takes the pin away", step=point.step)
        return ""

    def _why_not_compare(self, chosen: Sequence[Run]) -> str:
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
        detail = self.host.snapshot.detail
        if detail is not None and detail.run_id == run.id:
            return detail.rival
        others = [other for other in self.host.snapshot.runs if other.id != run.id and other.data == run.data]
        scored = [other for other in others if other.best_eval is not None and other.best_by == run.best_by]
        return min(scored, key=lambda other: other.best.badness or 0.0, default=None)

    # doing

    def _do(
        self,
        verb: str,
        done: str,
        able: Callable[[Run], bool],
        call: Callable[[Any, Run], Any],
        off: str = "",
    ) -> None:
        """Ask for a change of every chosen run that it can be made to, and say what came of it; `off` of those that it
        has stopped at once."""
        runs = [run for run in self.chosen if able(run)]

        def then(outcomes: list[Any]) -> None:
            ended = [outcome.run_id for outcome in outcomes if outcome and off and outcome.state is RunState.STOPPED]
            won = [outcome.run_id for outcome in outcomes if outcome and outcome.run_id not in ended]
            lost = [outcome for outcome in outcomes if not outcome]
            parts = [f"{done} {listed(won)}" if won else "", f"{off} {listed(ended)}" if ended else ""]
            said = " · ".join(filter(None, parts))
            if lost:
                self.host.say_whole(verb, lost[0].why + (f"\n{said}" if said else ""), "warning")
            else:
                self.host.say(said)
            self._tell_notes(outcomes)

        self.host.actor.do(verb, *(lambda control, run=run: call(control, run) for run in runs), then=then)

    def _tell_notes(self, outcomes: Sequence[Any]) -> None:
        """What there is to know of the runs that were changed, beside that it was done."""
        if notes := [f"run {outcome.run_id}: {note}" for outcome in outcomes if outcome for note in outcome.notes]:
            self.app.push_screen(Notice("Before it goes on", notes))

    def do_main_stop(self) -> None:
        self._do("stop", "stops after this step:", _can_stop, lambda control, run: control.stop(run.id), _OFF_QUEUE)

    def do_main_kill(self) -> None:
        """Waiting runs leave the queue, which loses nothing; where a process would be ended, ask first."""
        runs = [run for run in self.chosen if run.active]
        waiting = [run for run in self.chosen if run.state is RunState.QUEUED]

        def done() -> None:
            able = _GUARDS["main.kill"]
            self._do("kill", "killed", able, lambda control, run: control.kill(run.id), _OFF_QUEUE)

        if not runs:
            done()
            return
        lost = [f"Run {run.id} {one_line(run.name)}: {self._unsaved(run)}" for run in runs[:6]]
        lost += [msg("and {num_runs} more", num_runs=len(runs) - 6)] if len(runs) > 6 else []
        lost += [msg("Off the queue: {waiting}", waiting=listed([run.id for run in waiting]))] if waiting else []
        lost += ["", "x would let it finish its step and save first."]
        self.app.push_screen(
            Confirm(msg("Kill {num_runs} without saving?", num_runs=plural(len(runs), "run")), lost, done, "X", "kills")
        )

    def _unsaved(self, run: Run) -> str:
        detail = self.host.snapshot.detail
        points = detail.checkpoints if detail is not None and detail.run_id == run.id else ()
        last = max((point.step for point in points), default=0)
        if not points and (detail is None or detail.run_id != run.id):
            return msg("what came after its last checkpoint is lost (it is at step {step})", step=run.step)
        return msg(
            "{plural} since the checkpoint of step {last} are lost",
            plural=plural(max(0, run.step - last), "step"),
            last=last,
        )

    def do_main_hold(self) -> None:
        """Hold those that may start, or release if all of them are held."""
        waiting = [run for run in self.chosen if _can_hold(run)]
        if all(run.held for run in waiting):
            self._do("release", "released", _can_hold, lambda control, run: control.release(run.id))
        else:
            self._do("hold", "held", _can_hold, lambda control, run: control.hold(run.id))

    def do_main_move_up(self) -> None:
        self._move("up")

    def do_main_move_down(self) -> None:
        self._move("down")

    def do_main_move_top(self) -> None:
        self._move("top")

    def _move(self, to: str) -> None:
        runs = [run for run in self.chosen if _can_hold(run)]
        if to != "up":
            runs.reverse()  # several keep their order among themselves
        calls = [lambda control, run=run: control.move(run.id, to) for run in runs]

        def then(outcomes: list[Any]) -> None:
            if lost := [outcome for outcome in outcomes if not outcome]:
                self.host.say(f"move: {lost[0].why}", "warning")

        self.host.actor.do("move", *calls, then=then)

    def do_main_resume(self) -> None:
        chosen = [run for run in self.chosen if _can_resume(run)]
        detail = self.host.snapshot.detail
        if len(chosen) != 1 or detail is None or detail.run_id != chosen[0].id:
            self._resume_latest()
            return
        run, points = chosen[0], [p for p in detail.checkpoints if detail.present is None or p.step in detail.present]
        if not points:
            self._resume_latest()
            return
        choices: list[tuple[Any, Line]] = []
        for index, point in enumerate(points):
            lost = "" if not index else msg("later checkpoints are set aside ({index})", index=index)
            text = msg(
                "step {step:>8}   eval {point:>6}   {kept_words}",
                step=numbers.count(point.step),
                point=numbers.short_metric(eval_of(point)),
                kept_words=kept_words(point),
            )
            choices.append((point.step, [(text, "text"), (f"   {lost}", "dim")]))
        self.app.push_screen(
            Choose(
                msg("Go on with run {id} from", id=run.id),
                choices,
                lambda step: self._resume_at(run, step, step == points[0].step),
            )
        )

    def _resume_latest(self) -> None:
        self._do("resume", "queued again:", _can_resume, lambda control, run: control.resume(run.id, "latest"))

    def _resume_at(self, run: Run, step: int, newest: bool) -> None:
        point = "latest" if newest else str(step)

        def then(outcomes: list[Any]) -> None:
            if outcome := outcomes[0]:
                self.host.say(msg("run {id} is queued to go on from step {step}", id=run.id, step=step))
                self._tell_notes(outcomes)
            else:
                self.host.say_whole("resume", outcome.why, "warning")

        self.host.actor.do("resume", lambda control: control.resume(run.id, point), then=then)

    def do_main_delete(self) -> None:
        """To the trash, after saying what that is: how many bytes and checkpoints."""
        runs = [run for run in self.chosen if _can_delete(run)]

        def sized(amounts: list[int]) -> None:
            detail = self.host.snapshot.detail
            lost = []
            for run, amount in list(zip(runs, amounts, strict=True))[:6]:
                points = len(detail.checkpoints) if detail is not None and detail.run_id == run.id else None
                words = f", {plural(points, 'checkpoint')}" if points else ""
                lost.append(f"Run {run.id} {one_line(run.name)}: {bytes_text(amount)}{words}")
            lost += [msg("and {num_runs} more", num_runs=len(runs) - 6)] if len(runs) > 6 else []
            lost += ["", msg("{amounts} go to the trash; u takes them back out.", amounts=bytes_text(sum(amounts)))]
            self.app.push_screen(
                Confirm(f"Delete {plural(len(runs), 'run')}?", lost, lambda: self._delete(runs), "d", "deletes")
            )

        self.host.asking = True
        self.host.actor.do("delete", *(lambda control, run=run: control.run_bytes(run.id) for run in runs), then=sized)

    def _delete(self, runs: Sequence[Run]) -> None:
        def then(outcomes: list[Any]) -> None:
            won = [outcome.run_id for outcome in outcomes if outcome]
            if won:
                self.host.deleted.append(won)
                self.runs.marks.difference_update(won)
            if lost := [outcome for outcome in outcomes if not outcome]:
                self.host.say(f"delete: {lost[0].why}", "warning")
            else:
                self.host.say(
                    msg(
                        "in the trash: {won} · u takes {suffix} back out",
                        won=listed(won),
                        suffix="it" if len(won) == 1 else "them",
                    )
                )

        self.host.actor.do("delete", *(lambda control, run=run: control.trash(run.id) for run in runs), then=then)

    def do_main_undo(self) -> None:
        last = self.host.deleted.pop()

        def then(outcomes: list[Any]) -> None:
            if lost := [outcome for outcome in outcomes if not outcome]:
                self.host.say(f"undo: {lost[0].why}", "warning")
            else:
                self.host.say(msg("back again: {last}", last=listed(last)))

        self.host.actor.do(
            "undo", *(lambda control, run_id=run_id: control.restore(run_id) for run_id in last), then=then
        )

    # words about runs

    def do_main_rename(self) -> None:
        run = self.runs.run
        if run is not None:
            said = "is called"
            self.ask(
                Prompt(msg("name of {id}", id=run.id), run.name, lambda text: self._describe(run, "rename", text, said))
            )

    def do_main_note(self) -> None:
        run = self.runs.run
        if run is not None:
            self.ask(
                Prompt(
                    msg("note on {id}", id=run.id), run.note, lambda text: self._describe(run, "note", text, "noted:")
                )
            )

    def _describe(self, run: Run, verb: str, text: str, said: str) -> None:
        def then(outcomes: list[Any]) -> None:
            outcome = outcomes[0]
            self.host.say(
                f"run {run.id} {said} {text}" if outcome else f"{verb}: {outcome.why}", "text" if outcome else "warning"
            )

        self.host.actor.do(verb, lambda control: getattr(control, verb)(run.id, text), then=then)

    def do_main_tag(self) -> None:
        runs = self.chosen
        before = " ".join(runs[0].tags)

        def done(text: str) -> None:
            tags = tuple(dict.fromkeys(text.replace(",", " ").split()))
            self._do(
                "tag",
                f"tagged {' '.join(tags) or 'with nothing'}:",
                lambda run: True,
                lambda control, run: control.tag(run.id, tags),
            )

        self.ask(Prompt(msg("tags of {runs}", runs=listed([run.id for run in runs])), before, done))

    # checkpoints

    def do_checkpoints_pin(self) -> None:
        point = self.checkpoints.checkpoint
        pinned = not point.pinned
        said = "is pinned: nothing deletes it" if pinned else "is no longer pinned"
        self._checkpoint(
            "pin", lambda control: control.pin(point.run_id, point.step, pinned), f"step {point.step} {said}"
        )

    def do_checkpoints_delete(self) -> None:
        point, detail = self.checkpoints.checkpoint, self.checkpoints.detail
        only = detail is not None and len(detail.checkpoints) == 1
        lost = [
            msg(
                "Step {step} of run {run_id}: {bytes}, kept because: {point}.",
                step=numbers.count(point.step),
                run_id=point.run_id,
                bytes=bytes_text(point.bytes or 0),
                point=kept_words(point),
            )
        ]
        lost += ["It is the only one: the run could then not be resumed."] if only else []
        lost += ["It is gone for good: checkpoints have no trash."]

        def done() -> None:
            self._checkpoint(
                "delete",
                lambda control: control.delete_checkpoint(point.run_id, point.step, force=only),
                msg("the checkpoint of step {step} is deleted", step=point.step),
            )

        self.app.push_screen(Confirm("Delete this checkpoint?", lost, done, "d", "deletes"))

    def _checkpoint(self, verb: str, call: Callable[[Any], Any], said: str) -> None:
        def then(outcomes: list[Any]) -> None:
            outcome = outcomes[0]
            self.host.say(said if outcome else f"{verb}: {outcome.why}", "text" if outcome else "warning")

        self.host.actor.do(verb, call, then=then)

    def do_checkpoints_resume(self) -> None:
        point, run = self.checkpoints.checkpoint, self.checkpoints.run
        points = self.checkpoints.detail.checkpoints
        self._resume_at(run, point.step, point is points[0])

    def do_checkpoints_fork(self) -> None:
        """A new run from the checkpoint's weights, edited first."""
        point = self.checkpoints.checkpoint
        self._new_run(parent=(point.run_id, point.step))

    def do_checkpoints_best(self) -> None:
        """Which metric says what the best is: one that was measured, or any that can be worked out."""
        run, series = self.checkpoints.run, self.checkpoints.detail.series
        choices: list[tuple[Any, Line]] = []
        for text in (text for keys in eval_charts(series) for key in keys for text in criteria(key)):
            by = parse_criterion(text)
            one = series[by.key]
            value, step = (one.low, one.low_step) if by.lower else (one.high, one.high_step)
            words = (
                msg("{loss:>8} at step {step}", loss=numbers.short_metric(value), step=numbers.count(step))
                if value is not None
                else ""
            )
            so_far = "   so far" if text == run.best_by else ""
            choices.append((text, [(fit(one_line(text), 28), "text"), (words + so_far, "dim")]))
        choices.append(("", [("another metric …", "text")]))

        def chosen(text: str) -> None:
            if text:
                self._choose_best(run, text)
            else:
                self.ask(
                    Prompt(
                        msg("best of {id} by (METRIC, METRIC:min)", id=run.id),
                        "",
                        lambda said: self._choose_best(run, said),
                    )
                )

        self.app.push_screen(Choose(msg("Best of run {id} goes by", id=run.id), choices, chosen))

    def _choose_best(self, run: Run, by: str) -> None:
        def then(outcomes: list[Any]) -> None:
            self.host.say_whole(f"run {run.id}", outcomes[0])

        self.host.actor.do("best", lambda control: control.choose_best(run.id, by), then=then)

    def do_checkpoints_compare(self) -> None:
        point = self.checkpoints.checkpoint
        other = "latest" if "best" in point.kept else "best"
        self._compare([f"{point.run_id}@{point.step}", f"{point.run_id}@{other}"])

    # new runs

    def do_main_new(self) -> None:
        self._new_run()

    def do_main_edit(self) -> None:
        """A new run from this one; of a failed run first the fixes."""
        run = self.runs.run
        helps = self.run.helps if self.run.run is not None and run is not None and self.run.run.id == run.id else None
        if run is None:
            return
        if not helps or WHY not in self.run.tabs():
            self._new_run(run.id)
            return
        choices: list[tuple[Any, Line]] = [
            (fix, [(fit(one_line(fix.label), 44), "text"), (fix.effect, "dim")]) for fix in helps
        ]
        choices.append((None, [("other settings …", "text")]))

        def chosen(fix: Any) -> None:
            if fix is None:
                self._new_run(run.id)
            else:
                self._queue_fixed(run, fix)

        self.app.push_screen(Choose(msg("Queue run {id} again with", id=run.id), choices, chosen))

    def _queue_fixed(self, run: Run, fix: Any) -> None:
        folder = self.host.workspace.runs / str(run.id)

        def call(control: Any) -> int:
            from engine.plan.fixes import fixed

            return control.add(fixed(folder, fix))

        self.host.actor.do(
            "queue",
            call,
            then=lambda made: self.host.say(msg("run {made} is queued: {label}", made=made[0], label=fix.label)),
        )

    def _new_run(self, source: int | None = None, parent: tuple[int, int] | None = None) -> None:
        from tui.screens.new_run_screen import NewRunScreen  # brings presets, plan and data reports with it

        self.app.push_screen(NewRunScreen(source, parent=parent))

    def do_main_compare(self) -> None:
        chosen = [run.id for run in self.chosen]
        if len(chosen) == 1:
            other = self._best_other(self.chosen[0])
            chosen += [other.id] if other else []
        self._compare(list(map(str, chosen)))

    def _compare(self, names: Sequence[str]) -> None:
        from tui.screens.compare_screen import CompareScreen  # with the comparison: 40 ms, when it is first wanted

        self.app.push_screen(CompareScreen(names))

    # the box, the picture, leaving

    def do_main_daemon(self) -> None:
        def then(outcomes: list[Any]) -> None:
            self.host.say("the daemon starts" if outcomes[0] else "the daemon is running already")

        self.host.actor.do("start daemon", lambda control: control.start_daemon(), then=then)

    def do_main_pause(self) -> None:
        self.host.pause(not self.host.paused)
        self.header.repaint()

    def do_main_copy(self) -> None:
        """The folder of the run, or of the checkpoint, through the terminal (OSC 52), which works over SSH."""
        run = self.runs.run
        folder = self.host.workspace.runs / str(run.id)
        point = self.checkpoints.checkpoint if self.focused is self.checkpoints else None
        text = str(folder / point.path) if point is not None and point.path else str(folder)
        self.host.copy_to_clipboard(text)
        self.host.say(f"copied: {text}")

    def do_main_quit(self) -> None:
        self.host.leave()

    # coming back

    def welcome(self, snapshot: Snapshot) -> None:
        """What happened since this user last looked, once."""
        seen = snapshot.seen
        lines = since_last_time(snapshot.runs, seen, snapshot.taken) if seen is not None else []
        if lines:
            away = numbers.ago(seen, snapshot.taken)
            self.host.say(msg("since you last looked, {away}: ", away=away) + " · ".join(lines))
        self.host.looked(time.time())
