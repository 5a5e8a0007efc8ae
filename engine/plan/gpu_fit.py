"""What fits on which card: tokens in a pass as the worker would find them, and the cheapest changes that help."""

from dataclasses import dataclass

from engine.base.messages import msg
from engine.base.units import GIB
from engine.models.device_limits import ENOUGH_TOKENS, GPU_SHARE
from engine.models.model_shape import ModelShape
from engine.plan.memory import EstimateInputs, MemoryEstimate, shape_estimate
from engine.plan.memory_ladder import memory_ladder
from engine.settings.schema import RunConfig


@dataclass(frozen=True)
class GpuSpec:
    name: str
    total_bytes: int
    free_bytes: int | None = None
    """None: nothing else is on it."""

    @property
    def usable_bytes(self) -> int:
        """What the worker lets its passes take of it."""
        held_bytes = self.total_bytes - self.free_bytes if self.free_bytes is not None else 0
        return int(GPU_SHARE * self.total_bytes) - held_bytes


COMMON_GPUS = tuple(GpuSpec(msg("a card of {size} GB", size=size), size * GIB) for size in (24, 48, 80))
"""Shown where the machine has no GPU: an RTX 4090 or A10, an L40S or A6000, an A100 or H100."""


@dataclass(frozen=True)
class Fit:
    card: GpuSpec
    estimate: MemoryEstimate
    """With the passes it would be run with on this card; where it does not fit, with the smallest."""
    fits: bool
    """The expected peak stays within what the worker may take."""
    surely: bool
    """The high estimate does too."""


@dataclass(frozen=True)
class Change:
    """One setting that would be changed, beside those before it in the list."""

    settings: dict[str, object]
    why: str
    """What it costs."""
    expected: int
    """Peak bytes with it and all changes before it."""
    fits: bool


def fit(config: RunConfig, card: GpuSpec, inputs: EstimateInputs, shape: ModelShape) -> Fit:
    """As the worker goes about it: twice the tokens as long as they fit; recompute activations where too few do."""
    setting = config.train.activation_checkpointing
    longest = inputs.longest_of(config)
    enough = min(inputs.step_tokens or ENOUGH_TOKENS, ENOUGH_TOKENS)
    best: MemoryEstimate | None = None
    for checkpointing in [setting] if isinstance(setting, bool) else [False, True]:
        largest = _largest(config, card, inputs, shape, checkpointing, longest)
        if largest and (best is None or largest.micro_tokens > best.micro_tokens):
            best = largest
        if best and best.micro_tokens >= enough:
            break
    if best is None:
        recompute = setting is not False
        smallest = shape_estimate(config, shape, micro_tokens=longest, checkpointing=recompute, inputs=inputs)
        return Fit(card, smallest, False, False)
    return Fit(card, best, True, best.high <= card.usable_bytes)


def _largest(
    config: RunConfig, card: GpuSpec, inputs: EstimateInputs, shape: ModelShape, checkpointing: bool, longest: int
) -> MemoryEstimate | None:
    """The estimate with the most tokens a pass that fit; None where not even the longest example does."""
    fixed = config.train.micro_tokens
    tokens = longest if fixed == "auto" else max(longest, fixed)
    best: MemoryEstimate | None = None
    most = inputs.step_tokens or 16 * ENOUGH_TOKENS
    while True:
        estimate = shape_estimate(config, shape, micro_tokens=tokens, checkpointing=checkpointing, inputs=inputs)
        if estimate.expected > card.usable_bytes:
            return best
        best = estimate
        if fixed != "auto" or tokens >= most:
            return best
        tokens = min(2 * tokens, most)


def changes_that_fit(config: RunConfig, card: GpuSpec, inputs: EstimateInputs, shape: ModelShape) -> list[Change]:
    """From the cheapest on, each upon those before it, until it fits. The last one says whether it does."""
    made: list[Change] = []
    present = fit(config, card, inputs, shape)
    if present.fits:
        return made
    expected_before = present.estimate.expected
    for saver in memory_ladder(config, inputs.longest_of(config)):
        changed = config.replace(dict(saver.settings))
        result = fit(changed, card, inputs, shape)
        expected = result.estimate.expected
        if expected > 0.99 * expected_before and not result.fits:
            continue
        source = f" ({saver.source})" if saver.source else ""
        made.append(Change(dict(saver.settings), f"{saver.label}: {saver.cost}{source}", expected, result.fits))
        config, expected_before = changed, expected
        if result.fits:
            break
    return made
