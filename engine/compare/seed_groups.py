"""Subjects that differ in their seed alone: how far training itself scatters."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.base.messages import msg
from engine.compare.comparison_records import ResultTable, SeedGroup
from engine.compare.subjects import ResolvedSubject

_SEEDS = ("train.seed",)
"""What may differ between seeds of one setting. `data.seed` chooses the validation data, so it is not among them."""


def seed_groups(
    compared: Sequence[ResolvedSubject],
    facts: Sequence[Mapping[str, Any]],
    settings: Sequence[Mapping[str, Any]],
    results: Sequence[ResultTable],
) -> tuple[SeedGroup, ...]:
    """Mean and spread of each metric over subjects of the same settings and data, but for the seed."""
    by_settings: dict[str, list[int]] = {}
    for index, (resolved, settings_of_it) in enumerate(zip(compared, settings, strict=True)):
        if settings_of_it:
            same = {k: v for k, v in settings_of_it.items() if k not in _SEEDS and not k.startswith("run.")}
            hashes = [file.get("sha256") for file in facts[index].get("data", {}).get("files") or ()]
            step = None if resolved.subject.is_run else resolved.subject.step
            by_settings.setdefault(canonical([same, hashes, step]), []).append(index)
    rows = next((table.rows for table in results if table.moment == "best"), ())
    groups: list[SeedGroup] = []
    for members in by_settings.values():
        if len({canonical([settings[i].get(key) for key in _SEEDS]) for i in members}) < 2:
            continue
        for row in rows:
            values = [number for i in members if (number := row.values[i]) is not None]
            if row.lower_is_better is None or len(values) < 2:
                continue
            mean = math.fsum(values) / len(values)
            spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
            sentence = msg(
                "{letters}: {seeds} seeds of one setting, {key} {mean:.4g} ± {spread:.2g}",
                letters=", ".join(compared[i].subject.letter for i in members),
                seeds=len(values),
                key=row.key,
                mean=mean,
                spread=spread,
            )
            groups.append(SeedGroup(tuple(members), row.key, mean, spread, sentence))
    return tuple(groups)


def canonical(value: Any) -> str:
    """The same text for equal values, whatever the order of their keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
