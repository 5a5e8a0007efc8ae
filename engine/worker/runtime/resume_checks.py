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
from engine.runs.resume_run import fixed_changes, refuse_changes, setting_changed
from engine.settings.resolve import from_groups
from engine.settings.schema import ModelConfig, RunConfig
from engine.worker.data.packing import Pack, TokenSet
from engine.worker.model.load import Precision
from engine.worker.model.loss import PackedLoss, UnpackedLoss
from engine.worker.runtime.checkpoint import Checkpoint
from engine.worker.runtime.train_state import TrainState

PROBE_TOKENS = 512
"""What a save computes the loss of."""


def refuse_other_run(
    resumed: Checkpoint, config: RunConfig, hashes: dict[str, str], templates: Mapping[str, str] | None = None
) -> None:
    """CheckpointError when settings or data differ from those the checkpoint was made with.

    `hashes`: sha256 of each data file. `templates`: hashes of template files, by their paths, as far as known.
    """
    templates = templates or {}
    saved_config = from_groups(resumed.manifest["config"], "checkpoint")
    saved_hashes = resumed.manifest["data"]
    same = list(saved_hashes.values()) == list(hashes.values())
    movable = _elsewhere(resumed, saved_config, config, same, templates)
    changed = fixed_changes(saved_config, config)
    lines = [setting_changed(path, old, new) for path, (old, new) in changed.items() if path not in movable]
    if not same:
        lines += [
            msg("the content of {path} has changed", path=path)
            for path in hashes
            if saved_hashes.get(path) != hashes[path]
        ]
        lines = lines or ["the data files are not in the same order"]
    refuse_changes(lines, CheckpointError)


def other_tokens(resumed: Checkpoint, now: Mapping[str, Any]) -> str:
    """A warning where the same data have become other tokens since the checkpoint, mostly empty. `now`: what its
    manifest would be."""
    if resumed.manifest.get("tokens") in (None, now["tokens"]):
        return ""
    saved_versions = resumed.manifest["versions"]
    newer = [
        f"{name} {saved_versions[name]} -> {version}"
        for name, version in now["versions"].items()
        if saved_versions.get(name) != version
    ]
    why = f"with {', '.join(newer)}" if newer else "the model's tokenizer or chat template has changed"
    return msg(
        "The same data are other tokens now, or others of them are trained, than at step {step}: {why}.",
        step=resumed.step,
        why=why,
    )


def _elsewhere(
    resumed: Checkpoint, saved_config: RunConfig, config: RunConfig, same_data: bool, templates: Mapping[str, str]
) -> list[str]:
    """Settings that may name another path, since the same content is there. A base is compared when it is loaded."""
    movable = ["model.checkpoint"]
    counts = [(len(either.data.files), len(either.data.val_files)) for either in (saved_config, config)]
    if same_data and counts[0] == counts[1]:
        movable += ["data.files", "data.val_files"]
    # With an older checkpoint, which does not name its base, only one that is gone: the loss of its probe is compared.
    if config.method.kind == "full" or base_of(resumed.manifest) or is_missing(saved_config.model.name):
        movable += ["model.name", "model.revision"]
    was, now = (templates.get(either.data.template) for either in (saved_config, config))
    if was is not None and was == now:
        movable.append("data.template")
    return movable


def probe_indices(tokens: TokenSet) -> np.ndarray:
    """A few examples of different length, int64: two at least, since one alone shows no leak, and few tokens in all."""
    by_length = np.argsort(tokens.lengths, kind="stable")
    spread = by_length[np.unique(np.linspace(0, (len(by_length) - 1) // 2, 4).astype(int))]
    running = np.cumsum(tokens.lengths[spread])
    return spread[: max(2, int((running <= PROBE_TOKENS).sum()))]


@torch.no_grad()
def probe_loss(loss_fn: PackedLoss | UnpackedLoss, probe: Pack, precision: Precision) -> float:
    """Loss on the probe, without dropout: equal before a save and after the load, unless a library changed it."""
    was_training = loss_fn.model.training
    loss_fn.model.eval()
    with precision.context():
        loss = float(loss_fn(probe)) / max(1, len(probe.targets))
    loss_fn.model.train(was_training)
    return loss


def compare_probe(journal: Journal, saved_state: dict[str, Any], loss: float, current_versions: dict[str, str]) -> None:
    """Journal an event where the probe's `loss` is not what it was when the checkpoint was made."""
    saved_loss = saved_state["probe_loss"]
    if abs(loss - saved_loss) <= 1e-6 * max(1.0, abs(saved_loss)):
        return
    changed = [
        f"{k} {v} -> {current_versions[k]}" for k, v in saved_state["versions"].items() if current_versions.get(k) != v
    ]
    journal.write(
        "event",
        event="probe-differs",
        message=msg(
            "The same examples gave a loss of {saved_loss:.6f} when the checkpoint was made and give {loss:.6f} now "
            "({changed}). The curve may show a step here.",
            saved_loss=saved_loss,
            loss=loss,
            changed=", ".join(changed) or "same library versions, other hardware?",
        ),
    )


def load_adapter(model: nn.Module, resumed: Checkpoint) -> None:
    """Put the checkpoint's adapter into the model."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(resumed.path / "adapter_model.safetensors"))


def reselect_best(
    folder: Path, state: TrainState, criterion: Criterion, config: RunConfig, heartbeat: Callable[[], None]
) -> dict[str, Any]:
    """Where eval.best has changed: choose the best of the earlier evaluations by it, into `state` and the link `best`.

    Returns the fields of the journal's event.
    """
    choice = choose(folder, criterion, config.eval, state.step, heartbeat)
    state.best_value, state.best_step = None, -1
    state.evals_without_better = 0
    for step, value in choice.points:
        state.record_value(step, value, criterion)
    relink(folder, choice)
    return choice.event()


def command_changes(resumed: Checkpoint, now: dict[str, Any] | None) -> list[str]:
    """How eval.command differs from the one the checkpoint was made with: their numbers may not be comparable."""
    return scoring_command.changed(resumed.manifest["command"], now) if "command" in resumed.manifest else []


def tokenizer_of(config: RunConfig, resumed: Checkpoint | None) -> ModelConfig:
    """Where to load the tokenizer from: the model, or a full fine-tune's own checkpoint where the model is gone."""
    if resumed and config.method.kind == "full" and is_path(config.model.name) and not os.path.isdir(config.model.name):
        return config.replace({"model.name": str(resumed.path), "model.revision": ""}).model
    return config.model
