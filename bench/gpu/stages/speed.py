"""speed: how fast does it train, beside TRL on the same card, and where does the time go?

Proves: real tokens per second at 0.5B, 1.5B and 7B, by bench/train_throughput.py and with its checks (every chat seen
once, first loss that of a plain float32 model); beside TRL where it is installed; as a share of the rate at which this
card multiplies large bfloat16 matrices; and what the profiler says a step's time goes to.
ok: a row is comparable, finetop is not slower than TRL's best, and its useful work reaches 30 % of the matrix rate at
1.5B and 40 % at 7B (at 0.5B no share is asked: a step there is too short to fill a card). Profile: the kinds add up to
the step within 2 %. Fell short: otherwise.
"""

import functools
import importlib.util
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engine.base.worker_process import cores
from gpu.findings import Findings, Measurement
from gpu.kit import CHATS, Kit

LEAST_SHARE = {"1.5b": 0.3, "7b": 0.4}
BATCH = 32
MICRO_TOKENS = 4096
WARM_UPS, PROFILED = 3, 3
KINDS = (
    ("attention", ("flash", "fmha", "attention", "mem_eff")),
    ("optimizer and clipping", ("multi_tensor", "adam", "lpnorm", "aten::_foreach")),
    (
        "matrix products",
        (
            "gemm",
            "nvjet",
            "cutlass",
            "xmma",
            "cublas",
            "splitk",
            "gemv",
            "aten::mm",
            "aten::addmm",
            "aten::bmm",
            "mkldnn",
        ),
    ),
    ("loss", ("softmax", "cross_entropy", "nll_loss", "gather")),
    ("copies and casts", ("memcpy", "memset", "copy", "aten::cat", "catarray", "fill")),
    (
        "elementwise and norms",
        ("elementwise", "reduce", "norm", "index", "scatter", "embedding", "sort", "scan", "aten::"),
    ),
)
"""By pieces of the name of a kernel, or on a CPU of an operation: the first kind that fits, else 'other'. Attention
comes first, since its kernels, too, are made with cutlass."""


def measurements() -> list[Measurement]:
    return [
        Measurement("0.5b lora", 50, lambda kit: beside_trl(kit, "0.5b", "lora", ("trl-packing",))),
        Measurement("1.5b lora", 105, lambda kit: beside_trl(kit, "1.5b", "lora", ("trl-packing",))),
        Measurement("7b lora", 110, lambda kit: beside_trl(kit, "7b", "lora", ("trl-packing",))),
        Measurement("0.5b full", 30, lambda kit: beside_trl(kit, "0.5b", "full", ())),
        Measurement("0.5b profile", 16, lambda kit: profiled(kit, "0.5b")),
        Measurement("1.5b profile", 17, lambda kit: profiled(kit, "1.5b")),
        Measurement("7b profile", 24, lambda kit: profiled(kit, "7b")),
    ]


def beside_trl(kit: Kit, model: str, method: str, rivals: tuple[str, ...]) -> Findings:
    """Ours, and the rivals on the same fixture."""
    import train_throughput as bench

    findings = Findings()
    have_trl = importlib.util.find_spec("trl") is not None
    engines = ["ours", *(rivals if have_trl else ())]
    if rivals and not have_trl:
        findings.note("TRL is not installed: nothing to compare with")
    kit.fixture(model)
    batch, threads = (BATCH if kit.cuda else 8), min(8, cores())
    words = f"--device {kit.device} --size {kit.shape(model)} --chats {kit.chats(CHATS)} --methods {method}".split()
    words += f"--batch-size {batch} --threads {threads} --timeout 240".split()
    words += ["--python", f"ours={sys.executable}", "--python", f"trl={sys.executable}", "--engines", *engines]
    made = bench.Bench(bench.arguments(words), kit.fixture_of(model))
    try:
        rate = made.matmul()["flops_per_s"] if kit.cuda else None
        speeds: dict[str, float] = {}
        for name in engines:
            run = bench.judged(made, name, method, *made.run(bench.ENGINES[name], method=method))
            if take_row(findings, name, bench.ENGINES[name].label, run):
                speeds[name] = run.tokens_per_second
        if rate and "ours" in speeds:
            judge_share(findings, model, speeds["ours"] * bench.useful_flops_per_token(made, method) / rate)
            findings.figure("matrix rate", rate / 1e12, "TFLOP/s")
    finally:
        shutil.rmtree(made.scratch)
    judge(findings, speeds)
    return findings


def take_row(findings: Findings, name: str, label: str, run: Any) -> bool:
    """One engine's figures; whether it did the work that the others did. Ours must have."""
    reasons = "; ".join(run.reasons)
    if name == "ours":
        findings.check("the work is what it should be", not reasons, reasons)
    elif reasons:
        findings.note(f"{label} is not comparable: {reasons}")
    findings.figure(label, run.tokens_per_second, "tokens/s")
    findings.figure("its peak", run.peak_bytes, "GB")
    return bool(run.tokens_per_second) and not reasons


def judge(findings: Findings, speeds: dict[str, float]) -> None:
    """Tokens per second of the engines that did the same work; 'ours' is held against the best of the others."""
    rivals = [speed for name, speed in speeds.items() if name != "ours"]
    if rivals and (ours := speeds.get("ours")):
        findings.figure("finetop is", ours / max(rivals), "x")
        findings.at_least("finetop beside TRL's best", ours / max(rivals), 1.0)


def judge_share(findings: Findings, model: str, share: float) -> None:
    findings.figure("of the matrix rate", share, "%")
    if model in LEAST_SHARE:
        findings.at_least("share of the matrix rate", share, LEAST_SHARE[model])


def profiled(kit: Kit, model: str) -> Findings:
    """Some real steps under torch's profiler, in this process."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    findings = Findings()
    step = _stepper(kit, model)
    for _ in range(WARM_UPS):
        step()
    _wait(kit)
    on_card = [ProfilerActivity.CUDA] if kit.cuda else []
    with profile(activities=[ProfilerActivity.CPU, *on_card]) as prof, torch.profiler.record_function("the steps"):
        for _ in range(PROFILED):
            step()
        _wait(kit)
    events = prof.events()
    whole = next(e.time_range for e in events if e.name == "the steps" and e.device_type.name == "CPU")
    if kit.cuda:
        spans = [
            (e.name, e.time_range.start, e.time_range.end)
            for e in events
            if e.device_type.name == "CUDA" and not _is_annotation(e)
        ]
    else:
        spans = [(e.name, e.time_range.start, e.time_range.end) for e in events if _is_leaf(e)]
    judge_profile(findings, spans, whole.elapsed_us())
    findings.figure("a step", whole.elapsed_us() / 1e6 / PROFILED, "s")
    return findings


def _is_annotation(event: Any) -> bool:
    """A span around kernels, not one of them: ours, and the optimizer's own."""
    return bool(getattr(event, "is_user_annotation", False)) or event.name.startswith(("the steps", "Optimizer."))


def _is_leaf(event: Any) -> bool:
    """On a CPU: an operation made of no others. Products that oneDNN makes are none of torch's, and count as gaps."""
    return event.name.startswith("aten::") and not any(c.name.startswith("aten::") for c in event.cpu_children)


def judge_profile(findings: Findings, spans: Iterable[tuple[str, float, float]], whole: float) -> None:
    """`spans`: name, start and end of all that ran, in the unit of `whole`, the time of the steps.

    What runs at the same time as something before it counts for the first only, so that kinds and gaps are parts of
    the whole.
    """
    kinds: dict[str, float] = {}
    until = float("-inf")
    for name, start, end in sorted(spans, key=lambda span: span[1:]):
        alone = end - max(start, until)
        if alone > 0:
            kinds[kind_of(name)] = kinds.get(kind_of(name), 0.0) + alone
            until = end
    busy = sum(kinds.values())
    for kind, took in sorted(kinds.items(), key=lambda pair: -pair[1]):
        findings.figure(kind, took / whole, "%")
    findings.figure("gaps, waiting for the host", 1 - busy / whole, "%")
    findings.check("something ran", busy > 0, busy)
    findings.check("the kinds are no more than the step", busy <= 1.02 * whole, f"{busy:.0f} of {whole:.0f} us")
    other = kinds.get("other", 0.0) / whole
    findings.check("nearly all kernels are of a known kind", other <= 0.05, f"{other:.1%}")


@functools.cache
def kind_of(name: str) -> str:
    low = name.lower()
    return next((kind for kind, pieces in KINDS if any(piece in low for piece in pieces)), "other")


def _wait(kit: Kit) -> None:
    if kit.cuda:
        import torch

        torch.cuda.synchronize()


def _stepper(kit: Kit, model: str) -> Any:
    """An optimizer step of LoRA on the chats, made of the worker's own parts."""
    import numpy as np

    from engine.settings.resolve import Layer, resolve
    from engine.worker.data.chat_template import ChatTemplate
    from engine.worker.data.tokenize import prepare
    from engine.worker.model.fast_layers import use_fast_layers
    from engine.worker.model.load import (
        causal_lm,
        choose_precision,
        load_base,
        load_tokenizer,
        make_trainable,
        pick_device,
    )
    from engine.worker.model.loss import PackedLoss
    from engine.worker.model.optimizer import make_optimizer
    from engine.worker.runtime.torch_setup import set_up_torch
    from engine.worker.train.data_parallel import Ranks
    from engine.worker.train.gradients import forward_backward
    from gpu.runs import settings

    fixture: Path = kit.fixture(model)
    config = resolve([Layer("gpu kit", settings(fixture, {"lora.r": 16, "optim.learning_rate": 1e-4}))]).config
    device = pick_device()
    set_up_torch(config, device)
    tokens = prepare(config, ChatTemplate(load_tokenizer(config.model), config.data.template)).train
    precision = choose_precision(config, device)
    trained = make_trainable(load_base(config, precision), config)
    use_fast_layers(trained)
    trained.train()
    optimizer = make_optimizer(trained, config.optim)
    loss_fn = PackedLoss(causal_lm(trained))
    parameters = [p for p in trained.parameters() if p.requires_grad]
    ranks = Ranks()
    batches = iter(np.arange(len(tokens))[: BATCH * (len(tokens) // BATCH)].reshape(-1, BATCH).tolist() * 9)

    def step() -> None:
        indices = np.array(next(batches))
        forward_backward(loss_fn, tokens, indices, MICRO_TOKENS, parameters, config, precision, ranks)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
