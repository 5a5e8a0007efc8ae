"""What a run would need, and on which GPU it fits, as lines. Reads the model's config.json: not for the event loop."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from engine.base.messages import msg
from engine.models.model_shape import find_shape
from engine.monitor.samples import Snapshot
from engine.plan.gpu_fit import COMMON_GPUS, GpuSpec, changes_that_fit, fit
from engine.plan.memory import EstimateInputs, MemoryEstimate, memory_estimate
from engine.present import numbers
from engine.present.text import one_line
from engine.settings.schema import RunConfig
from tui.render.line import Line

_MOST_CARDS = 8


def cards_of(machine: Snapshot | None) -> list[tuple[str, GpuSpec]]:
    """The machine's GPUs by their index, with what is free on each now."""
    cards = []
    for gpu in machine.gpus if machine else ():
        if gpu.memory_total_bytes and not gpu.mig_enabled:
            name = f"GPU {gpu.index}" if gpu.parent is None else f"slice {gpu.index}.{gpu.compute_instance}"
            cards.append((name, GpuSpec(gpu.name or name, gpu.memory_total_bytes, gpu.memory_free_bytes)))
    return cards


def circumstances(report: Mapping[str, Any]) -> EstimateInputs:
    """What a token report says of the data, for a closer estimate."""
    facts = report.get("facts") or {}
    return EstimateInputs(
        longest=facts.get("longest"), step_tokens=facts.get("step_tokens"), supervised=facts.get("supervised")
    )


def lines(config: RunConfig, machine: Snapshot | None, inputs: EstimateInputs | None = None) -> list[Line]:
    """Memory by part, and for each GPU whether it fits; where it does not, the cheapest changes that help."""
    shape = find_shape(config.model)
    if shape is None:
        return [[("memory not known: the model is not on this machine yet", "dim")]]
    inputs = inputs or EstimateInputs()
    cards = cards_of(machine)
    on_cpu = machine is not None and not machine.gpus
    estimate = memory_estimate(
        config, shape=shape, inputs=dataclasses.replace(inputs, device="cpu", bfloat16=False) if on_cpu else inputs
    )
    if estimate is None:
        return [[("memory not known for this model", "dim")]]
    shown: list[Line] = [_needed(estimate, on_cpu)]
    shown.append([(msg("of it {estimate}", estimate=_parts(estimate)), "dim")])
    if machine is not None and on_cpu:
        return [*shown, *_on_cpu(estimate, machine)]
    if not cards:
        shown.append([("no GPU known here; on common ones:", "dim")])
        cards = [(card.name, card) for card in COMMON_GPUS]
    fits_somewhere = False
    for name, card in cards[:_MOST_CARDS]:
        fitted = fit(config, card, inputs, shape)
        fits_somewhere |= fitted.fits
        free = card.free_bytes if card.free_bytes is not None else card.total_bytes
        sign, word, role = (
            ("✔", "fits", "done")
            if fitted.surely
            else ("!", "may just fit", "warning")
            if fitted.fits
            else ("✖", "does not fit", "failed")
        )
        shown.append(
            [
                (f"{sign} {word:<13}", role),
                (
                    msg(
                        "{name}, {free} free of {total_bytes}",
                        name=one_line(name),
                        free=numbers.size(free),
                        total_bytes=numbers.size(card.total_bytes),
                    ),
                    "text",
                ),
            ]
        )
    if not fits_somewhere:
        largest = max((card for _, card in cards), key=lambda card: card.usable_bytes)
        for change in changes_that_fit(config, largest, inputs, shape):
            flags = ", ".join(f"{path} = {value}" for path, value in change.settings.items())
            shown.append(
                [(f"  {flags} ", "bright"), (f"→ {numbers.size(change.expected)}; {one_line(change.why)}", "dim")]
            )
    return shown


def _needed(estimate: MemoryEstimate, on_cpu: bool) -> Line:
    where = "memory" if on_cpu else "GPU memory"
    return [
        (msg("needs about {expected} ", expected=numbers.size(estimate.expected)), "bright"),
        (f"of {where} ({numbers.size(estimate.low)}–{numbers.size(estimate.high)})", "text"),
    ]


def _parts(estimate: MemoryEstimate) -> str:
    parts = sorted(estimate.parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {numbers.size(amount)}" for name, amount in parts[:4] if amount)


def _on_cpu(estimate: MemoryEstimate, machine: Snapshot) -> list[Line]:
    host = machine.host
    if host is None or host.memory_total_bytes is None or host.memory_used_bytes is None:
        return []
    limit = min(host.memory_total_bytes, host.memory_limit_bytes or host.memory_total_bytes)
    free = max(limit - host.memory_used_bytes, 0)
    fits = estimate.expected <= free
    word = "✔ fits        " if fits else "✖ does not fit"
    return [
        [
            (word, "done" if fits else "failed"),
            (
                msg(
                    " this machine's memory, {free} free of {limit}", free=numbers.size(free), limit=numbers.size(limit)
                ),
                "text",
            ),
        ]
    ]
