"""estimate: does a run take the memory that `finetop plan` says?

Proves: for four shapes and three methods, the peak of a real step on this card beside the plan's arithmetic and its
trace on fake tensors; and what CUDA's context and kernels take beside it, which the plan assumes.
ok: trace within 10 %, arithmetic within 20 %, context not above the plan's by a third. Fell short: otherwise. In a
rehearsal the shapes have one layer and the measurement counts the storages of real tensors.
"""

import argparse

from gpu.findings import Findings, Measurement
from gpu.kit import Kit

TRACE, ARITHMETIC, CONTEXT = 0.10, 0.20, 4 / 3
TOKENS, TOKENS_ON_CPU = 2048, 64
CASES = (
    ("0.5b", "qwen2.5-0.5b", "full", False, 30),
    ("0.5b", "qwen2.5-0.5b", "lora", False, 28),
    ("1.5b", "qwen2.5-1.5b", "qlora", False, 42),
    ("llama-1b", "llama-3.2-1b", "lora", False, 40),
    ("7b", "qwen2.5-7b", "lora", True, 55),
)
"""Model, its shape in engine.models.builtin_configs, method, whether activations are recomputed, seconds. What weighs
differs:
moments and casts; activations; four bits; another kind; the weights of 7B."""


def measurements() -> list[Measurement]:
    cases = [
        Measurement(
            f"{model} {method}", seconds, lambda kit, *, case=(model, shape, method, again): compare(kit, *case)
        )
        for model, shape, method, again, seconds in CASES
    ]
    return [*cases, Measurement("context", 20, context)]


def compare(kit: Kit, model: str, shape: str, method: str, checkpointing: bool) -> Findings:
    import plan_accuracy

    findings = Findings()
    tokens = TOKENS if kit.cuda else TOKENS_ON_CPU
    options = argparse.Namespace(device=kit.device, layers=None, tokens=tokens, checkpointing=checkpointing)
    if kit.tiny:
        options.layers = 1
        row = plan_accuracy.compare("smollm2-135m", method, options)
    else:
        row = plan_accuracy.compare(shape, method, options, str(kit.fixture(model) / "model"))
    judge(findings, row)
    return findings


def judge(findings: Findings, row: dict) -> None:
    """`row`: bytes measured, traced and by arithmetic (plan_accuracy.compare)."""
    findings.close("the trace", row["trace"], row["measured"], TRACE)
    findings.close("the arithmetic", row["arithmetic"], row["measured"], ARITHMETIC)
    findings.figure("measured", row["measured"], "GB")
    findings.figure("trace", f"{row['trace'] / row['measured'] - 1:+.1%}")
    findings.figure("arithmetic", f"{row['arithmetic'] / row['measured'] - 1:+.1%}")


def context(kit: Kit) -> Findings:
    """What the card holds for this process beyond torch's own memory, after products, attention and an optimizer."""
    from engine.plan.memory import CUDA_CONTEXT_BYTES

    kit.needs_card("CUDA's context")
    import torch

    from engine.monitor.nvml import Nvml

    findings = Findings()
    free_before, _ = _free(Nvml())
    weights = torch.randn(1024, 1024, device="cuda", requires_grad=True)
    optimizer = torch.optim.AdamW([weights], fused=True)
    with torch.autocast("cuda", torch.bfloat16):
        q = (weights @ weights).view(1, 8, 1024, 128)
        torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).float().sum().backward()
    optimizer.step()
    torch.cuda.synchronize()
    free_after, _ = _free(Nvml())
    taken = free_before - free_after - torch.cuda.memory_reserved()
    findings.at_most("context beside what the plan assumes", taken / CUDA_CONTEXT_BYTES, CONTEXT)
    findings.at_least("context, in MB", taken / 1e6, 50)
    findings.figure("context", taken, "GB")
    findings.figure("assumed", CUDA_CONTEXT_BYTES, "GB")
    return findings


def _free(nvml) -> tuple[int, int]:
    sample = nvml.read(nvml.devices()[0])
    return sample.memory_free_bytes, sample.memory_total_bytes
