"""What saves memory, cheapest first: one ladder for a plan that does not fit and for a run that ran out of memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.base.messages import msg
from engine.settings.schema import RunConfig

_LEAST_PASS_TOKENS = 256
"""Below it halving a pass saves next to nothing."""
_CLOSE = "close to the same result"
_LORA = "Biderman et al. 2024"
_QLORA = "Dettmers et al. 2023"


@dataclass(frozen=True, slots=True)
class MemorySaver:
    """Settings that take less memory, and what is paid for it."""

    label: str
    settings: Mapping[str, Any]
    """By path."""
    cost: str
    source: str = ""


def memory_ladder(config: RunConfig, longest: int, pass_tokens: int | None = None) -> list[MemorySaver]:
    """By what is paid: time, then exactness, then what is learned.

    `longest`: tokens of the longest example. `pass_tokens`: those of the passes that ran out of memory, 0 where that is
    not known; None before a run, when what is `auto` is still the worker's to choose.
    """
    kind, train = config.method.kind, config.train
    ladder: list[MemorySaver] = []
    if pass_tokens is not None and pass_tokens >= _LEAST_PASS_TOKENS:
        half = pass_tokens // 2
        label = msg("{pass_tokens:,} → {half:,} tokens in a pass", pass_tokens=pass_tokens, half=half)
        ladder.append(MemorySaver(label, {"train.micro_tokens": half}, "a little slower, the same result"))
    elif pass_tokens is None and train.micro_tokens != "auto":
        ladder.append(MemorySaver("smaller passes", {"train.micro_tokens": "auto"}, "slower, the same result"))
    if train.activation_checkpointing is False or (
        pass_tokens is not None and train.activation_checkpointing is not True
    ):
        # One more forward pass beside a forward and a backward one that costs two.
        ladder.append(
            MemorySaver(
                "activation checkpointing on",
                {"train.activation_checkpointing": True},
                "a fourth to a third slower, the same result",
                "Chen et al. 2016",
            )
        )
    if config.optim.name == "adamw":
        ladder.append(
            MemorySaver(
                "8-bit optimizer", {"optim.name": "adamw8bit"}, "nearly the same result", "Dettmers et al. 2022"
            )
        )
    if kind == "lora":
        ladder.append(MemorySaver("4-bit base weights", {"method.kind": "qlora"}, f"slower, {_CLOSE}", _QLORA))
    if longest >= 512:
        ladder.append(_shorter(config, longest // 2))
    if kind == "full":
        ladder.append(
            _adapter(config, "lora", "an adapter in place of all weights", "learns less, forgets less", _LORA)
        )
        ladder.append(_adapter(config, "qlora", "an adapter on 4-bit base weights", f"slower, {_CLOSE}", _QLORA))
    if longest >= 1024:
        ladder.append(_shorter(config, longest // 4))
    return ladder


def _shorter(config: RunConfig, tokens: int) -> MemorySaver:
    cost = "longer ones are left out" if config.data.overlong == "skip" else "longer ones lose their end"
    return MemorySaver(msg("examples of at most {tokens:,} tokens", tokens=tokens), {"data.max_length": tokens}, cost)


def _adapter(config: RunConfig, kind: str, label: str, cost: str, source: str) -> MemorySaver:
    """In place of training all weights, whose rate would be too low for it and whose type too wide."""
    settings: dict[str, Any] = {"method.kind": kind}
    if config.optim.learning_rate != "auto":
        settings["optim.learning_rate"] = "auto"
    if config.model.dtype != "auto":
        settings["model.dtype"] = "auto"
    return MemorySaver(label, settings, cost, source)
