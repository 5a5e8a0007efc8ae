"""Evaluation folders: scores of a model on a set of examples, and every prediction, so that models can be paired.

A folder appears whole or not at all; docs/evaluation.md describes result.json and predictions.jsonl. Those of a run lie
in runs/<id>/evaluations, step-00000120 made in training and step-00000120-<slug> by `finetop eval`; those of models
that belong to no run in <workspace>/evaluations.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
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
    atomic_write(temporary / PREDICTIONS, "".join(lines).encode("utf-8", "surrogatepass"), sync=True)
    said = json.dumps(result, ensure_ascii=False, indent=1) + "\n"
    atomic_write(temporary / RESULT, said.encode("utf-8", "surrogatepass"), sync=True)
    if target.exists():
        old = folder / f"{_TEMPORARY}old-{name}-{os.getpid()}"
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
        os.rename(temporary, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(temporary, target)
    return target


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    """The lines of predictions.jsonl in order. Raises OSError where they are not kept."""
    with open(folder / PREDICTIONS, encoding="utf-8", errors="surrogatepass") as file:
        return [json.loads(line) for line in file]


def of_run(run_folder: Path) -> list[tuple[int, str, Path]]:
    """(step, slug, folder) of a run's evaluations in the order of steps; the slug is empty for those of training."""
    try:
        names = os.listdir(run_folder / FOLDER)
    except OSError:
        return []
    found = [(match, run_folder / FOLDER / name) for name in names if (match := _STEP.fullmatch(name))]
    return sorted((int(match[1]), (match[2] or "")[1:], path) for match, path in found)


def take_back(run_folder: Path, after_step: int) -> None:
    """A run goes on from `after_step` on another course: what was evaluated beyond it is true no longer.

    What training would write again is deleted; what a person asked for is set aside, as its checkpoint is.
    """
    for entry in (run_folder / FOLDER).glob(f"{_TEMPORARY}*"):
        shutil.rmtree(entry, ignore_errors=True)  # left half-written by a crash
    asked_for = []
    for step, name, path in of_run(run_folder):
        if step > after_step and name:
            asked_for.append(path)
        elif step > after_step:
            shutil.rmtree(path, ignore_errors=True)
    if asked_for:
        number = 1 + len(list((run_folder / FOLDER).glob("abandoned-*")))
        aside = run_folder / FOLDER / f"abandoned-{number}"
        aside.mkdir(mode=0o700)
        for path in asked_for:
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
