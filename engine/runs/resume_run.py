"""Before a run goes on: what may be changed, whether all it needs is there, and what a longer course does to its rate.

`check_resume` writes nothing and refuses what cannot be; `apply` writes what was found right, and `undo` takes that
back where the worker finds that it cannot begin all the same. So a resume that cannot begin leaves the run as it was.
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import __version__
from engine.base.errors import EngineError, InputError
from engine.base.messages import msg
from engine.base.workspace import CHECKPOINTS
from engine.metrics import best_evaluation
from engine.metrics.names import metric_name
from engine.models.model_facts import find_folder
from engine.models.model_name import check_model_name
from engine.runs import journal
from engine.runs.checkpoints import checkpoint_folder, path_of, step_of, steps, untrained_note
from engine.runs.lr_schedule import jump
from engine.runs.relocate import (
    base_of,
    hashes_of,
    is_missing,
    known_data,
    known_hashes,
    located,
    newest_manifest,
    same_base,
    with_places,
)
from engine.runs.run_folder import (
    LISTS_OF_PATHS,
    check_data,
    check_inputs,
    overlaid,
    path_hashes,
    read_meta,
    write_config,
)
from engine.settings.auto_values import require_resolved
from engine.settings.resolve import Layer, Resolved, from_groups, read_run
from engine.settings.schema import MAY_CHANGE_ON_RESUME, RunConfig, diff

_UNDO = "before_resume"
"""In config.json, until the run has begun to go on: settings that were changed for it, each with value and origin."""


@dataclass(frozen=True)
class Resumed:
    settings: Resolved
    """As the run will have them."""
    changed: bool
    """Something beside the places of files is asked for."""
    notes: tuple[str, ...]
    """What its user should know before it goes on."""


def check_resume(
    folder: Path, layers: Sequence[Layer], point: str = "latest", *, as_another_run: bool = False
) -> Resumed:
    """What resuming the run in `folder` with these settings over its own would be. Raises InputError where it cannot
    begin: other data, another base, other settings than may change, files that are not there. `as_another_run`: other
    settings are no error but a note, for a plan, which starts nothing.
    """
    own, here = read_run(folder), located(folder)
    moves = diff(own.config, here.config).items()
    notes = [
        msg("{path}: what was {was} lies at {now} now", path=path, was=_text(was), now=_text(now))
        for path, (was, now) in moves
    ]
    settings = overlaid(here, layers)
    try:
        _refuse_other_course(folder, here.config, settings.config)
    except InputError as error:
        if not as_another_run:
            raise
        notes.append(" ".join(error.message.split()))
    _insist_on_files(folder, settings.config)
    if spent := _spent_patience(folder, settings.config, point):
        if not as_another_run:
            raise InputError(*spent)
        notes.append(". ".join(spent))
    if point != "latest" and (note := untrained_note(checkpoint_folder(folder, point))):
        notes.append(f"@{point}: {note}")
    if leap := schedule_note(folder, settings.config, point):
        notes.append(leap)
    changed_paths = {path for layer in layers for path in layer.values}
    return Resumed(settings, bool(changed_paths - set(PLACES)), tuple(notes))


def apply(folder: Path, resumed: Resumed) -> None:
    """Write the settings a run is resumed with, and what they were, for `undo`."""
    current, settings = read_run(folder), resumed.settings
    changed = diff(current.config, settings.config)
    if not changed:
        return
    meta = with_places(folder, current.config, settings.config) | {"version": __version__, "origin": settings.origin}
    meta[_UNDO] = {path: [was, current.origin[path]] for path, (was, _) in changed.items() if path not in PLACES}
    write_config(folder, settings.config, meta)


def begun(folder: Path) -> None:
    """The run goes on: what it was resumed with stays."""
    meta = read_meta(folder)
    if meta.pop(_UNDO, None) is not None:
        write_config(folder, read_run(folder).config, meta)


def undo(folder: Path) -> None:
    """The run could not go on: its settings are what they were before it was resumed."""
    meta, now = read_meta(folder), read_run(folder)
    was = meta.pop(_UNDO, None)
    if isinstance(was, dict):
        config = now.config.replace({path: value for path, (value, _) in was.items()})
        meta["origin"] = now.origin | {path: label for path, (_, label) in was.items()}
        write_config(folder, config, meta)


def schedule_note(folder: Path, config: RunConfig, point: str = "latest") -> str:
    """What a course of another length does to the learning rate; empty where nothing, or where nobody can tell."""
    plans = [event for event in journal.read(folder)[0] if event["kind"] == "plan"]
    if not plans or not steps(folder / CHECKPOINTS):
        return ""
    with contextlib.suppress(EngineError, OSError, ValueError, KeyError, TypeError):
        checkpoint = _starting_point(folder, point)
        manifest = json.loads((checkpoint / "manifest.json").read_text("utf-8"))
        checkpoint_config = require_resolved(from_groups(manifest["config"], "checkpoint"))
        flat = config.flat()
        longer = {path: flat[path] for path in ("train.epochs", "train.max_steps") if flat[path] != "auto"}
        return jump(checkpoint_config, checkpoint_config.replace(longer), plans[-1]["examples"], manifest["step"])
    return ""


def _starting_point(folder: Path, point: str) -> Path:
    """The checkpoint that a run which has any goes on from, if it is whole."""
    checkpoints = folder / CHECKPOINTS
    return path_of(checkpoints, steps(checkpoints)[-1]) if point == "latest" else checkpoint_folder(folder, point)


def _spent_patience(folder: Path, config: RunConfig, point: str) -> tuple[str, str] | None:
    """Of a run that early stopping ended, resumed where it did and with no more patience: that it would end again
    before its first step, and what to do."""
    patience, checkpoints = config.train.early_stopping, folder / CHECKPOINTS
    events = list(journal.effective(journal.read(folder)[0])) if patience and steps(checkpoints) else []
    state = next((event.get("state") for event in reversed(events) if event["kind"] == "state"), None)
    if state != "done":
        return None
    step, criterion = step_of(_starting_point(folder, point)), best_evaluation.parse_criterion(config.eval.best)
    values: dict[int, float | None] = {}
    for event in events:
        if event["kind"] == "eval" and criterion.key in event["values"]:
            values[event["step"]] = event["values"][criterion.key]
        elif event["kind"] == "best":  # those that were worked out afterwards
            values |= dict(event.get("scores", {}).get(criterion.key, ()))
    top, without_better = None, 0
    for value in (values[at] for at in sorted(values) if at <= step):
        if value is not None and criterion.better(value, top):
            top, without_better = value, 0
        else:
            without_better += 1
    if without_better < patience:
        return None
    count = (
        "the last evaluation had"
        if without_better == 1
        else msg("the last {without_better:,} evaluations had", without_better=without_better)
    )
    return (
        msg(
            "run {folder_name} was ended by early stopping: at step {step:,} {count} no better "
            "{key}, and train.early_stopping is {patience}, so it would end again at once",
            folder_name=folder.name,
            step=step,
            count=count,
            key=metric_name(criterion.key),
            patience=patience,
        ),
        msg(
            "With more patience it goes on: finetop resume {folder_name} --set train.early_stopping=N, above "
            "{without_better}, or 0 for none. More epochs (--epochs) alone do not change that.",
            folder_name=folder.name,
            without_better=without_better,
        ),
    )


PLACES = (*LISTS_OF_PATHS, "model.name", "model.revision", "data.template")
"""Settings that may name another place on a resume, where the same content lies."""


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _refuse_other_course(folder: Path, config: RunConfig, new_config: RunConfig) -> None:
    """InputError for changes that would make the resumed run another run."""
    lines = []
    for path, (old, new) in fixed_changes(config, new_config).items():
        if path in PLACES:
            lines += _other_content(folder, path, old, new, new_config)
        else:
            lines.append(setting_changed(path, old, new))
    refuse_changes(lines)


def fixed_changes(before: RunConfig, after: RunConfig) -> dict[str, tuple[Any, Any]]:
    """The settings, by path with old and new value, that differ and that a resumed run may not change."""
    return {path: pair for path, pair in diff(before, after).items() if not path.startswith(MAY_CHANGE_ON_RESUME)}


def setting_changed(path: str, old: Any, new: Any) -> str:
    """A line of `refuse_changes`."""
    return msg("{path} was {old!r}, would be {new!r}", path=path, old=old, new=new)


def refuse_changes(lines: Sequence[str], error: type[EngineError] = InputError) -> None:
    """`error` where `lines`, what would make a resumed run another run, are any."""
    if lines:
        raise error(
            msg("a resumed run stays the run it was:\n  {changes}", changes="\n".join(lines)),
            "It may go on further (--epochs, --max-steps) and evaluate and save differently, and its files may lie "
            "elsewhere; else start a new run.",
        )


def _other_content(folder: Path, path: str, old: Any, new: Any, config: RunConfig) -> list[str]:
    """What is wrong with a new place; nothing where the same content lies there."""
    if path in LISTS_OF_PATHS:
        hashes = known_hashes(old, known_data(folder))
        same, what = hashes == hashes_of(new, path, config) and bool(hashes), "data this run was trained on"
    elif path in ("model.name", "model.revision"):
        manifest = newest_manifest(folder)
        if manifest and config.method.kind == "full":
            return [
                msg(
                    "{path} was {old!r}, would be {new!r}: its checkpoints hold all weights, no other is needed",
                    path=path,
                    old=old,
                    new=new,
                )
            ]
        if base_of(manifest) is None and is_missing(old):
            return []
        if base_of(manifest) is None:
            return [
                msg(
                    "{path} was {old!r}, would be {new!r}, and no checkpoint says what the base's weights were",
                    path=path,
                    old=old,
                    new=new,
                )
            ]
        same, what = same_base(find_folder(config.model), manifest), "base model this run was trained on"
    else:
        was, now = ((read_meta(folder).get("files") or {}).get(old), path_hashes(config).get(new))
        same, what = was is not None and was == now, "template this run was trained with"
    return (
        []
        if same
        else [msg("{path}: {new} is not the {what} (its content is another)", path=path, new=_text(new), what=what)]
    )


def _insist_on_files(folder: Path, config: RunConfig) -> None:
    """InputError where data or model are not there; of a run that has no checkpoint yet, all that a new run needs."""
    manifest = newest_manifest(folder)
    if not manifest:
        check_inputs(config)
        return
    try:
        check_data(config)
    except InputError as error:
        where = "Where it lies elsewhere by now: --data-file FILE (--val-file for validation data)."
        raise InputError(error.message, f"{error.hint} {where}".strip()) from None
    if config.method.kind == "full":
        return
    try:
        check_model_name(config.model.name, config.model.revision)
    except InputError as error:
        raise InputError(error.message, "Where the same model lies elsewhere by now: --model FOLDER.") from None
    base_folder = find_folder(config.model)
    commit = (manifest.get("base") or {}).get("commit")
    commit = msg("On the hub it was --set model.revision={commit}. ", commit=commit) if commit else ""
    if base_of(manifest) and base_folder and not config.model.checkpoint and not same_base(base_folder, manifest):
        raise InputError(
            msg(
                "the base is not the one this run was trained on: the weights in {folder} have changed",
                folder=base_folder,
            ),
            msg(
                "Put the model back that it was trained on. {commit}Where that lies elsewhere by now: --model FOLDER.",
                commit=commit,
            ),
        )
