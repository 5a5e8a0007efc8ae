"""The trace: the real model code on fake tensors says what real tensors take, and what arithmetic says."""

import json

import pytest
import torch

from engine.base.errors import EngineError
from engine.models.builtin_configs import KNOWN
from engine.models.model_shape import read_shape
from engine.plan import EstimateInputs, memory_estimate
from engine.plan.trace_request import remembered, run_trace, trace_request, traced_estimate
from engine.settings.resolve import Layer, resolve
from engine.worker.data.packing import Pack
from engine.worker.model.load import Precision, causal_lm, enable_activation_checkpointing, load_base, make_trainable
from engine.worker.model.loss import PackedLoss
from engine.worker.model.optimizer import make_optimizer
from engine.worker.trace import trace as tracing
from engine.worker.trace.allocations import Allocations
from tests.engine.families import FAMILIES

SMALL = {
    "model_type": "qwen2", "vocab_size": 4000, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
LENGTHS = [128, 128, 64, 64]


def config_of(kind, **changes):
    values = {"method.kind": kind, "model.dtype": "float32"} | {k.replace("__", "."): v for k, v in changes.items()}
    return resolve([Layer("test", values)]).config


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("models") / "small"
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**SMALL)).save_pretrained(folder)
    return folder


def measured_step(config, checkpointing):
    """Peak bytes of the second of two steps on real tensors, by counting every storage."""
    precision = Precision(torch.device("cpu"), None, torch.float32)
    model = make_trainable(load_base(config, precision), config)
    inner = causal_lm(model)
    if checkpointing:
        enable_activation_checkpointing(inner)
    optimizer = make_optimizer(model, config.optim)
    model.train()
    tokens = sum(LENGTHS)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    at = torch.arange(tokens // 2)
    pack = Pack(torch.randint(4000, (1, tokens)), positions[None], tuple(LENGTHS), at, torch.randint(4000, at.shape))
    memory = Allocations()
    for tensor in [*model.parameters(), *model.buffers(), *vars(pack).values()]:
        if isinstance(tensor, torch.Tensor):
            memory.count(tensor)
    with memory:
        for _ in range(2):
            memory.peak = memory.now
            PackedLoss(inner).backward(pack, 1.0)
            torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0, foreach=True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return memory.peak


@pytest.mark.parametrize(
    ("kind", "checkpointing", "changes"),
    [
        ("full", False, {}),
        pytest.param("full", True, {}, marks=pytest.mark.long),
        pytest.param("lora", False, {"lora__dropout": 0.1}, marks=pytest.mark.long),
        ("lora", True, {}),
    ],
)
def test_a_trace_is_within_5_percent_of_what_real_tensors_take(small, kind, checkpointing, changes):
    config = config_of(kind, model__name=str(small), **changes)
    traced = tracing.trace(
        config, SMALL, device="cpu", bfloat16=False, lengths=LENGTHS, supervised=0.5, passes=1,
        checkpointing=checkpointing,
    )  # fmt: skip
    assert max(traced["phases"]["training"], traced["phases"]["optimizer"]) == pytest.approx(
        measured_step(config, checkpointing), rel=0.05
    )


def test_a_trace_agrees_with_torchs_own_memory_tracker(small):
    """torch.distributed's MemTracker on the same fake step. It cannot follow frozen weights, so a full fine-tune."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    config = config_of("full")
    traced = tracing.trace(
        config, SMALL, device="cpu", bfloat16=False, lengths=LENGTHS, supervised=0.5, passes=1, checkpointing=False
    )
    model = tracing.build(config, SMALL, Precision(torch.device("cpu"), None, torch.float32))
    with FakeTensorMode(allow_non_fake_inputs=True):
        tracing.give_storage(model)
        optimizer = make_optimizer(model, config.optim)
        pack = tracing.fake_pack(LENGTHS, 0.5)
        tracker = MemTracker()
        tracker.track_external(model, optimizer)
        with tracker:
            for _ in range(2):
                PackedLoss(model).backward(pack, 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                tracker.reset_mod_stats()
    theirs = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert traced["peak"] == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize(
    ("known", "kind", "checkpointing", "changes"),
    [
        ("smollm2-135m", "lora", False, {}),
        pytest.param("smollm2-135m", "lora", True, {"lora__dropout": 0.05}, marks=pytest.mark.long),
        pytest.param("smollm2-135m", "qlora", False, {}, marks=pytest.mark.long),
        pytest.param("qwen2.5-0.5b", "full", True, {}, marks=pytest.mark.long),
        ("gemma-3-270m", "lora", False, {}),
        ("qwen3-0.6b", "qlora", True, {}),
    ],
)
def test_arithmetic_is_within_6_percent_of_the_trace(known, kind, checkpointing, changes):
    """On a GPU in bfloat16, as the worker would train there; without CUDA's context, which no trace sees. The models'
    widths are the real ones, with fewer layers."""
    content = {**KNOWN[known], "num_hidden_layers": 5}
    config = config_of(kind, model__dtype="auto", data__max_length=512, train__micro_tokens=1024, **changes)
    shape = read_shape(content, "")
    estimate = memory_estimate(config, shape=shape, checkpointing=checkpointing)
    traced = tracing.trace(
        config, content, device="cuda", bfloat16=True, lengths=[512, 512], supervised=0.5, passes=2,
        checkpointing=checkpointing,
    )  # fmt: skip
    assert estimate.expected - estimate.parts["context"] == pytest.approx(traced["peak"], rel=0.06)
    assert traced["trainable"] == estimate.trainable
    assert set(traced["phases"]) == {"model", "training", "optimizer", "evaluation", "save"}


@pytest.mark.parametrize("kind", ["lora", "qlora"])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_arithmetic_of_a_layers_backward_pass_is_within_6_percent_of_the_trace(kind, targets):
    """Many tokens and a small vocabulary, recomputing: the peak lies inside one layer, and not at the head."""
    content = {**KNOWN["qwen2.5-1.5b"], "num_hidden_layers": 4, "vocab_size": 8000}
    config = config_of(
        kind, model__dtype="auto", data__max_length=1024, train__micro_tokens=8192, lora__targets=targets
    )  # fmt: skip
    estimate = memory_estimate(config, shape=read_shape(content, ""), checkpointing=True)
    traced = tracing.trace(
        config, content, device="cuda", bfloat16=True, lengths=[1024] * 8, supervised=0.5, passes=2, checkpointing=True
    )
    assert estimate.expected - estimate.parts["context"] == pytest.approx(traced["peak"], rel=0.06)


@pytest.mark.parametrize("family", ["gemma2", "glm4-0414", "phi3"])
def test_every_family_can_be_traced(family):
    content = json.loads(FAMILIES[family]().to_json_string(use_diff=False))
    traced = tracing.trace(
        config_of("lora"), content, device="cuda", bfloat16=True, lengths=[32, 32], supervised=0.5, passes=1,
        checkpointing=False,
    )  # fmt: skip
    assert traced["peak"] > traced["held"] > 0


def test_a_trace_is_asked_of_another_process_once_and_remembered(small, fork_server):
    config = config_of("lora", model__name=str(small), train__micro_tokens=256, data__max_length=128)
    known = EstimateInputs(device="cpu", bfloat16=False, longest=128, step_tokens=256)
    estimate = memory_estimate(config, inputs=known)
    request = trace_request(config, estimate, known)
    assert request["lengths"] == [128, 128] and remembered(request) is None
    answer = run_trace(request)
    assert remembered(request) == answer
    exact = traced_estimate(estimate, answer, known)
    assert exact.expected - exact.parts["context"] == pytest.approx(answer["peak"], rel=0.001)
    assert exact.low <= exact.expected < exact.high and exact.source == "trace"
    with pytest.raises(EngineError, match="the trace failed"):
        run_trace(request | {"config": {"model_type": "no such model"}})
