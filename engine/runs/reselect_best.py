"""Best chosen again, by another metric: from the results of a training's evaluations, and where these lack the metric,
from the predictions that were kept."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import CHECKPOINTS
from engine.metrics.best_evaluation import Criterion, parse
from engine.metrics.score import CLASSIFIED, METRICS, Answer, score
from engine.metrics.scoring_command import CommandFailed, ScoreCommand, answered
from engine.runs import checkpoints, evaluation_folder
from engine.runs.evaluation_folder import Prediction
from engine.runs.journal import Journal
from engine.runs.run_folder import change_run, overlaid
from engine.settings.eval_inputs import read_schema
from engine.settings.resolve import Layer, Resolved, read_run
from engine.settings.schema import EvalConfig

BEST = "best"


@dataclass(frozen=True)
class Choice:
    """What the evaluations say by a metric, and which checkpoint is best by it."""

    criterion: Criterion
    points: tuple[tuple[int, float], ...]
    """(step, value) of each evaluation that has one, in order."""
    worked_out: tuple[tuple[int, float], ...]
    """Those of them that had to be worked out from predictions."""
    best: tuple[int, float] | None
    """The best of all."""
    kept: tuple[int, float] | None
    """The best of those whose checkpoint is still there."""
    unknown: int = 0
    """How many evaluations have no value: not measured, and the predictions not kept, or without what it takes."""
    failure: str = ""
    """Why eval.command gave none, the last time it did not."""

    @property
    def words(self) -> str:
        if self.best is None:
            return msg(
                "Best goes by the {words} from here on: no evaluation so far has it.", words=self.criterion.words
            )
        (step, value), where = self.best, lambda step: msg("at step {step:,}", step=step) if step else "at its start"
        words = msg(
            "Best goes by the {words}: {score:.4g} {step}", words=self.criterion.words, score=value, step=where(step)
        )
        if self.unknown:
            words += msg(
                " (of {unknown:,} of {evaluations:,} evaluations it is not known)",
                unknown=self.unknown,
                evaluations=self.unknown + len(self.points),
            )
        if self.kept is None:
            return msg("{words}, whose checkpoint is not kept.", words=words)
        if self.kept[0] != step:
            return msg(
                "{words}, whose checkpoint is not kept; of those that are, {kept:.4g} {where}.",
                words=words,
                kept=self.kept[1],
                where=where(self.kept[0]),
            )
        return f"{words}."

    def event(self) -> dict[str, Any]:
        """The fields of the journal's `best`."""
        scores = {self.criterion.key: [list(point) for point in self.worked_out]} if self.worked_out else {}
        return {
            "by": self.criterion.text,
            "checkpoint": self.kept[0] if self.kept else None,
            "scores": scores,
            "message": self.words,
        }


def choose(
    run_folder: Path,
    criterion: Criterion,
    config: EvalConfig,
    until: int | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Choice:
    """From the evaluations up to step `until`. Changes nothing; `alive` is called while eval.command runs. Raises
    InputError for a schema that cannot be used."""
    points, worked_out, unknown, failure = [], [], 0, ""
    for step, slug, folder in evaluation_folder.of_run(run_folder):
        if slug or (until is not None and step > until):
            continue
        value = None
        try:
            result = json.loads((folder / evaluation_folder.RESULT).read_text("utf-8"))
            value = (result.get("scores") or {}).get(criterion.key)
            if value is None and criterion.key not in (result.get("scores") or {}):
                value = _from_predictions(folder, result, criterion.name, config, run_folder, alive)
                if value is not None:
                    worked_out.append((step, value))
        except CommandFailed as error:
            failure = error.message
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            pass  # not kept, or not ours
        if isinstance(value, int | float) and math.isfinite(value):
            points.append((step, float(value)))
        else:
            unknown += 1
    there = set(checkpoints.steps(run_folder / CHECKPOINTS))
    kept = criterion.first(point for point in points if point[0] in there)
    return Choice(criterion, tuple(points), tuple(worked_out), criterion.first(points), kept, unknown, failure)


def choose_anew(run_folder: Path, by: str) -> tuple[Choice, Resolved]:
    """Let `by` say which checkpoint of a run without a worker is the best: link, journal and settings follow, so that
    a resumed run and a rebuilt store go by it. Raises InputError where nothing is known by that metric."""
    try:
        criterion = parse(by)
    except ValueError as error:
        raise InputError(
            msg("--best {by}: it {error}", by=by, error=error), "Such as: --best loss, --best macro_f1"
        ) from None
    settings = read_run(run_folder).config.eval
    changes: dict[str, Any] = {"eval.best": criterion.text}
    metric = criterion.name.partition("@")[0]
    if metric in METRICS and metric not in settings.metrics:
        changes["eval.metrics"] = [*settings.metrics, metric]  # a resumed run must measure what it goes by
    layers = [Layer("--best", changes)]
    choice = choose(run_folder, criterion, overlaid(read_run(run_folder), layers).config.eval)
    if choice.best is None:
        run = run_folder.name
        raise InputError(
            msg(
                "no evaluation of run {run} has {criterion_name}, nor predictions that it could be worked out from",
                run=run,
                criterion_name=criterion.name,
            ),
            choice.failure
            or msg("Have it measured: finetop resume {run} --set eval.metrics=…, or finetop eval.", run=run),
        )
    after = change_run(run_folder, layers)
    relink(run_folder, choice)
    journal = Journal(run_folder)
    journal.write("best", **choice.event())
    journal.close()
    return choice, after


def relink(run_folder: Path, choice: Choice) -> None:
    """Point the run's `best` at the checkpoint chosen; at none where there is none."""
    folder = run_folder / CHECKPOINTS
    if choice.kept is not None:
        checkpoints.link(folder, BEST, choice.kept[0])
    elif (folder / BEST).is_symlink():
        (folder / BEST).unlink()


def _from_predictions(
    folder: Path,
    result: Mapping[str, Any],
    name: str,
    config: EvalConfig,
    run_folder: Path,
    alive: Callable[[], None],
) -> float | None:
    """The metric over the predictions of one evaluation; None where they do not have what it takes."""
    metric, _, source = name.partition("@")
    predictions = evaluation_folder.read_predictions(folder)
    if source and metric in ("loss", *METRICS):
        predictions = [prediction for prediction in predictions if prediction.source == source]
    if metric == "loss":
        losses = [prediction.loss for prediction in predictions if prediction.loss is not None]
        tokens = sum(prediction.tokens or 0 for prediction in predictions)
        return sum(losses) / tokens if tokens and len(losses) == len(predictions) else None
    if metric in METRICS:
        return _score(predictions, metric, result, config)
    lines = answered([prediction.fields for prediction in predictions])
    if not config.command or not lines:
        return None
    command = ScoreCommand(config.command, run_folder.resolve().parents[1], config.command_seconds)
    return command.numbers(lines, alive).get(name)


def _score(
    predictions: Sequence[Prediction], metric: str, result: Mapping[str, Any], config: EvalConfig
) -> float | None:
    classified = metric in CLASSIFIED
    answers = [
        Answer(prediction.reference, prediction.text, prediction.label)
        for prediction in predictions
        if ("accuracy" in prediction.scores if classified else prediction.text is not None)
    ]
    schema = read_schema(config) if metric == "json_schema" else ""
    if not answers or (metric == "json_schema" and not schema):
        return None
    scores = score(answers, [metric], result.get("normalisation") or "case", schema, classified)
    return scores.get(f"eval/{metric}")
