"""The plan put together: memory and what fits before the data is read; steps, time, cost and advice after it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.base.messages import msg_n
from engine.models.model_shape import find_shape
from engine.plan.advice import Advice, DatasetStats, advise
from engine.plan.cost import Cost, Prices, cost
from engine.plan.gpu_fit import COMMON_GPUS, Change, Fit, GpuSpec, changes_that_fit, fit
from engine.plan.hardware import Hardware
from engine.plan.memory import EstimateInputs, MemoryEstimate, host_pass_tokens, shape_estimate
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
    inputs: EstimateInputs
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
    inputs = EstimateInputs(
        device=machine.device,
        bfloat16=machine.bfloat16,
        longest=facts.get("longest"),
        step_tokens=-(-facts["step_tokens"] // count) if facts.get("step_tokens") else None,
        supervised=facts.get("supervised"),
        correction=factor,
    )
    tokens = None
    if machine.device == "cpu" and machine.memory_bytes is not None:
        tokens = host_pass_tokens(config, shape, inputs, machine.memory_bytes)
    estimate = shape_estimate(config, shape, micro_tokens=tokens, inputs=inputs)
    on_gpu = inputs if machine.cards else dataclasses.replace(inputs, device="cuda", bfloat16=True, correction=1.0)
    cards: Sequence[GpuSpec] = machine.cards or COMMON_GPUS
    fits = tuple(fit(config, card, on_gpu, shape) for card in cards)
    roomiest = max(cards, key=lambda card: card.usable_bytes)
    changes = tuple(changes_that_fit(config, roomiest, on_gpu, shape))
    if machine.cards:  # the passes the worker would really make there
        estimate = max(fits, key=lambda candidate: candidate.card.usable_bytes).estimate
    request = trace_request(config, estimate, inputs)
    answer = remembered(request) if request else None
    if answer:
        estimate = traced_estimate(estimate, answer, inputs)
    return Memory(estimate, fits, changes, inputs, runs, answer is not None, count)


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
        single = speed_of_past(past, *what, device) or estimated_throughput(config, needs.estimate, device)
        speed = speed_of_several(single, count)
    run_duration: Duration | None = None
    if speed is not None:
        evaluations = evaluations_of(config, plan["steps_per_epoch"], plan["total_steps"])
        # One GPU evaluates while the others wait.
        run_duration = duration(speed, tokens, count * data["val"]["tokens"], evaluations)
    watts = count * _LOAD * machine.card_watts if machine.card_watts else None  # a CPU tells it to root only
    limit = msg_n("the card's limit", "the limit of {n} cards", count)
    seconds = run_duration.seconds if run_duration else None
    run_cost = cost(seconds, tokens, watts, f"{_LOAD:.0%} of {limit}" if watts else "", prices)
    return Forecast(tokens, run_duration, run_cost, tuple(advise(dataset_stats(config, report))))


def ranks(config: RunConfig, machine: Hardware) -> int:
    """How many GPUs of this machine would train the run together, each with all the weights."""
    return max(1, min(config.run.gpus_wanted, len(machine.cards)))


def dataset_stats(config: RunConfig, report: dict[str, Any]) -> DatasetStats:
    """The data report as advice takes it."""
    data, facts, plan = report["data"], report["facts"], report["plan"]
    train = data["train"]
    return DatasetStats(
        examples=train["examples"],
        longest=train["longest"],
        max_length=config.data.max_length,
        median_tokens=facts["median_tokens"],
        epochs=round(plan["total_steps"] / plan["steps_per_epoch"], 2),
        learning_rate=float(config.optim.learning_rate),
        method=config.method.kind,
        objective=config.method.objective,
        labels=data["labels"],
        duplicates=facts["duplicates"],
        contradictions=facts["contradictions"],
        overlong=train["overlong"] if config.method.objective == "sft" else 0,
        cut_tokens=train["cut_tokens"],
        cut_supervised=train["cut_supervised"],
        skips_overlong=config.data.overlong == "skip",
        skipped=train["skipped"],
        validation=data["val"]["examples"],
        median_answer_tokens=facts["median_answer_tokens"],
        same_answer=facts["same_answer"],
        dated=facts["dated"],
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


def forecast_json(run_forecast: Forecast) -> dict[str, Any]:
    """JSON-ready."""
    predicted = run_forecast.duration
    return {
        "training_tokens": run_forecast.training_tokens,
        "time": None
        if predicted is None
        else {
            "seconds": predicted.seconds,
            "training_seconds": predicted.training_seconds,
            "evaluation_seconds": predicted.evaluation_seconds,
            "tokens_per_second": predicted.speed.tokens_per_second,
            "from": predicted.speed.source,
            "factor": predicted.speed.factor,
        },
        "cost": dataclasses.asdict(run_forecast.cost),
        "advice": [dataclasses.asdict(piece) for piece in run_forecast.advice],
    }


def forecast_of(report: Mapping[str, Any]) -> Forecast:
    """The forecast in a plan's JSON, as `forecast_json` writes it. Raises KeyError or TypeError for what is none."""
    time = report["time"]
    predicted = time and Duration(
        time["seconds"],
        time["training_seconds"],
        time["evaluation_seconds"],
        Speed(time["tokens_per_second"], time["from"], time["factor"]),
    )
    advice = tuple(Advice(**piece) for piece in report["advice"])
    return Forecast(report["training_tokens"], predicted or None, Cost(**report["cost"]), advice)
