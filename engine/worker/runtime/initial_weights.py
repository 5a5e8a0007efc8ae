"""Weights a run starts from when model.checkpoint names some: a model, or an adapter. Its optimizer starts anew."""

from pathlib import Path

from torch import nn

from engine.base.errors import ModelError
from engine.base.messages import msg
from engine.settings.schema import ModelConfig
from engine.worker.runtime.checkpoint import verify_weights

ADAPTER = "adapter_model.safetensors"


def given_model(config: ModelConfig) -> str | None:
    """The folder to load the model from in place of `model.name`; None where an adapter, or nothing, is given.

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


def load_given_adapter(model: nn.Module, config: ModelConfig) -> None:
    """Put the adapter of `model.checkpoint` into the model's own. Raises ModelError where their shapes differ."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    if not hasattr(model, "peft_config"):
        raise ModelError(
            "a full fine-tune cannot start from an adapter",
            "Use method lora, or merge the adapter into a model first and give that as model.name.",
        )
    path = Path(config.checkpoint).expanduser() / ADAPTER
    given = load_file(path)
    # PEFT would ask the hub whether the vocabulary grew; finetop never resizes it.
    own = {name: tensor.shape for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()}
    there = {name: tensor.shape for name, tensor in given.items()}
    if own != there:
        raise ModelError(
            msg(
                "the adapter in {parent} does not fit this run's: {there}",
                parent=path.parent,
                there=_difference(there, own),
            ),
            "An adapter keeps its shape: leave lora.r, lora.targets and the model as they were, or train a new one.",
        )
    set_peft_model_state_dict(model, given)


def _difference(given: dict[str, tuple[int, ...]], own: dict[str, tuple[int, ...]]) -> str:
    for name in own:
        if name not in given:
            return msg("it has nothing for {name}", name=name)
        if given[name] != own[name]:
            return msg(
                "{name} is {given}, here it is {own}", name=name, given=_shape(given[name]), own=_shape(own[name])
            )
    return msg("it also has {given}", given=next(name for name in given if name not in own))


def _shape(shape: tuple[int, ...]) -> str:
    return " by ".join(map(str, shape))
