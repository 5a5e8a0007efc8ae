"""Evaluation folders: what `runs/<id>/evaluations/<name>/` says, and which of them can be set side by side."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.runs import evaluation_folder
from engine.runs.evaluation_folder import PREDICTIONS, RESULT


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


def read_result(folder: Path) -> EvaluationResult | None:
    """The evaluation in a folder; None if there is none, or it cannot be read."""
    try:
        said = json.loads((folder / RESULT).read_text("utf-8"))
        data = said.get("data") or {}
        files = [Path(str(file.get("path", ""))).name for file in data.get("files") or ()]
        return EvaluationResult(
            folder=folder,
            time=float(said.get("t") or 0.0),
            run_id=said.get("run"),
            step=said.get("step"),
            model=str(said.get("model") or ""),
            source=str(said.get("source") or ""),
            data_key=str(data.get("key") or ""),
            data=", ".join(files),
            examples=int(data.get("examples") or 0),
            template=str(said.get("template") or ""),
            normalisation=str(said.get("normalisation") or ""),
            generation=said.get("generation") or {},
            scores={str(key): float(value) for key, value in (said.get("scores") or {}).items() if _is_number(value)},
            command=said.get("command") or {},
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def read_predictions(folder: Path, limit: int | None = None) -> list[Prediction]:
    """The predictions in order, at most `limit`. A line that is no prediction is passed over."""
    found: list[Prediction] = []
    try:
        file = open(folder / PREDICTIONS, encoding="utf-8", errors="replace")  # noqa: SIM115
    except OSError:
        return found
    with file:
        for line in file:
            if limit is not None and len(found) >= limit:
                break
            try:
                said = json.loads(line)
                scores = said.get("scores") or {}
                prediction = Prediction(
                    key=str(said["key"]),
                    prompt=str(said.get("prompt") or ""),
                    reference=said.get("reference"),
                    text=said.get("text"),
                    loss=float(said["loss"]) if _is_number(said.get("loss")) else None,
                    tokens=int(said["tokens"]) if _is_number(said.get("tokens")) else None,
                    scores={str(name): float(value) for name, value in scores.items() if _is_number(value)},
                )
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue
            found.append(prediction)
    return found


def by_example(predictions: Iterable[Prediction]) -> dict[tuple[str, int], Prediction]:
    """Predictions by their example. A question asked n times is n examples, told apart by their order."""
    seen: dict[str, int] = {}
    found = {}
    for prediction in predictions:
        number = seen[prediction.key] = seen.get(prediction.key, 0) + 1
        found[prediction.key, number] = prediction
    return found


def of_run(run_folder: Path, step: int | None, until: int | None, any_step: bool) -> list[EvaluationResult]:
    """The run's evaluations at `step`; where there are none and `any_step`, those at its last step up to `until`."""
    # Predictions are thinned out in long runs, results never; without the former there is nothing to pair.
    folders = [(at, path) for at, _, path in evaluation_folder.of_run(run_folder) if (path / PREDICTIONS).exists()]
    steps = {at for at, _ in folders}
    if step not in steps and any_step:
        step = max((at for at in steps if until is None or at <= until), default=None)
    found = [read_result(path) for at, path in folders if at == step]
    return [result for result in found if result is not None]


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
