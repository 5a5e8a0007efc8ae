"""How long a run will take: from this machine's own runs, a probe, or the arithmetic of the device."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from engine.base import worker_process
from engine.base.messages import msg, msg_n
from engine.plan.memory import MemoryEstimate
from engine.settings.schema import RunConfig

_TERAFLOPS = {
    "B200": 2250, "H200": 989, "H100 PCIE": 756, "H100": 989, "H800": 989, "A100": 312, "A800": 312, "L40S": 362,
    "L40": 181, "L4": 121, "RTX 6000 ADA": 364, "A6000": 155, "A5000": 111, "A40": 150, "A10": 125, "A30": 165,
    "5090": 209, "4090": 165, "4080": 97, "4070": 58, "3090": 71, "3080": 60, "3060": 25, "V100": 28, "T4": 8,
}  # fmt: skip
"""Dense bfloat16 TFLOP/s from the makers' data sheets, with float32 accumulation; float32 for V100 and T4, which have
no bfloat16. The first name that is part of the card's counts."""
_UTILISATION = {"full": 0.35, "lora": 0.35, "qlora": 0.22}
"""Share of it that training reaches: 0.3 to 0.5 for well fed cards (Chowdhery et al. 2022, PaLM, section 4.1); 4-bit
weights are unpacked in every pass."""
_CPU_CORE_GFLOPS = 25
"""float32, with AVX2, in products of the size a small model has."""
_EVALUATION_SPEEDUP = 3
"""A forward pass is a third of the work of a step."""


@dataclass(frozen=True)
class Speed:
    tokens_per_second: float
    source: str
    """'3 runs of this model by lora on this machine', 'a probe of 4 steps', 'arithmetic ...'."""
    factor: float
    """It may be off by as much as this, either way."""


@dataclass(frozen=True)
class Duration:
    seconds: float
    training_seconds: float
    evaluation_seconds: float
    speed: Speed


@dataclass(frozen=True)
class PastRun:
    """What an earlier run of this machine says of the next one."""

    model: str
    method: str
    tokens_per_second: float | None
    device: str = ""
    predicted_bytes: int | None = None
    measured_bytes: int | None = None


def device_label(device: str, count: int) -> str:
    """What a run is said to train on, and is compared by: `NVIDIA A100`, `2 × NVIDIA A100`."""
    return f"{count} × {device}" if count > 1 else device


def speed_of_several(single: Speed, count: int) -> Speed:
    """Of so many devices, where only one's is known. What they lose in summing gradients depends on what joins them,
    so it is counted as doubt.
    """
    if count == 1:
        return single
    return Speed(
        count * single.tokens_per_second,
        msg("{source}, times {count} GPUs", source=single.source, count=count),
        1.5 * single.factor,
    )


def speed_of_past(runs: Sequence[PastRun], model: str, method: str, device: str) -> Speed | None:
    """The median of the last runs of the same model by the same method on the same device."""
    fitting = [
        run.tokens_per_second
        for run in runs
        if run.tokens_per_second and (run.model, run.method) == (model, method) and run.device in ("", device)
    ][-5:]
    if not fitting:
        return None
    source = msg_n(
        "a run of this model by {method} on this machine",
        "{n} runs of this model by {method} on this machine",
        len(fitting),
        method=method,
    )
    return Speed(statistics.median(fitting), source, 1.2)


def estimated_throughput(config: RunConfig, estimate: MemoryEstimate, device: str, cores: int | None = None) -> Speed:
    """From the work a token makes: 2 floating-point operations a parameter forward, 2 backward for the gradient of the
    activations, 2 for that of the weights, where these are trained, and 2 more where activations are recomputed
    (Kaplan et al. 2020, arXiv 2001.08361, section 2.1). The embedding is looked up, not multiplied.
    """
    shape = estimate.shape
    matrices = shape.matrices + shape.embedding
    work = (6 if config.method.kind == "full" else 4) * matrices + 6 * (
        0 if config.method.kind == "full" else estimate.trainable
    )
    if estimate.activation_checkpointing:
        work += 2 * shape.matrices
    if estimate.device == "cpu":
        cores = cores or config.train.threads or worker_process.cores()
        return Speed(
            cores * _CPU_CORE_GFLOPS * 1e9 / work, msg("arithmetic: {cores} cores of a common CPU", cores=cores), 3
        )
    name = device.upper()
    rate = next((rate for card, rate in _TERAFLOPS.items() if card in name), None)
    peak = (
        msg("{rate} TFLOP/s of a {device}", rate=rate, device=device)
        if rate
        else "100 TFLOP/s, since the card is not known"
    )
    share = _UTILISATION[config.method.kind]
    return Speed(
        (rate or 100) * 1e12 * share / work,
        msg("arithmetic: {share:.0%} of {peak}", share=share, peak=peak),
        2 if rate else 4,
    )


def duration(speed: Speed, training_tokens: float, validation_tokens: float, evaluations: int) -> Duration:
    training = training_tokens / speed.tokens_per_second
    evaluating = evaluations * validation_tokens / (_EVALUATION_SPEEDUP * speed.tokens_per_second)
    return Duration(training + evaluating, training, evaluating, speed)


def correction(runs: Sequence[PastRun], method: str, device: str) -> tuple[float, int]:
    """Measured over predicted peak of this machine's runs by a method: the median of the last ten, and of how many.

    Kept within 0.7 to 1.4: what is further off has another reason than the estimate.
    """
    ratios = [
        run.measured_bytes / run.predicted_bytes
        for run in runs
        if run.method == method and run.device == device and run.measured_bytes and run.predicted_bytes
    ][-10:]
    if not ratios:
        return 1.0, 0
    return min(1.4, max(0.7, statistics.median(ratios))), len(ratios)
