"""One loss, however a step is cut: packed or alone, in one pass or four, logits at once or in chunks."""

import contextlib
import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Cohere2Config,
    CohereConfig,
    GptOssConfig,
    GraniteConfig,
    JambaConfig,
    Lfm2Config,
    MambaConfig,
    PhimoeConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen3NextConfig,
)

from engine.base.errors import ModelError
from engine.settings.resolve import Layer, resolve
from engine.worker.data.packing import TokenSet, make_pack, plan_passes
from engine.worker.evaluate.measure import example_losses
from engine.worker.model import attention, loss
from engine.worker.model.load import Precision
from engine.worker.model.loss import PackedLoss, UnpackedLoss, choose_loss
from engine.worker.train.data_parallel import Ranks
from engine.worker.train.gradients import forward_backward
from tests.engine.families import FAMILIES

CPU = Precision(torch.device("cpu"), None, torch.float32)
LENGTHS = (45, 31, 31, 20, 9, 2)
"""Some longer than the sliding windows of 24 in `families`, two of one length, and the shortest there can be."""

_TINY = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}

SCALED = {
    "granite": lambda: GraniteConfig(**_TINY, logits_scaling=4.0, attention_multiplier=0.2, residual_multiplier=0.5),
    "cohere": lambda: CohereConfig(**_TINY, logit_scale=0.3),
    "cohere2": lambda: Cohere2Config(**_TINY, logit_scale=0.3, sliding_window=24),
    "qwen2-moe": lambda: Qwen2MoeConfig(
        **_TINY,
        **_EXPERTS,
        shared_expert_intermediate_size=16,
        use_sliding_window=True,
        sliding_window=24,
        max_window_layers=0,
    ),
}
MODELS = FAMILIES | SCALED

LEAKY = {
    "qwen3-next": lambda: Qwen3NextConfig(
        **(_TINY | {"num_hidden_layers": 4}),
        **_EXPERTS,
        head_dim=8,
        shared_expert_intermediate_size=16,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    ),
    "mamba": lambda: MambaConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2, state_size=8, pad_token_id=0),
    "lfm2": lambda: Lfm2Config(**_TINY, layer_types=["conv", "full_attention"]),
    "jamba": lambda: JambaConfig(**_TINY, num_experts=2, attn_layer_period=2, attn_layer_offset=1),
}


def build(make: Callable[[], PretrainedConfig], implementation: str = attention.NAME, spread: float = 0.3):
    """A random model whose attention matters: at the usual spread of 0.02 a tiny model is nearly deaf to context."""
    attention.register()
    config = make()
    config.initializer_range = spread
    if getattr(config, "final_logit_softcapping", None):
        config.final_logit_softcapping, config.attn_logit_softcapping = 3.0, 5.0
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=implementation).eval()


@pytest.fixture(scope="module")
def built():
    """The model of each family, made once. Tests that change one take a copy."""
    made: dict[str, PreTrainedModel] = {}

    def get(name: str) -> PreTrainedModel:
        if name not in made:
            made[name] = build(MODELS[name])
        return made[name]

    return get


def examples(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> TokenSet:
    rng = np.random.default_rng(seed)
    return TokenSet.join([(rng.integers(3, 100, n), np.arange(n) >= min(n // 3, n - 1)) for n in lengths])


def everything(tokens: TokenSet) -> np.ndarray:
    return np.arange(len(tokens))


def eager(model: nn.Module) -> PreTrainedModel:
    """A copy that knows nothing of finetop's attention."""
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("eager")
    return plain


def alone(plain: PreTrainedModel, tokens: TokenSet) -> list[Tensor]:
    """The losses of each example by the model's own forward pass, nothing of finetop's in it."""
    losses = []
    for start, end in zip(tokens.offsets, tokens.offsets[1:], strict=False):
        ids = torch.from_numpy(tokens.ids[start:end]).long()
        trained = torch.from_numpy(tokens.loss_mask[start:end])
        logits = plain(input_ids=ids[None], use_cache=False).logits[0, :-1]
        losses.append(F.cross_entropy(logits, ids[1:], reduction="none")[trained[1:]])
    return losses


def by_example(tokens: TokenSet, losses: Tensor, order: np.ndarray) -> dict[int, Tensor]:
    return dict(zip(order.tolist(), losses.split(tokens.label_tokens[order].tolist()), strict=True))


# --- packed is as alone -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_packed_examples_have_the_losses_they_have_alone(name: str, built) -> None:
    model, tokens = built(name), examples()
    packed = PackedLoss(model).token_losses(make_pack(tokens, everything(tokens)))
    own = torch.cat(alone(eager(model), tokens))
    torch.testing.assert_close(packed, own, rtol=1e-4, atol=1e-4)
    assert own.std() > 0.1  # context matters, so that a wrong mask would show


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_changing_one_example_changes_no_other(name: str, built) -> None:
    model, tokens = built(name), examples()
    changed = TokenSet(tokens.ids.copy(), tokens.loss_mask, tokens.offsets)
    a, b = tokens.offsets[1:3]
    changed.ids[a:b] = examples(seed=1).ids[a:b]
    before, after = (
        by_example(tokens, PackedLoss(model).token_losses(make_pack(t, everything(tokens))), everything(tokens))
        for t in (tokens, changed)
    )
    assert not torch.equal(before.pop(1), after.pop(1))
    for number, losses in before.items():
        # Experts see more or fewer tokens of one pack, which rounds otherwise.
        torch.testing.assert_close(
            after[number], losses, rtol=1e-5 if "moe" in name else 0, atol=1e-5 if "moe" in name else 0
        )


@pytest.mark.parametrize("name", ["qwen2.5", "glm4-0414", "gemma3", "phi2"])
@torch.no_grad()
def test_positions_start_anew_in_every_example(name: str, built) -> None:
    model, tokens = built(name), examples()
    there, back = everything(tokens), everything(tokens)[::-1].copy()
    pack = make_pack(tokens, there)
    assert pack.position_ids[0].tolist() == [place for length in LENGTHS for place in range(length)]
    forwards = by_example(tokens, PackedLoss(model).token_losses(pack), there)
    backwards = by_example(tokens, PackedLoss(model).token_losses(make_pack(tokens, back)), back)
    for number in forwards:
        torch.testing.assert_close(forwards[number], backwards[number], rtol=1e-5, atol=1e-5)


def test_nothing_is_to_predict_an_examples_first_token() -> None:
    tokens = TokenSet.join([(np.arange(n) + 3, np.ones(n, dtype=bool)) for n in LENGTHS])
    pack = make_pack(tokens, everything(tokens))
    assert len(pack.targets) == sum(LENGTHS) - len(LENGTHS) == tokens.loss_mask.sum()
    lasts = np.cumsum(LENGTHS) - 1
    assert not set(pack.label_positions.tolist()) & set(lasts.tolist())
    assert torch.equal(pack.input_ids[0, pack.label_positions + 1], pack.targets)


@pytest.mark.parametrize("name", ["qwen2.5", "llama3"])
def test_under_autocast_attention_is_given_the_narrow_type(name: str, built, monkeypatch) -> None:
    """The kernel for variable lengths takes no float32, which rotary embeddings make of queries and keys."""
    types = set()
    monkeypatch.setattr(attention, "_varlen_works", lambda query: types.add(query.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        PackedLoss(built(name)).token_losses(make_pack(examples(), everything(examples())))
    assert types == {torch.bfloat16}


@torch.no_grad()
def test_the_plain_path_gives_the_same_losses(built) -> None:
    model, tokens = built("qwen3"), examples()
    pack = make_pack(tokens, everything(tokens))
    torch.testing.assert_close(UnpackedLoss(model).token_losses(pack), PackedLoss(model).token_losses(pack))


# --- a step is one step, however it is cut ----------------------------------------------------------------------------


def reference(model: nn.Module, tokens: TokenSet) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one optimizer step in float64, by the model's own forward pass."""
    plain = eager(model).double()
    plain.zero_grad()
    value = torch.cat(alone(plain, tokens)).sum() / int(tokens.label_tokens.sum())
    value.backward()
    return value.item(), {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}


def step(loss_fn: PackedLoss | UnpackedLoss, tokens: TokenSet, micro_tokens: int) -> tuple[float, dict[str, Tensor]]:
    config = resolve([Layer("test", {"optim.grad_clip": 0})]).config
    parameters = [p for p in loss_fn.model.parameters() if p.requires_grad]
    loss_fn.model.zero_grad()
    value, _ = forward_backward(loss_fn, tokens, everything(tokens), micro_tokens, parameters, config, CPU, Ranks())
    return value, {name: p.grad for name, p in loss_fn.model.named_parameters() if p.grad is not None}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    scale = torch.stack([g.double().norm() for g in expected.values()]).norm()
    for name, gradient in expected.items():
        assert (found[name].double() - gradient.double()).norm() <= tolerance * scale, name


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"qwen2-moe"}))  # torch's grouped products know no float64
def test_loss_and_gradients_are_the_same_in_one_two_or_four_passes(name: str, built) -> None:
    model, tokens = copy.deepcopy(built(name)), examples((40, 40, 40, 40, 10, 10, 10, 10))
    expected, gradients = reference(model, tokens)
    for micro_tokens, passes in ((200, 1), (100, 2), (50, 4)):
        assert len(plan_passes(everything(tokens), tokens.lengths, micro_tokens)) == passes
        value, found = step(PackedLoss(model), tokens, micro_tokens)
        assert value == pytest.approx(expected, rel=1e-6)
        assert_same_gradients(found, gradients, 1e-5)


def test_the_plain_path_has_the_same_gradients(built) -> None:
    model, tokens = copy.deepcopy(built("qwen2.5")), examples()
    expected, gradients = reference(model, tokens)
    value, found = step(UnpackedLoss(model), tokens, 200)
    assert value == pytest.approx(expected, rel=1e-6)
    assert_same_gradients(found, gradients, 1e-5)


@pytest.mark.parametrize("name", ["qwen2.5", "gemma2", "cohere", "llama3"])
def test_logits_in_chunks_change_nothing(name: str, built, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = copy.deepcopy(built(name)), examples()
    value, whole = step(PackedLoss(model), tokens, 200)
    whole = {name: gradient.clone() for name, gradient in whole.items()}
    vocabulary = model.config.vocab_size
    for positions in (7, 1):
        monkeypatch.setattr(loss, "LOGITS_BUDGET_BYTES", 4 * vocabulary * positions)
        chunked, found = step(PackedLoss(model), tokens, 200)
        assert chunked == pytest.approx(value, rel=1e-6)
        assert_same_gradients(found, whole, 1e-6)


@pytest.mark.parametrize("name", ["qwen2.5", "gemma3", "glm4-9b", "phi3"])
def test_activation_checkpointing_changes_nothing(name: str, built) -> None:
    model, tokens = copy.deepcopy(built(name)).train(), examples()
    value, kept = step(PackedLoss(model), tokens, 60)
    kept = {name: gradient.clone() for name, gradient in kept.items()}
    model.gradient_checkpointing_enable({"use_reentrant": False})
    again, found = step(PackedLoss(model), tokens, 60)
    assert again == value
    assert_same_gradients(found, kept, 1e-7)


def test_the_validation_loss_of_each_example_is_its_own_and_knows_nothing_of_passes(built) -> None:
    model, tokens = built("qwen2.5"), examples()
    with torch.no_grad():
        expected = [float(losses.sum()) for losses in alone(eager(model), tokens)]
    for micro_tokens in (1000, 64, 45, 8):
        found = example_losses(PackedLoss(model), tokens, micro_tokens, CPU)
        assert found.tolist() == pytest.approx(expected, rel=1e-5)


# --- adapters ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
@pytest.mark.parametrize("name", ["llama3", "qwen2.5", "gemma2"])
def test_an_adapter_on_the_output_layer_is_used(name: str, built) -> None:
    """Two of these tie the output layer to the embeddings."""
    tokens = examples()
    adapted = get_peft_model(
        copy.deepcopy(built(name)),
        LoraConfig(r=4, target_modules=["q_proj", "lm_head"], init_lora_weights=False),
    ).eval()
    inner = adapted.get_base_model()
    pack = make_pack(tokens, everything(tokens))
    with torch.no_grad():
        packed = PackedLoss(inner).token_losses(pack)
        torch.testing.assert_close(packed, torch.cat(alone(eager(inner), tokens)), rtol=1e-4, atol=1e-4)
        with adapted.disable_adapter():
            assert not torch.allclose(packed, PackedLoss(inner).token_losses(pack), atol=1e-2)
    _, gradients = reference(inner, tokens)
    _, found = step(PackedLoss(inner), tokens, 60)
    assert any("lm_head.lora_A" in name for name in found)
    assert_same_gradients(found, gradients, 1e-5)


# --- which path -------------------------------------------------------------------------------------------------------


def choose(model: PreTrainedModel, tokens: TokenSet, bf16: bool = False, wanted: str = "auto"):
    context = torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()
    with context:
        return choose_loss(model, make_pack(tokens, everything(tokens)), wanted, 2e-2 if bf16 else 1e-4)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_every_family_takes_the_packed_path(name: str, bf16: bool, built) -> None:
    model = copy.deepcopy(built(name))
    path, reason = choose(model, examples(), bf16)
    assert (type(path), reason) == (PackedLoss, "")
    assert model.config._attn_implementation == attention.NAME
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", LEAKY)
def test_a_model_whose_layers_leak_across_a_pack_runs_unpacked_with_the_reason(name: str, bf16: bool) -> None:
    """At the usual spread of random weights, where a leak changes the loss by less than bfloat16 rounds."""
    model, tokens = build(LEAKY[name], spread=0.02), examples()
    path, reason = choose(model, tokens, bf16)
    assert isinstance(path, UnpackedLoss)
    assert "mix examples" in reason
    with torch.no_grad():
        losses = path.token_losses(make_pack(tokens, everything(tokens)))
        torch.testing.assert_close(losses, torch.cat(alone(eager(model), tokens)), rtol=1e-5, atol=1e-5)


class Leaky(nn.Module):
    """A layer that adds a thousandth of the token before, whosever it is."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Tensor, *args: object, **kwargs: object) -> Tensor:
        return self.layer(hidden + 1e-3 * F.pad(hidden, (0, 0, 1, 0))[:, :-1], *args, **kwargs)


@pytest.mark.parametrize("lengths", [(30, 20, 5), (200,), (2,), (3, 300)])
def test_the_smallest_leak_is_found_whatever_the_examples(lengths: tuple[int, ...], built) -> None:
    model = copy.deepcopy(built("llama3"))
    assert isinstance(choose(model, examples(lengths), bf16=True)[0], PackedLoss)
    model.model.layers[0].mlp = Leaky(model.model.layers[0].mlp)
    path, reason = choose(model, examples(lengths), bf16=True)
    assert isinstance(path, UnpackedLoss) and "mix examples" in reason


def test_the_plain_path_is_taken_where_asked(built) -> None:
    path, reason = choose(copy.deepcopy(built("qwen2.5")), examples(), wanted="plain")
    assert isinstance(path, UnpackedLoss) and reason == "model.attention is plain"


@pytest.mark.parametrize(
    "make",
    [
        lambda: GptOssConfig(**_TINY, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=24),
        lambda: BloomConfig(vocab_size=100, hidden_size=32, n_layer=2, n_head=4),
    ],
    ids=["attention-sinks", "alibi"],
)
def test_attention_that_finetops_own_cannot_do_is_left_to_the_model(make: Callable[[], PretrainedConfig]) -> None:
    model, tokens = build(make), examples()
    expected = torch.cat(alone(eager(model), tokens)).detach()
    path, reason = choose(model, tokens)
    assert isinstance(path, UnpackedLoss) and reason
    with torch.no_grad():
        losses = path.token_losses(make_pack(tokens, everything(tokens)))
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)


def test_a_window_only_the_mask_knows_is_never_silently_dropped() -> None:
    """Its window is longer than what the choice of the path tries; the first longer example must not slip through."""
    model = build(lambda: PhimoeConfig(**_TINY, num_local_experts=4, sliding_window=200))
    path, _ = choose(model, examples())
    assert isinstance(path, PackedLoss)
    longer = examples((300, 20))
    with pytest.raises(ModelError, match="limits its attention") as caught:
        path(make_pack(longer, everything(longer)))
    assert "model.attention=plain" in caught.value.hint
