"""What the keys of several panes do: a change of runs, going on from a checkpoint, opening another screen."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.base.messages import msg
from engine.present import numbers
from engine.store.run_records import Outcome, Run, RunState
from tui.host import Host
from tui.screens.run_screen import RunScreen

Call = Callable[[Any], Any]
"""What is asked of `engine.control.Control`."""


def for_run(call: Callable[[Any, Run], Any], run: Run) -> Call:
    """A call for one of several runs."""
    return lambda control: call(control, run)


def change(
    host: Host,
    verb: str,
    calls: Sequence[Call],
    done: str | Callable[[Sequence[Outcome]], str] = "",
    notes: bool = False,
    heading: str = "Worth knowing",
) -> None:
    """Ask for changes on the command thread and say what came of them: `done`, which may be made of the outcomes of
    those that were made, or why the first of the others was refused. `notes` shows what there is to know besides, under
    a heading."""

    def report(outcomes: Sequence[Outcome]) -> None:
        made, refused = [outcome for outcome in outcomes if outcome], [outcome for outcome in outcomes if not outcome]
        text = "" if not made else done if isinstance(done, str) else done(made)
        if refused:
            host.say_whole(verb, "\n".join(filter(None, (refused[0].why, text))), "warning")
        elif text:
            host.say(text)
        if notes and (texts := [f"run {outcome.run_id}: {note}" for outcome in made for note in outcome.notes]):
            host.notice(heading, texts)

    host.commands.do(verb, *calls, then=report)


def go_on(screen: RunScreen, run: Run, step: int, newest: bool) -> None:
    """Go on from a checkpoint; of a run that is done, which has nothing left to do, ask how much further."""
    detail = screen.host.snapshot.detail
    if run.state is not RunState.DONE or not newest or detail is None or detail.run_id != run.id:
        resume_from(screen.host, run, step, newest)
        return
    settings = {setting.key: setting.value for setting in detail.settings}
    # What ended it is to grow: of epochs and steps whichever came first.
    most_steps = settings.get("train.max_steps")
    path = "train.max_steps" if most_steps and run.total_steps == most_steps else "train.epochs"
    length = path.rpartition(".")[2].replace("_", " ")
    so_far = settings.get(path)
    if so_far == "auto" and run.epoch is not None:
        so_far = numbers.plain_number(run.epoch)
    label = msg("{length} of run {id}, {so_far} so far; train on to", length=length, id=run.id, so_far=so_far)

    def further(text: str) -> None:
        if text.strip():
            resume_from(screen.host, run, step, True, {path: text.strip()})

    screen.ask(label, "", further)


def resume_from(host: Host, run: Run, step: int, newest: bool, changes: Mapping[str, str] | None = None) -> None:
    """Queue a run to go on from its checkpoint of that step; the newest by its name: another may come until then.
    `changes` are settings as they are typed."""
    point = "latest" if newest else str(step)
    done = msg("run {id} is queued to go on from step {step}", id=run.id, step=step)

    def resume(control: Any) -> Outcome:
        if not changes:
            return control.resume(run.id, point)
        from engine.settings.coerce import parse_value

        return control.resume(run.id, point, {path: parse_value(value) for path, value in changes.items()})

    calls = [resume]
    change(host, "resume", calls, done, notes=True, heading="Before it goes on")


def open_new_run(host: Host, source: int | None = None, parent: tuple[int, int] | None = None, at: str = "") -> None:
    """The form of a new run: with the settings of the run `source`, or from the weights of a checkpoint, `parent`; the
    cursor on the setting `at`."""
    from tui.screens.new_run_screen import NewRunScreen  # brings presets, plan and data reports with it

    host.push_screen(NewRunScreen(source, parent=parent, at=at))


def open_compare(host: Host, names: Sequence[str]) -> None:
    """Runs (`41`) and checkpoints (`41@best`) side by side."""
    from tui.screens.compare_screen import CompareScreen  # with the comparison: 40 ms, at the first use

    host.push_screen(CompareScreen(names))
