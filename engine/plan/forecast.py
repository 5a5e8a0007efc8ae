"""The plan put together: memory and what fits before the data is read; steps, time, cost and advice after it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.base.messages import msg
from engine.models.model_shape import find_shape
from engine.plan.advice import Advice, DatasetStats, advise
from engine.plan.cost import Cost, Prices, cost
from engine.plan.gpu_fit import COMMON_GPUS, Change, Fit, GpuSpec, changes_that_fit, fit
from engine.plan.hardware import Hardware
from engine.plan.memory import EstimateInputs, MemoryEstimate, memory_estimate
from engine.plan.throughput import (
    Duration,
    PastRun,
    Speed,
    correction,
    device_label,
    duration,
    estimated_throughput,
    speed_of_past,
    speed_of_several,
)
from engine.plan.trace_request import remembered, trace_request, traced_estimate
from engine.runs.lr_schedule import evaluations_of
from engine.settings.schema import RunConfig

_LOAD = 0.9
"""Share of its power limit a card draws while training."""


@dataclass(frozen=True)
class Memory:
    """What the run needs, and where it fits."""

    estimate: MemoryEstimate
    fits: tuple[Fit, ...]
    """On each card of this machine, or on cards of common sizes where it has none."""
    changes: tuple[Change, ...]
    """The cheapest that make it fit the card with the most room; empty where it fits, or nothing helps."""
    known: EstimateInputs
    corrected_by: int
    """How many earlier runs of this machine the estimate was corrected by."""
    traced: bool
    gpus: int = 1
    """That train the run together; the estimate is for each."""


def memory(config: RunConfig, machine: Hardware, past: Sequence[PastRun], facts: dict[str, Any]) -> Memory | None:
    """None for a model whose shape is not known. `facts` as the data report has them; empty before the data is read."""
    shape = find_shape(config.model)
    if shape is None:
        return None
    count = ranks(config, machine)
    factor, runs = correction(past, config.method.kind, machine.device_name)
    known = EstimateInputs(
        device=machine.device,
        bfloat16=machine.bfloat16,
        longest=facts.get("longest"),
        step_tokens=-(-facts["step_tokens"] // count) if facts.get("step_tokens") else None,
        supervised=facts.get("supervised"),
        correction=factor,
    )
    estimate = memory_estimate(config, shape=shape, known=known)
    on_gpu = known if machine.cards else dataclasses.replace(known, device="cuda", bfloat16=True, correction=1.0)
    cards: Sequence[GpuSpec] = machine.cards or COMMON_GPUS
    fits = tuple(fit(config, card, on_gpu, shape) for card in cards)
    roomiest = max(cards, key=lambda card: card.usable_bytes)
    changes = tuple(changes_that_fit(config, roomiest, on_gpu, shape))
    if machine.cards:  # the passes the worker would really make there
        estimate = max(fits, key=lambda one: one.card.usable_bytes).estimate
    request = trace_request(config, estimate, known)
    answer = remembered(request) if request else None
    if answer:
        estimate = traced_estimate(estimate, answer, known)
    return Memory(estimate, fits, changes, known, runs, answer is not None, count)


@dataclass(frozen=True)
class Forecast:
    """How the run would go, once the data is known."""

    training_tokens: int
    """Tokens of the training data times the epochs, as far as the steps go."""
    duration: Duration | None
    cost: Cost
    advice: tuple[Advice, ...]


def forecast(
    config: RunConfig,
    report: dict[str, Any],
    machine: Hardware,
    past: Sequence[PastRun],
    needs: Memory | None,
    prices: Prices,
    probed: Speed | None = None,
) -> Forecast:
    """`config` with what `auto` became; `report` as the data report has it."""
    plan, data = report["plan"], report["data"]
    epochs = plan["total_steps"] / plan["steps_per_epoch"]
    tokens = round(data["train"]["tokens"] * epochs)
    count, device, what = ranks(config, machine), machine.device_name, (config.model.name, config.method.kind)
    speed = probed or speed_of_past(past, *what, device_label(device, count))
    if speed is None and needs is not None:
        one = speed_of_past(past, *what, device) or estimated_throughput(config, needs.estimate, device)
        speed = speed_of_several(one, count)
    took = None
    if speed is not None:
        evaluations = evaluations_of(config, plan["steps_per_epoch"], plan["total_steps"])
        # One GPU evaluates while the others wait.
        took = duration(speed, tokens, count * data["val"]["tokens"], evaluations)
    watts = count * _LOAD * machine.card_watts if machine.card_watts else None  # a CPU tells it to root only
    limit = "the card's limit" if count == 1 else msg("the limit of {count} cards", count=count)
    bill = cost(
        took.seconds if took else None,
        tokens,
        watts,
        f"{_LOAD:.0%} of {limit}" if watts else "",
        prices,
    )
    return Forecast(tokens, took, bill, tuple(advise(facts_of(config, report))))


def ranks(config: RunConfig, machine: Hardware) -> int:
    """How many GPUs of this machine would train the run together, each with all the weights."""
    return max(1, min(config.run.gpus_wanted, len(machine.cards)))


def facts_of(config: RunConfig, report: dict[str, Any]) -> DatasetStats:
    """The data report as advice takes it."""
    data, found, plan = report["data"], report["facts"], report["plan"]
    train = data["train"]
    return DatasetStats(
        examples=train["examples"],
        longest=train["longest"],
        max_length=config.data.max_length,
        median_tokens=found["median_tokens"],
        epochs=round(plan["total_steps"] / plan["steps_per_epoch"], 2),
        learning_rate=float(config.optim.learning_rate),
        method=config.method.kind,
        objective=config.method.objective,
        labels=data["labels"],
        duplicates=found["duplicates"],
        contradictions=found["contradictions"],
        overlong=train["overlong"] if config.method.objective == "sft" else 0,
        cut_tokens=train["cut_tokens"],
        cut_supervised=train["cut_supervised"],
        skips_overlong=config.data.overlong == "skip",
        skipped=train["skipped"],
        validation=data["val"]["examples"],
        median_answer_tokens=found["median_answer_tokens"],
        same_answer=found["same_answer"],
        dated=found["dated"],
    )


def memory_json(needs: Memory | None) -> dict[str, Any] | None:
    """JSON-ready."""
    if needs is None:
        return None
    estimate = needs.estimate
    return {
        "low": estimate.low,
        "expected": estimate.expected,
        "high": estimate.high,
        "parts": estimate.parts,
        "parameters": estimate.parameters,
        "trainable": estimate.trainable,
        "micro_tokens": estimate.micro_tokens,
        "activation_checkpointing": estimate.activation_checkpointing,
        "device": estimate.device,
        "source": estimate.source,
        "shape_from": estimate.shape.source,
        "corrected_by_runs": needs.corrected_by,
        "cards": [
            {
                "name": one.card.name,
                "total_bytes": one.card.total_bytes,
                "free_bytes": one.card.free_bytes,
                "fits": one.fits,
                "surely": one.surely,
                "expected": one.estimate.expected,
                "micro_tokens": one.estimate.micro_tokens,
                "activation_checkpointing": one.estimate.activation_checkpointing,
            }
            for one in needs.fits
        ],
        "changes": [dataclasses.asdict(change) for change in needs.changes],
    }


def forecast_json(way: Forecast) -> dict[str, Any]:
    """JSON-ready."""
    took = way.duration
    return {
        "training_tokens": way.training_tokens,
        "time": None
        if took is None
        else {
            "seconds": took.seconds,
            "training_seconds": took.training_seconds,
            "evaluation_seconds": took.evaluation_seconds,
            "tokens_per_second": took.speed.tokens_per_second,
            "from": took.speed.source,
            "factor": took.speed.factor,
        },
        "cost": dataclasses.asdict(way.cost),
        "advice": [dataclasses.asdict(piece) for piece in way.advice],
    }
