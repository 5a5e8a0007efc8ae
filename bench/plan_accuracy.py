"""How exact the plan is: arithmetic, trace and measurement of the same step, side by side.

On the CPU the measurement counts every storage of real tensors; with --device cuda it is torch.cuda's own peak. Weights
are random, so nothing is downloaded. `--layers N` takes the widths of the real models with N layers, which is what a
CPU can do; on a GPU leave it out.

    OMP_NUM_THREADS=1 python bench/plan_accuracy.py --layers 2 --tokens 256
    python bench/plan_accuracy.py --device cuda --tokens 2048
"""

import argparse
import gc
import json
import tempfile

import torch
from fixture import random_model
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

from engine.models.builtin_configs import KNOWN
from engine.models.model_shape import read_shape
from engine.plan import EstimateInputs, memory_estimate
from engine.settings.resolve import Layer, resolve
from engine.worker.data.packing import Pack
from engine.worker.model.fast_layers import use_fast_layers
from engine.worker.model.load import (
    causal_lm,
    choose_precision,
    enable_activation_checkpointing,
    load_base,
    make_trainable,
)
from engine.worker.model.loss import PackedLoss
from engine.worker.model.optimizer import make_optimizer
from engine.worker.runtime.memory_fit import give_back_memory
from engine.worker.trace.allocations import Allocations
from engine.worker.trace.trace import trace

SHAPES = ("smollm2-135m", "smollm2-360m", "qwen2.5-0.5b", "qwen3-0.6b", "gemma-3-270m", "llama-3.2-1b")
METHODS = ("full", "lora", "qlora")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--tokens", type=int, default=1024, help="tokens in a pass, as examples of half of them")
    parser.add_argument("--layers", type=int, help="fewer layers than the real models have")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    transformers_logging.disable_progress_bar()
    rows = []
    print(
        f"{'shape':<14} {'method':<6} {'arithmetic':>11} {'trace':>11} {'measured':>11} {'arithmetic':>11} {'trace':>8}"
    )
    for name in options.shapes.split(","):
        for method in options.methods.split(","):
            row = compare(name, method, options)
            rows.append(row)
            sizes = " ".join(f"{row[key] / 1e6:>8,.0f} MB" for key in ("arithmetic", "trace", "measured"))
            errors = " ".join(f"{row[key] / row['measured'] - 1:>+9.1%}" for key in ("arithmetic", "trace"))
            print(f"{name:<14} {method:<6} {sizes} {errors}", flush=True)
    worst = {key: max(abs(row[key] / row["measured"] - 1) for row in rows) for key in ("arithmetic", "trace")}
    print(f"largest error: arithmetic {worst['arithmetic']:.1%}, trace {worst['trace']:.1%}")
    if options.json:
        print(json.dumps(rows))


def compare(name: str, method: str, options: argparse.Namespace, ready: str = "") -> dict:
    """`ready`: a folder that holds such a model already; else one with random weights is made for the while."""
    content = KNOWN[name] | ({"num_hidden_layers": options.layers} if options.layers else {})
    tokens = options.tokens // 2 * 2
    lengths = [tokens // 2] * 2
    with tempfile.TemporaryDirectory() as folder:
        if not ready:
            random_model(AutoConfig.for_model(**content), torch.bfloat16).save_pretrained(folder)
            give_back_memory()
        values = {"model.name": ready or folder, "method.kind": method, "data.max_length": tokens // 2}
        config = resolve([Layer("bench", values | {"train.micro_tokens": tokens})]).config
        device = torch.device(options.device, 0) if options.device == "cuda" else torch.device("cpu")
        precision = choose_precision(config, device)
        narrow = precision.autocast is not None
        known = EstimateInputs(options.device, narrow, tokens // 2, tokens, 0.5)
        estimate = memory_estimate(
            config, shape=read_shape(content, ""), checkpointing=options.checkpointing, inputs=known
        )
        traced = trace(
            config, content, device=options.device, bfloat16=narrow, lengths=lengths, supervised=0.5, passes=1,
            checkpointing=options.checkpointing,
        )  # fmt: skip
        measured = measure(config, precision, lengths, options.checkpointing)
    return {
        "shape": name,
        "method": method,
        "arithmetic": estimate.expected - estimate.parts["context"],
        "trace": max(traced["phases"]["training"], traced["phases"]["optimizer"]),
        "measured": measured,
    }


def measure(config, precision, lengths: list[int], checkpointing: bool) -> int:
    """Peak bytes of the second of two real steps."""
    gc.collect()
    model = make_trainable(load_base(config, precision), config)
    use_fast_layers(model)
    inner = causal_lm(model)
    if checkpointing:
        enable_activation_checkpointing(inner)
    optimizer = make_optimizer(model, config.optim)
    model.train()
    positions = torch.cat([torch.arange(length) for length in lengths])
    at = torch.arange(sum(lengths) // 2)
    ids = torch.randint(1000, (1, sum(lengths)))
    pack = Pack(ids, positions[None], tuple(lengths), at, torch.randint(1000, at.shape)).to(precision.device)

    def step() -> None:
        with precision.context():
            PackedLoss(inner).backward(pack, 1.0)
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    if precision.device.type == "cuda":
        step()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated()
    memory = Allocations()
    for tensor in [*model.parameters(), *model.buffers()]:
        memory.count(tensor)
        if (state := getattr(tensor, "quant_state", None)) is not None:
            for constants in (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code):
                memory.count(constants)
    with memory:
        step()
        memory.peak = memory.now
        step()
    return memory.peak


if __name__ == "__main__":
    main()
