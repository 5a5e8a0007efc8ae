"""What may be added to a comparison: runs and checkpoints that a text, as far as it is typed, may stand for. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from engine.present.text import one_line
from engine.store.run_records import Checkpoint, Run
from tui.render.line import Line


def checkpoint_names(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """How a run's checkpoints may be named: by why they are kept, then by step, the newest first."""
    labels = sorted({label for checkpoint in checkpoints for label in checkpoint.kept})
    return (*labels, *(str(checkpoint.step) for checkpoint in checkpoints))


def asked_run(text: str) -> int | None:
    """The run whose checkpoints may be meant: `41`, `41@`, `41@be`."""
    number = text.strip().partition("@")[0]
    return int(number) if number.isdecimal() and len(number) < 19 else None


def candidates(text: str, runs: Iterable[Run], points: Mapping[int, Sequence[str]], taken: Sequence[str]) -> list[str]:
    """Runs whose number begins so or whose name holds the text, in their order, and checkpoints of the one whose number
    it is; without those that are `taken`. `points`: the names of the checkpoints of runs, as far as they are known."""
    typed = text.strip()
    run_id = asked_run(typed)
    names = [f"{run_id}@{point}" for point in points.get(run_id, ())] if run_id is not None else []
    if "@" not in typed:
        word = typed.lower()
        names = [str(run.id) for run in runs if str(run.id).startswith(typed) or word in run.name.lower()] + names
    return [name for name in names if name not in taken and (name.startswith(typed) or "@" not in name)]


def candidates_line(names: Sequence[str], runs: Iterable[Run]) -> Line:
    """The candidates on one line, runs with what they are called."""
    if not names:
        return [(" no run or checkpoint is called so", "warning")]
    called = {str(run.id): one_line(run.name) for run in runs}
    line: Line = []
    for name in names:
        line += [
            ("   " if line else " ", "text"),
            (name, "key"),
            (f" {called[name]}" if name in called else "", "text"),
        ]
    return line
