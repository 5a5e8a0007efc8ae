"""What makes a comparison unfair, in plain words."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from engine.base.messages import msg
from engine.compare.comparison_records import Subject
from engine.runs.evaluation_folder import EvaluationResult

_SCORED_BY = ("data.train_on", "data.max_length", "data.overlong", "data.system")
"""Settings that decide which tokens an eval loss is taken on, or what stands before them."""


def cautions(
    subjects: Sequence[Subject],
    facts: Sequence[Mapping[str, Any]],
    settings: Sequence[Mapping[str, Any]],
    chosen: Sequence[EvaluationResult | None],
) -> tuple[str, ...]:
    """One sentence for each thing that differs and should not.

    `facts` is what each run's journal says under 'data' and 'plan', `settings` its settings by path, `chosen` the
    evaluations whose predictions are paired.
    """
    letters = [subject.letter for subject in subjects]
    data = [of_run.get("data") or {} for of_run in facts]
    reasons: list[str] = []

    held_out = [_validation(report, by_path) for report, by_path in zip(data, settings, strict=True)]
    supervised = [(report.get("val") or {}).get("supervised") if report else None for report in data]
    if sides := _sides(letters, held_out):
        reasons.append(
            msg(
                "The validation data differ ({sides}): their losses and scores are not of the same examples.",
                sides=sides,
            )
        )
    elif sides := _sides(letters, supervised, [f"{tokens or 0:,} tokens" for tokens in supervised]):
        causes = [path for path in _SCORED_BY if _sides(letters, [by_path.get(path) for by_path in settings])]
        because = f", by {' and '.join(causes)}" if causes else ", by another tokenizer or template"
        reasons.append(
            msg(
                "The eval loss is taken on other tokens ({sides}{because}): losses per token cannot be compared.",
                sides=sides,
                because=because,
            )
        )
    reasons += _changed_files(letters, data)
    if sides := _sides(letters, [by_path.get("data.template") for by_path in settings]):
        reasons.append(msg("The chat template differs ({sides}).", sides=sides))

    results = [result for result in chosen if result]
    names = [letter for letter, result in zip(letters, chosen, strict=True) if result]
    if sides := _sides(names, [result.data_key for result in results], [r.data or "?" for r in results]):
        reasons.append(msg("The evaluations are on different examples ({sides}), so they are not paired.", sides=sides))
    else:
        if sides := _sides(names, [r.template for r in results], [r.template[:8] or "?" for r in results]):
            reasons.append(msg("The evaluations used different chat templates ({sides}).", sides=sides))
        if sides := _sides(names, [r.normalisation for r in results]):
            reasons.append(msg("Answers were normalised differently before they were scored ({sides}).", sides=sides))
        if sides := _sides(names, [_command(r) for r in results]):
            reasons.append(
                msg("Answers were scored by different programs, or one that changed ({sides}).", sides=sides)
            )
        if sides := _sides(names, [_generated(result) for result in results]):
            reasons.append(msg("Answers were generated differently ({sides}).", sides=sides))
    return tuple(reasons)


def _validation(report: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    """What identifies a run's validation data, in words; None while the run has not reported its data."""
    if not report:
        return None
    files = report.get("files") or ()
    count = (report.get("val") or {}).get("examples")
    examples = f"{count:,} examples" if isinstance(count, int) else "some"
    if report.get("val_from") == "file":
        named = len(settings.get("data.val_files") or ()) or 1
        # The validation files are listed last (docs/journal.md); a folder or hub name may stand for several.
        return f"{examples} of {_files(files[-named:])}"
    if report.get("val_from") == "split":
        return msg("{examples}, the validation split of {files}", examples=examples, files=_files(files))
    seed = f", seed {settings['data.seed']}" if settings.get("data.seed") else ""
    return f"{examples}, {settings.get('data.val_fraction', '?')} of {_files(files)}{seed}"


def _files(files: Sequence[Mapping[str, Any]]) -> str:
    return " and ".join(f"{Path(str(f.get('path'))).name} {str(f.get('sha256'))[:8]}" for f in files)


def _changed_files(letters: Sequence[str], data: Sequence[Mapping[str, Any]]) -> list[str]:
    """Files of one path whose content differs between runs."""
    seen: dict[str, dict[str, list[str]]] = {}
    for letter, report in zip(letters, data, strict=True):
        for file in report.get("files") or ():
            seen.setdefault(str(file.get("path")), {}).setdefault(str(file.get("sha256")), []).append(letter)
    return [
        msg("{name} has changed between the runs: ", name=Path(path).name)
        + ", ".join(f"{'/'.join(who)} {sha[:8]}" for sha, who in versions.items())
        for path, versions in seen.items()
        if len(versions) > 1
    ]


def _command(result: EvaluationResult) -> str:
    """What scored the answers beside finetop's own metrics, with the hashes of its files."""
    files = result.command.get("files") or {}
    return " ".join([str(result.command.get("text") or ""), *(str(sha)[:8] for sha in files.values())]).strip()


def _generated(result: EvaluationResult) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(result.generation.items()))


def _sides(letters: Sequence[str], values: Sequence[Any], words: Sequence[Any] | None = None) -> str:
    """`A, B: this; C: that` where the known values differ, else nothing."""
    keyed = [
        (json.dumps(value, sort_keys=True, default=str), letter, word)
        for letter, value, word in zip(letters, values, words or values, strict=True)
        if value not in (None, "")
    ]
    if len({key for key, _, _ in keyed}) < 2:
        return ""
    keyed.sort(key=lambda entry: entry[0])
    sides = [list(side) for _, side in groupby(keyed, key=lambda entry: entry[0])]
    sides.sort(key=lambda side: side[0][1])
    return "; ".join(f"{', '.join(letter for _, letter, _ in side)}: {side[0][2]}" for side in sides)
