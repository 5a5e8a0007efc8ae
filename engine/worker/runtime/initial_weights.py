"""The weights a run starts from when model.checkpoint names some: a model or an adapter. Its optimizer starts fresh."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from engine.base.errors import ModelError
from engine.base.messages import msg
from engine.settings.schema import ModelConfig
from engine.worker.runtime.checkpoint import verify_weights

ADAPTER = "adapter_model.safetensors"


def initial_model(config: ModelConfig) -> str | None:
    """The folder to load the model from in place of `model.name`; None where model.checkpoint is an adapter, or unset.

    Raises CheckpointError where the weights are not as they were written, ModelError where there are none.
    """
    if not config.checkpoint:
        return None
    folder = Path(config.checkpoint).expanduser()
    verify_weights(folder)
    if (folder / ADAPTER).exists():
        return None
    if not (folder / "config.json").exists():
        raise ModelError(
            msg("{folder} holds neither an adapter nor a model", folder=folder),
            "model.checkpoint takes the folder of a checkpoint.",
        )
    return str(folder)


def load_initial_adapter(model: nn.Module, config: ModelConfig) -> None:
    """Load the adapter of `model.checkpoint` into the model's. Raises ModelError where their shapes differ."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    if not hasattr(model, "peft_config"):
        raise ModelError(
            "a full fine-tune cannot start from an adapter",
            "Use method lora, or merge the adapter into a model first and give that as model.name.",
        )
    path = Path(config.checkpoint).expanduser() / ADAPTER
    initial = load_file(path)
    # PEFT would ask the hub whether the vocabulary grew; finetop never resizes it.
    expected = {
        name: tensor.shape for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    shapes = {name: tensor.shape for name, tensor in initial.items()}
    if expected != shapes:
        raise ModelError(
            msg(
                "the adapter in {folder} does not fit this run's: {difference}",
                folder=path.parent,
                difference=_difference(shapes, expected),
            ),
            "An adapter keeps its shape: leave lora.r, lora.targets and the model as they were, or train a new one.",
        )
    set_peft_model_state_dict(model, initial)


def _difference(shapes: Mapping[str, torch.Size], expected: Mapping[str, torch.Size]) -> str:
    for name in expected:
        if name not in shapes:
            return msg("it has nothing for {name}", name=name)
        if shapes[name] != expected[name]:
            return msg(
                "{name} is {shapes}, here it is {expected}",
                name=name,
                shapes=_shape(shapes[name]),
                expected=_shape(expected[name]),
            )
    return msg("it also has {shapes}", shapes=next(name for name in shapes if name not in expected))


def _shape(shape: torch.Size) -> str:
    return " by ".join(map(str, shape))
