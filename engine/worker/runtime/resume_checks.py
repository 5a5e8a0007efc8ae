"""Whether a checkpoint may be resumed by this run, and whether the same weights still give the same loss."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.base.errors import CheckpointError
from engine.base.messages import msg
from engine.metrics import scoring_command
from engine.metrics.best_evaluation import Criterion
from engine.models.model_name import is_path
from engine.runs.journal import Journal
from engine.runs.relocate import base_of, is_missing
from engine.runs.reselect_best import choose, relink
from engine.settings.resolve import from_groups
from engine.settings.schema import MAY_CHANGE_ON_RESUME, ModelConfig, RunConfig, diff
from engine.worker.data.packing import Pack, TokenSet
from engine.worker.model.load import Precision
from engine.worker.model.loss import PackedLoss, UnpackedLoss
from engine.worker.runtime.checkpoint import Checkpoint
from engine.worker.runtime.train_state import TrainState

PROBE_TOKENS = 512
"""What a save computes the loss of."""


def refuse_other_run(
    last: Checkpoint, config: RunConfig, hashes: dict[str, str], templates: Mapping[str, str] | None = None
) -> None:
    """CheckpointError when settings or data differ from those the checkpoint was made with.

    `hashes`: sha256 of each data file. `templates`: what is known of the content of template files, by their paths.
    """
    templates = templates or {}
    before = from_groups(last.manifest["config"], "checkpoint")
    was = last.manifest["data"]
    same = list(was.values()) == list(hashes.values())
    may_change = (*MAY_CHANGE_ON_RESUME, *_elsewhere(last, before, config, same, templates))
    changed = {k: v for k, v in diff(before, config).items() if not k.startswith(may_change)}
    lines = [
        msg("{path} was {old!r}, is now {new!r}", path=path, old=old, new=new) for path, (old, new) in changed.items()
    ]
    if not same:
        lines += [
            msg("the content of {path} has changed", path=path) for path in hashes if was.get(path) != hashes[path]
        ]
        lines = lines or ["the data files are not in the same order"]
    if lines:
        raise CheckpointError(
            msg("{path_name} belongs to a run that differs:\n", path_name=last.path.name) + "\n".join(lines),
            "Put back what changed to resume it, or start a new run.",
        )


def other_tokens(last: Checkpoint, now: Mapping[str, Any]) -> str:
    """What to say where the same data have become other tokens since the checkpoint, mostly nothing. `now`: what its
    manifest would be."""
    if last.manifest.get("tokens") in (None, now["tokens"]):
        return ""
    was = last.manifest["versions"]
    newer = [
        f"{name} {was[name]} -> {version}" for name, version in now["versions"].items() if was.get(name) != version
    ]
    why = f"with {', '.join(newer)}" if newer else "the model's tokenizer or chat template has changed"
    return msg(
        "The same data are other tokens now, or others of them are trained, than at step {step}: {why}.",
        step=last.step,
        why=why,
    )


def _elsewhere(
    last: Checkpoint, before: RunConfig, config: RunConfig, same_data: bool, templates: Mapping[str, str]
) -> list[str]:
    """Settings that may name another place, since the same content lies there. A base is compared when it is loaded."""
    found = ["model.checkpoint"]
    counts = [(len(one.data.files), len(one.data.val_files)) for one in (before, config)]
    if same_data and counts[0] == counts[1]:
        found += ["data.files", "data.val_files"]
    # Of an older checkpoint, which does not know its base, only one that is gone: the loss of its probe is compared.
    if config.method.kind == "full" or base_of(last.manifest) or is_missing(before.model.name):
        found += ["model.name", "model.revision"]
    was, now = (templates.get(one.data.template) for one in (before, config))
    if was is not None and was == now:
        found.append("data.template")
    return found


def probe_indices(tokens: TokenSet) -> np.ndarray:
    """A few examples of different length: two at least, since one alone shows no leak, and few tokens else."""
    by_length = np.argsort(tokens.lengths, kind="stable")
    spread = by_length[np.unique(np.linspace(0, (len(by_length) - 1) // 2, 4).astype(int))]
    running = np.cumsum(tokens.lengths[spread])
    return spread[: max(2, int((running <= PROBE_TOKENS).sum()))]


@torch.no_grad()
def probe_loss(loss_of: PackedLoss | UnpackedLoss, probe: Pack, precision: Precision) -> float:
    """Loss on the probe, without dropout: equal before a save and after the load, unless a library changed it."""
    was_training = loss_of.model.training
    loss_of.model.eval()
    with precision.context():
        value = float(loss_of(probe)) / max(1, len(probe.targets))
    loss_of.model.train(was_training)
    return value


def compare_probe(journal: Journal, state: dict[str, Any], now: float, present: dict[str, str]) -> None:
    before = state["probe_loss"]
    if abs(now - before) <= 1e-6 * max(1.0, abs(before)):
        return
    changed = [f"{k} {v} -> {present[k]}" for k, v in state["versions"].items() if present.get(k) != v]
    journal.write(
        "event",
        event="probe-differs",
        message=msg(
            "The same examples gave a loss of {before:.6f} when the checkpoint was made and give {now:.6f} now "
            "({changed}). The curve may show a step here.",
            before=before,
            now=now,
            changed=", ".join(changed) or "same library versions, other hardware?",
        ),
    )


def load_adapter(model: nn.Module, last: Checkpoint) -> None:
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(last.path / "adapter_model.safetensors"))


def best_again(
    folder: Path, progress: TrainState, criterion: Criterion, config: RunConfig, alive: Callable[[], None]
) -> dict[str, Any]:
    """eval.best is another than before: what the earlier evaluations say by it, into `progress` and the link `best`.

    Returns what the journal is to say.
    """
    choice = choose(folder, criterion, config.eval, progress.step, alive)
    progress.best_value, progress.best_step = None, -1
    progress.evals_without_better = 0
    for step, value in choice.points:
        progress.take(step, value, criterion)
    relink(folder, choice)
    return choice.event()


def command_changes(last: Checkpoint, now: dict[str, Any] | None) -> list[str]:
    """How eval.command is another one than when the checkpoint was made: its numbers may not be of one kind."""
    return scoring_command.changed(last.manifest["command"], now) if "command" in last.manifest else []


def tokenizer_of(config: RunConfig, last: Checkpoint | None) -> ModelConfig:
    """Where the tokenizer is to be loaded from: the model, or a full fine-tune's own checkpoint where that is gone."""
    if last and config.method.kind == "full" and is_path(config.model.name) and not os.path.isdir(config.model.name):
        return config.replace({"model.name": str(last.path), "model.revision": ""}).model
    return config.model
