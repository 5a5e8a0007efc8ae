"""Evaluation folders: scores of a model on a set of examples, and every prediction, so that models can be paired.

Written and read here and nowhere else. A folder appears whole or not at all; docs/evaluation.md describes result.json
and predictions.jsonl. Those of a run lie in runs/<id>/evaluations, step-00000120 made in training and
step-00000120-<slug> by `finetop eval`; those of models that belong to no run in <workspace>/evaluations.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.atomic_files import atomic_write

FOLDER = "evaluations"
RESULT = "result.json"
PREDICTIONS = "predictions.jsonl"
_TEMPORARY = ".tmp-"
_STEP = re.compile(r"step-(\d{8,})(-.+)?")
_LONGEST_PROMPT = 2000
"""Characters of a prompt that are kept, its end: enough to know it by, in files that are written again and again."""


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """A result.json."""

    folder: Path
    time: float
    run_id: int | None
    step: int | None
    model: str
    source: str
    """'training' or 'eval'."""
    data_key: str
    """The same for evaluations on the same examples."""
    data: str
    """The data files in words."""
    examples: int
    template: str
    normalisation: str
    generation: Mapping[str, Any]
    scores: Mapping[str, float]
    command: Mapping[str, Any]
    """The user's program that scored the answers, as result.json has it; empty where there was none."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A line of predictions.jsonl."""

    key: str
    prompt: str
    reference: str | None
    text: str | None
    loss: float | None
    """Summed over the supervised tokens."""
    tokens: int | None
    scores: Mapping[str, float]
    label: str | None
    """The label that was chosen, of a classification."""
    source: str | None
    """Of the example, where the data comes from several."""
    fields: Mapping[str, Any]
    """The line itself, as `eval.command` is given it."""


def step_name(step: int, slug: str = "") -> str:
    return f"step-{step:08d}" + (f"-{slug}" if slug else "")


def slug(*parts: str) -> str:
    """A file name of what the parts say: letters of any script, digits and dashes, at most 60 characters."""
    words = re.sub(r"[^\w.]+", "-", "-".join(part for part in parts if part)).strip("-._")
    return words[:60] or "data"


def data_key(keys: Iterable[str]) -> str:
    """The same for evaluations on the same examples, in whatever order: sha256 over the sorted keys, one a line."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()


def shown_prompt(text: str) -> str:
    return text if len(text) <= _LONGEST_PROMPT else "…" + text[-_LONGEST_PROMPT:]


def write(folder: Path, name: str, result: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]) -> Path:
    """`folder`/`name`, in place of one that is there. Written beside it, synced, and renamed last."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = folder / name
    temporary = folder / f"{_TEMPORARY}{name}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=0o700)
    lines = (json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in predictions)
    text = json.dumps(result, ensure_ascii=False, indent=1) + "\n"
    try:
        atomic_write(temporary / PREDICTIONS, "".join(lines).encode("utf-8", "surrogatepass"), sync=True)
        atomic_write(temporary / RESULT, text.encode("utf-8", "surrogatepass"), sync=True)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)  # on a full disk it would take what is waited for
        raise
    if target.exists():
        old = folder / f"{_TEMPORARY}old-{name}-{os.getpid()}"
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
        os.rename(temporary, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(temporary, target)
    return target


def read_result(folder: Path) -> EvaluationResult | None:
    """The evaluation in a folder; None if there is none, or it cannot be read."""
    try:
        content = json.loads((folder / RESULT).read_text("utf-8"))
        data = content.get("data") or {}
        files = [Path(str(file.get("path", ""))).name for file in data.get("files") or ()]
        return EvaluationResult(
            folder=folder,
            time=float(content.get("t") or 0.0),
            run_id=content.get("run"),
            step=content.get("step"),
            model=str(content.get("model") or ""),
            source=str(content.get("source") or ""),
            data_key=str(data.get("key") or ""),
            data=", ".join(files),
            examples=int(data.get("examples") or 0),
            template=str(content.get("template") or ""),
            normalisation=str(content.get("normalisation") or ""),
            generation=content.get("generation") or {},
            scores={
                str(key): float(value) for key, value in (content.get("scores") or {}).items() if _is_number(value)
            },
            command=content.get("command") or {},
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def read_predictions(folder: Path, limit: int | None = None) -> list[Prediction]:
    """The predictions in order, at most `limit`. A line that is no prediction is skipped."""
    predictions: list[Prediction] = []
    try:
        file = open(folder / PREDICTIONS, encoding="utf-8", errors="replace")  # noqa: SIM115
    except OSError:
        return predictions
    with file:
        for line in file:
            if limit is not None and len(predictions) >= limit:
                break
            try:
                fields = json.loads(line)
                scores = fields.get("scores") or {}
                prediction = Prediction(
                    key=str(fields["key"]),
                    prompt=str(fields.get("prompt") or ""),
                    reference=fields.get("reference"),
                    text=fields.get("text"),
                    loss=float(fields["loss"]) if _is_number(fields.get("loss")) else None,
                    tokens=int(fields["tokens"]) if _is_number(fields.get("tokens")) else None,
                    scores={str(name): float(value) for name, value in scores.items() if _is_number(value)},
                    label=fields.get("label"),
                    source=fields.get("source"),
                    fields=fields,
                )
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue
            predictions.append(prediction)
    return predictions


def of_run(run_folder: Path) -> list[tuple[int, str, Path]]:
    """(step, slug, folder) of a run's evaluations in the order of steps; the slug is empty for those of training."""
    try:
        names = os.listdir(run_folder / FOLDER)
    except OSError:
        return []
    folders = [(match, run_folder / FOLDER / name) for name in names if (match := _STEP.fullmatch(name))]
    return sorted((int(match[1]), (match[2] or "")[1:], path) for match, path in folders)


def take_back(run_folder: Path, after_step: int) -> None:
    """A run goes on from `after_step` on another course: what was evaluated beyond it is true no longer.

    What training would write again is deleted; what a person asked for is set aside, as its checkpoint is.
    """
    for entry in (run_folder / FOLDER).glob(f"{_TEMPORARY}*"):
        shutil.rmtree(entry, ignore_errors=True)  # left half-written by a crash
    by_command = []
    for step, name, path in of_run(run_folder):
        if step > after_step and name:
            by_command.append(path)
        elif step > after_step:
            shutil.rmtree(path, ignore_errors=True)
    if by_command:
        number = 1 + len(list((run_folder / FOLDER).glob("abandoned-*")))
        aside = run_folder / FOLDER / f"abandoned-{number}"
        aside.mkdir(mode=0o700)
        for path in by_command:
            os.rename(path, aside / path.name)


def thin(run_folder: Path, keep: int, steps_kept: Iterable[int]) -> None:
    """Delete the predictions, never the results, of training's evaluations but the first, the last `keep`, and those
    of the steps whose checkpoints are kept. 0 keeps all."""
    made_in_training = [(step, path) for step, name, path in of_run(run_folder) if not name]
    spared = set(steps_kept)
    for step, path in made_in_training[1:-keep] if keep else []:
        if step not in spared:
            with contextlib.suppress(FileNotFoundError):
                (path / PREDICTIONS).unlink()


def by_example(predictions: Iterable[Prediction]) -> dict[tuple[str, int], Prediction]:
    """Predictions by their example. A question asked n times is n examples, distinguished by their order."""
    numbers: dict[str, int] = {}
    examples = {}
    for prediction in predictions:
        number = numbers[prediction.key] = numbers.get(prediction.key, 0) + 1
        examples[prediction.key, number] = prediction
    return examples


def results_at(run_folder: Path, step: int | None, until: int | None, any_step: bool) -> list[EvaluationResult]:
    """The run's evaluations at `step`; where there are none and `any_step`, those at its last step up to `until`."""
    # Predictions are thinned out in long runs, results never; without the former there is nothing to pair.
    folders = [(at, path) for at, _, path in of_run(run_folder) if (path / PREDICTIONS).exists()]
    steps = {at for at, _ in folders}
    if step not in steps and any_step:
        step = max((at for at in steps if until is None or at <= until), default=None)
    results = [read_result(path) for at, path in folders if at == step]
    return [result for result in results if result is not None]


def choose(candidates: Sequence[Sequence[EvaluationResult]]) -> tuple[EvaluationResult | None, ...]:
    """One evaluation for each subject, on the examples that most subjects were evaluated on.

    Of several such sets that which was asked for (`finetop eval`) goes before that of training, then the larger, then
    the newer; of several evaluations on it, those that generated alike, then the newest.
    """
    by_data: dict[str, list[EvaluationResult]] = {}
    for results in candidates:
        for result in results:
            by_data.setdefault(result.data_key, []).append(result)
    if not by_data:
        return (None,) * len(candidates)

    def worth(data_key: str) -> tuple:
        subjects = sum(any(result.data_key == data_key for result in results) for results in candidates)
        results = by_data[data_key]
        return (
            subjects,
            any(r.source == "eval" for r in results),
            max(r.examples for r in results),
            max(r.time for r in results),
        )

    chosen_key = max(by_data, key=worth)
    ways = [_way(result) for result in by_data[chosen_key]]
    chosen: list[EvaluationResult | None] = []
    for results in candidates:
        same = [result for result in results if result.data_key == chosen_key] or list(results)
        chosen.append(max(same, key=lambda result: (ways.count(_way(result)), result.time), default=None))
    return tuple(chosen)


def _way(result: EvaluationResult) -> str:
    return json.dumps([result.normalisation, result.generation], sort_keys=True, default=str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
