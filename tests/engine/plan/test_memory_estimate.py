"""Memory by arithmetic: counts as published, parts as PyTorch allocates them, sums in agreement with measurements."""

import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.models.builtin_configs import KNOWN, known_config
from engine.models.model_shape import find_config, find_shape, read_shape
from engine.plan import EstimateInputs, memory_estimate
from engine.plan.gpu_fit import GpuSpec, changes_that_fit, fit
from engine.plan.memory import adapter_numbers, adapter_of, packed_bytes
from engine.settings.presets import SHIPPED, find_preset
from engine.settings.resolve import Layer, resolve
from tests.engine.families import FAMILIES

GB = 1e9
GIB = 2**30


def config_of(**changes):
    return resolve([Layer("test", {key.replace("__", "."): value for key, value in changes.items()})]).config


# -- shapes ----------------------------------------------------------------------------------------------------------

PUBLISHED = {
    "qwen2.5-0.5b": 494_032_768, "qwen2.5-1.5b": 1_543_714_304, "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512, "qwen2.5-14b": 14_770_033_664, "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648, "qwen3-0.6b": 596_049_920, "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096, "qwen3-8b": 8_190_735_360, "qwen3-14b": 14_768_307_200, "qwen3-32b": 32_762_123_264,
    "llama-2-7b": 6_738_415_616, "llama-2-13b": 13_015_864_320, "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496, "llama-3.2-1b": 1_235_814_400, "llama-3.2-3b": 3_212_749_824,
    "tinyllama-1.1b": 1_100_048_384, "smollm2-135m": 134_515_008, "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384, "mistral-7b": 7_248_023_552, "mistral-7b-v0.1": 7_241_732_096,
    "mistral-nemo": 12_247_782_400, "glm-4-9b": 9_399_951_360, "glm-4-9b-0414": 9_400_279_040,
    "gemma-2-2b": 2_614_341_888, "gemma-2-9b": 9_241_705_984, "gemma-2-27b": 27_227_128_320,
    "gemma-3-1b": 999_885_952, "phi-2": 2_779_683_840, "phi-3-mini": 3_821_079_552, "phi-3-medium": 13_960_238_080,
    "phi-4": 14_659_507_200, "phi-4-mini": 3_836_021_760,
}  # fmt: skip
"""The total the hub shows beside the safetensors files of each model."""


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_known_shapes_have_the_published_number_of_parameters(name):
    assert read_shape(KNOWN[name], "").parameters == PUBLISHED[name]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_parameters_and_adapters_are_counted_exactly(family):
    """Against the real classes, and what PEFT really trains, for all linear layers and for two of them."""
    from peft import LoraConfig, TaskType, get_peft_model

    made = FAMILIES[family]()
    shape = read_shape(json.loads(made.to_json_string(use_diff=False)), "")
    for targets in ("all-linear", [shape.linears[0].name, shape.linears[-1].name]):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(made)
            assert shape.parameters == sum(p.numel() for p in model.parameters())
            tuned = get_peft_model(model, LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, target_modules=targets))
        trained = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
        assert adapter_numbers(shape, adapter_of(config_of(lora__r=4, lora__targets=targets))) == trained


@pytest.mark.parametrize(
    ("hub", "known"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b"),
        ("Qwen/Qwen2.5-Coder-1.5B", "qwen2.5-1.5b"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama-3-8b"),
        ("meta-llama/Llama-3.2-1B", "llama-3.2-1b"),
        ("THUDM/glm-4-9b-chat-hf", "glm-4-9b"),
        ("THUDM/GLM-4-9B-0414", "glm-4-9b-0414"),
        ("mistralai/Mistral-7B-Instruct-v0.1", "mistral-7b-v0.1"),
        ("google/gemma-2-2b-it", "gemma-2-2b"),
        ("microsoft/phi-4-mini-instruct", "phi-4-mini"),
    ],
)
def test_a_hub_name_is_known_by_its_family_and_size(hub, known):
    assert known_config(hub) is KNOWN[known]


def test_what_is_not_known_has_no_estimate_rather_than_a_wrong_one():
    for name in ("org/unheard-of", "Qwen/Qwen2.5-7B-Instruct-AWQ", "Qwen/Qwen3-30B-A3B", "THUDM/glm-4-9b-chat"):
        assert memory_estimate(config_of(model__name=name)) is None
    assert read_shape({"model_type": "mixtral", "hidden_size": 8}, "") is None
    assert read_shape({"model_type": "llama", "hidden_size": "wide"}, "") is None


def test_the_hubs_cache_is_read_as_the_hub_lays_it_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    repository = tmp_path / "hub" / "models--org--small"
    snapshot = repository / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    (snapshot / "config.json").write_text(json.dumps(KNOWN["smollm2-135m"]))
    shape = find_shape(config_of(model__name="org/small").model)
    assert shape.parameters == PUBLISHED["smollm2-135m"] and "cache" in shape.source
    assert find_shape(config_of(model__name="org/small", model__revision="v2").model) is None
    assert find_config(config_of(model__name="org/other").model) is None


# -- parts, against what PyTorch allocates ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_weights_gradients_and_moments_have_exactly_the_bytes_pytorch_allocates(tiny_model, kind):
    from engine.worker.model.load import choose_precision, load_base, make_trainable, pick_device
    from engine.worker.model.optimizer import make_optimizer

    config = config_of(model__name=str(tiny_model), method__kind=kind, model__dtype="float32", lora__r=4)
    model = make_trainable(load_base(config, choose_precision(config, pick_device())), config)
    optimizer = make_optimizer(model, config.optim)
    model(input_ids=torch.ones(1, 8, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    trained = [p for p in model.parameters() if p.requires_grad]
    moments = [t for state in optimizer.state.values() for key, t in state.items() if key != "step"]
    parts = memory_estimate(config, inputs=EstimateInputs(device="cpu")).parts
    assert parts["gradients"] == sum(p.grad.nbytes for p in trained)
    assert parts["optimizer"] == sum(t.nbytes for t in moments)
    assert parts["weights"] + parts.get("adapter", 0) == sum(p.nbytes for p in model.parameters())


def test_four_bit_matrices_have_exactly_the_bytes_bitsandbytes_packs(tiny_model):
    from engine.worker.model.load import choose_precision, load_base, pick_device

    config = config_of(model__name=str(tiny_model), method__kind="qlora", model__dtype="float32")
    model = load_base(config, choose_precision(config, pick_device()))
    shape = find_shape(config.model)
    layer = model.model.layers[0]
    for linear in shape.linears:
        module = getattr(layer.mlp, linear.name, None) or getattr(layer.self_attn, linear.name)
        state = module.weight.quant_state
        packed, constants = packed_bytes(linear)
        assert module.weight.nbytes == packed
        found = [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
        assert constants == sum(tensor.nbytes for tensor in found)
    assert type(model.lm_head) is torch.nn.Linear
    parts = memory_estimate(config, inputs=EstimateInputs(device="cpu")).parts
    assert parts["weights"] == sum(p.nbytes for p in model.parameters())


# -- sums, against what others measured ------------------------------------------------------------------------------

_QWEN_7B = {**KNOWN["llama-2-7b"], "model_type": "qwen2", "vocab_size": 151936}
"""The first Qwen-7B: 7.72B parameters; two MLP inputs of 11,008."""
_LLAMA_2_70B = {**KNOWN["llama-3-70b"], "vocab_size": 32000}


@pytest.fixture
def of_another_trainer(monkeypatch):
    """The estimate with logits at every position, so many bytes for each word of the vocabulary, as other trainers hold
    them; ours holds those it trains on, a chunk at a time."""

    def estimate(content, kind, tokens, width, passes=1, **settings):
        monkeypatch.setattr("engine.plan.memory.logits_bytes", lambda shape, how, rows: width * rows * shape.vocabulary)
        changes = {"data__max_length": tokens, "train__micro_tokens": tokens, "train__activation_checkpointing": True}
        config = config_of(method__kind=kind, **(changes | settings))
        known = EstimateInputs(supervised=1.0, step_tokens=passes * tokens)
        return memory_estimate(config, shape=read_shape(content, ""), inputs=known)

    return estimate


@pytest.mark.parametrize(
    ("content", "kind", "examples", "held", "peak"),
    [
        (KNOWN["mistral-7b-v0.1"], "lora", 4, 14.664, 26.705),
        (KNOWN["mistral-7b-v0.1"], "lora", 8, 14.665, 38.743),
        (KNOWN["mistral-7b-v0.1"], "qlora", 4, 4.306, 16.374),
        (KNOWN["mistral-7b-v0.1"], "qlora", 8, 4.307, 28.412),
        (_LLAMA_2_70B, "qlora", 4, 37.179, 68.126),
    ],
)
def test_adapters_take_what_torch_measured_on_a_gpu(of_another_trainer, content, kind, examples, held, peak):
    """fms-acceleration, scripts/benchmarks/refs/a100_80gb.csv, 2025-02-07: torch's own peak (max_memory_allocated) on
    one A100-80GB, and what was left after training. Examples of 4,096 tokens, r=16 on q, k, v, o, recomputing, dropout,
    FlashAttention 2. The loss of transformers 4.48 takes 14 bytes: logits in bfloat16, in float32, shifted, and their
    log-softmax."""
    estimate = of_another_trainer(
        content, kind, 4096 * examples, 14, data__max_length=4096, lora__r=16, lora__dropout=0.1,
        lora__targets=["q_proj", "k_proj", "v_proj", "o_proj"],
    )  # fmt: skip
    kept = sum(estimate.parts.get(part, 0) for part in ("weights", "quantisation", "adapter", "optimizer"))
    assert kept / GB == pytest.approx(held, rel=0.01)
    assert (estimate.expected - estimate.parts["context"]) / GB == pytest.approx(peak, rel=0.03)


@pytest.mark.parametrize(("kind", "held"), [("lora", 16.242), ("qlora", 5.884)])
def test_what_llama_3_8b_holds_is_what_torch_measured(of_another_trainer, kind, held):
    """As above, refs/a100_80gb_liger.csv; the peaks are of other kernels."""
    estimate = of_another_trainer(KNOWN["llama-3-8b"], kind, 4096, 14, lora__r=16,
                                  lora__targets=["q_proj", "k_proj", "v_proj", "o_proj"])  # fmt: skip
    kept = sum(estimate.parts.get(part, 0) for part in ("weights", "quantisation", "adapter", "optimizer"))
    assert kept / GB == pytest.approx(held, rel=0.01)


@pytest.mark.parametrize(
    ("length", "published"), [(256, 20.1), (512, 20.4), (1024, 21.5), (2048, 23.8), (4096, 29.7), (8192, 36.6)]
)
def test_lora_of_qwen_7b_agrees_with_the_profile_in_qwens_readme(of_another_trainer, length, published):
    """README of QwenLM/Qwen, "Profiling of Memory and Speed": LoRA r=64 on all linear layers, one A100-80G, bf16,
    batch 1, gradient checkpointing, FlashAttention-2. modeling_qwen.py leaves logits as they are: they are there in
    bfloat16, shifted, and in float32 as log-softmax and gradient, 12 bytes."""
    ours = of_another_trainer(_QWEN_7B, "lora", length, 12, passes=8, lora__r=64, lora__dropout=0.05)
    assert 0.91 < ours.expected / GB / published < 1.02


def test_qlora_of_qwen_7b_grows_with_length_as_in_qwens_readme(of_another_trainer):
    """As above, Q-LoRA: GPTQ weights under DeepSpeed, all in float16, so 8 bytes a logit. What they hold beside that is
    not bitsandbytes' (docs/plan.md)."""
    short, long = (of_another_trainer(_QWEN_7B, "qlora", n, 8, passes=8, lora__r=64).expected / GB for n in (256, 8192))
    assert long - short == pytest.approx(23.5 - 11.5, rel=0.02)
    assert 11.5 - short == pytest.approx(2.0, abs=0.3)


def test_lora_of_glm_4_9b_takes_what_its_authors_read_off_the_card(of_another_trainer):
    """GLM-4's finetune_demo/README.md, 2024-06-05: 21,531 MiB on an A100 with configs/lora.yaml: batch 1, 512 + 512
    tokens at most, r=8 on query_key_value, recomputing, bfloat16. Its loss makes float32 logits: 14 bytes."""
    estimate = of_another_trainer(KNOWN["glm-4-9b"], "lora", 1024, 14, lora__r=8, lora__dropout=0.1,
                                  lora__targets=["q_proj", "k_proj", "v_proj"])  # fmt: skip
    assert estimate.expected / 2**20 == pytest.approx(21531, rel=0.04)


@pytest.mark.parametrize(
    ("model", "kind", "settings", "low", "high"),
    [
        # LLaMA-Factory's README, "Hardware Requirement" (estimated): full in mixed precision 18x GB, pure bf16 8x GB,
        # LoRA 2x GB and QLoRA x/2 GB for x billion parameters, both without activations.
        ("Qwen/Qwen2.5-7B", "full", {}, 17.5 * 7.6, 19 * 7.6),
        ("meta-llama/Meta-Llama-3-8B", "full", {}, 17.5 * 8.0, 19 * 8.0),
        ("THUDM/glm-4-9b-chat-hf", "full", {}, 17.5 * 9.4, 19 * 9.4),
        ("Qwen/Qwen2.5-7B", "full", {"model__dtype": "bfloat16"}, 8 * 7.6, 9 * 7.6),
        ("Qwen/Qwen2.5-7B", "lora", {}, 2 * 7.6, 2.5 * 7.6),
        ("meta-llama/Meta-Llama-3-8B", "lora", {}, 2 * 8.0, 2.5 * 8.0),
        # torchtune's tutorials: QLoRA of Llama 2 7B and Llama 3 8B in less than 10 GB.
        ("meta-llama/Llama-2-7b-hf", "qlora", {"lora__r": 8}, 4.5, 10),
        ("meta-llama/Meta-Llama-3-8B", "qlora", {"lora__r": 8}, 6, 10),
        ("Qwen/Qwen2.5-7B", "qlora", {}, 5.5, 10),
        ("THUDM/glm-4-9b-chat-hf", "qlora", {}, 6.5, 12),
        # Dettmers et al. 2023, QLoRA: a 65B model trains on one card of 48 GB. Llama 3 70B has more of a vocabulary.
        ("meta-llama/Meta-Llama-3-70B", "qlora", {"data__max_length": 512, "optim__name": "paged_adamw8bit"}, 39, 48),
    ],
)
def test_common_runs_agree_with_published_figures(model, kind, settings, low, high):
    defaults = {"data__max_length": 1024, "train__micro_tokens": 1024, "train__activation_checkpointing": True}
    if settings.get("data__max_length"):
        defaults["train__micro_tokens"] = settings["data__max_length"]
    estimate = memory_estimate(config_of(model__name=model, method__kind=kind, **(defaults | settings)))
    assert low <= estimate.expected / GB <= high
    assert estimate.low <= estimate.expected <= estimate.high and sum(estimate.parts.values()) == estimate.expected


def test_double_quantisation_costs_the_share_the_paper_gives():
    """Dettmers et al. 2023, section 3: 8/64 + 32/(64 * 256) = 0.127 bits a parameter."""
    (linear,) = (one for one in read_shape(KNOWN["llama-2-7b"], "").linears if one.name == "gate_proj")
    packed, constants = packed_bytes(linear)
    assert packed * 8 == 4 * linear.weights
    assert constants * 8 / linear.weights == pytest.approx(0.127, abs=0.001)


def test_a_correction_covers_what_was_measured_with_it():
    """On the CPU that is resident memory with all libraries; on a GPU what torch hands out, without CUDA's context."""
    for device in ("cpu", "cuda"):
        plain, corrected = (
            memory_estimate(config_of(), inputs=EstimateInputs(device=device, correction=factor))
            for factor in (1.0, 1.2)
        )
        beside = plain.parts["context"] if device == "cuda" else 0
        assert corrected.expected - beside == pytest.approx(1.2 * (plain.expected - beside), rel=1e-6)


MODEL_PRESETS = sorted(
    path.stem for path in SHIPPED.glob("*.toml") if path.stem.rsplit("-", 1)[-1] in ("lora", "qlora")
)


@pytest.mark.parametrize("name", MODEL_PRESETS)
def test_what_a_presets_head_says_of_its_needs_is_what_the_plan_says(name):
    preset = find_preset(name)
    head = " ".join(preset.head.split())
    config = resolve([Layer(name, preset.settings())]).config
    estimate = memory_estimate(config)
    weights = estimate.parts["weights"] + estimate.parts.get("quantisation", 0)
    trained = sum(estimate.parts[part] for part in ("adapter", "gradients", "optimizer"))
    assert float(re.search(r"([\d.]+) GiB of weights", head)[1]) == pytest.approx(weights / GIB, abs=0.13)
    assert float(re.search(r"([\d.]+) GiB for an adapter", head)[1]) == pytest.approx(trained / GIB, abs=0.055)
    assert int(re.search(r"adapter of (\d+)M", head)[1]) == round(estimate.trainable / 1e6)
    claimed = float(re.search(r"about ([\d.]+) GiB in all", head)[1])
    assert claimed == pytest.approx(estimate.expected / GIB, abs=0.51)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_every_preset_can_be_estimated(path):
    config = resolve([Layer(path.stem, find_preset(path.stem).settings())]).config
    assert memory_estimate(config).expected > 0
    assert memory_estimate(config, inputs=EstimateInputs(device="cpu")).expected > 0


# -- what fits -------------------------------------------------------------------------------------------------------

CARD_24 = GpuSpec("a card of 24 GB", 24 * 2**30)


def test_a_large_card_takes_large_passes_and_a_small_one_recomputes():
    config = config_of(model__name="Qwen/Qwen2.5-7B-Instruct", data__max_length=1024)
    shape, known = find_shape(config.model), EstimateInputs(step_tokens=8192)
    small, large = (fit(config, GpuSpec("", size * 2**30), known, shape) for size in (24, 141))
    assert small.fits and small.estimate.activation_checkpointing and small.estimate.micro_tokens >= 1024
    assert large.fits and not large.estimate.activation_checkpointing and large.estimate.micro_tokens == 8192
    assert large.estimate.expected <= large.card.usable_bytes


def test_what_others_hold_on_a_card_is_not_ours_to_use():
    config = config_of(model__name="Qwen/Qwen2.5-7B-Instruct", data__max_length=1024)
    shape = find_shape(config.model)
    assert fit(config, GpuSpec("", 48 * 2**30), EstimateInputs(), shape).fits
    assert not fit(config, GpuSpec("", 48 * 2**30, free_bytes=12 * 2**30), EstimateInputs(), shape).fits


def test_changes_come_cheapest_first_and_end_where_it_fits():
    config = config_of(model__name="meta-llama/Meta-Llama-3-8B", train__activation_checkpointing=False)
    shape = find_shape(config.model)
    made = changes_that_fit(config, CARD_24, EstimateInputs(), shape)
    assert list(made[0].settings) == ["train.activation_checkpointing"] and made[-1].fits
    assert [change.fits for change in made[:-1]] == [False] * (len(made) - 1)
    sizes = [change.expected for change in made if not change.fits]
    assert sizes == sorted(sizes, reverse=True)
    full = config_of(model__name="Qwen/Qwen2.5-14B", method__kind="full")
    ladder = changes_that_fit(full, CARD_24, EstimateInputs(), find_shape(full.model))
    assert ladder[-1].fits and ladder[-1].settings == {"method.kind": "qlora"}
    assert changes_that_fit(config_of(), CARD_24, EstimateInputs(), find_shape(config_of().model)) == []
