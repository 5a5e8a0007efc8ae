"""LoRA layers and norms in fewer kernels compute what PEFT's and transformers' own do, forward and backward."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import nn
from transformers import GemmaConfig, GemmaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from engine.worker.data.packing import Pack
from engine.worker.model import attention
from engine.worker.model.fast_layers import fuse_lora, fuse_norms, use_fast_layers
from engine.worker.model.loss import PackedLoss

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attn_implementation": "finetop",
}


def adapted(dtype: torch.dtype = torch.float32, **lora: Any) -> Any:
    """A PEFT model with an adapter that has learned something."""
    attention.register()
    torch.manual_seed(0)
    base = Qwen2ForCausalLM(Qwen2Config(**SHAPE)).to(dtype).requires_grad_(False)
    model = get_peft_model(
        base,
        LoraConfig(task_type=TaskType.CAUSAL_LM, **{"r": 4, "lora_alpha": 12, "target_modules": "all-linear"} | lora),
    )
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn_like(weight, dtype=torch.float32) * 0.2
        elif "norm" in name:
            weight.data.uniform_(0.5, 1.5)
    return model


def pack() -> Pack:
    ids = torch.arange(24)[None] * 7 % 64
    positions = torch.cat([torch.arange(10), torch.arange(14)])[None]
    at = torch.arange(11, 23)
    return Pack(ids, positions, (10, 14), at, ids[0, at + 1])


def losses_and_gradients(
    model: Any, autocast: torch.dtype | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        losses = PackedLoss(model.get_base_model()).token_losses(pack())
        losses.sum().backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    return losses.detach(), trained


def close(one: torch.Tensor, other: torch.Tensor, share: float) -> bool:
    return float((one - other).norm()) <= share * float(other.norm())


@pytest.mark.parametrize("rslora", [False, True])
def test_in_float32_the_losses_and_all_gradients_are_pefts(rslora: bool) -> None:
    model = adapted(use_rslora=rslora)
    expected, expected_gradients = losses_and_gradients(model)
    assert fuse_lora(model) == 2 * 7
    assert fuse_norms(model) == 2 * 2 + 1
    losses, gradients = losses_and_gradients(model)
    assert torch.allclose(losses, expected, atol=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    assert all(g.dtype == torch.float32 for g in gradients.values())
    for name, gradient in gradients.items():
        assert close(gradient, expected_gradients[name], 1e-4), name


def test_in_bfloat16_they_are_as_close_to_float32s_as_pefts_are() -> None:
    model = adapted()
    expected, expected_gradients = losses_and_gradients(model)
    model = adapted(torch.bfloat16)
    peft_losses, peft_gradients = losses_and_gradients(model, torch.bfloat16)
    fuse_lora(model)
    fuse_norms(model)
    losses, gradients = losses_and_gradients(model, torch.bfloat16)
    assert float((losses - expected).norm()) <= 1.5 * float((peft_losses - expected).norm())
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        theirs = float((peft_gradients[name] - expected_gradients[name]).norm())
        assert float((gradient - expected_gradients[name]).norm()) <= 1.5 * theirs + 1e-4, name


def test_a_layer_without_a_dense_weight_adds_the_product_to_what_its_base_gives() -> None:
    class Linear4bit(nn.Linear):
        """By its name a quantized layer."""

    model = adapted()
    expected, expected_gradients = losses_and_gradients(model)
    for module in model.modules():
        if type(module) is nn.Linear and not module.weight.requires_grad:
            module.__class__ = Linear4bit
    assert fuse_lora(model) == 2 * 7
    losses, gradients = losses_and_gradients(model)
    assert torch.allclose(losses, expected, atol=1e-5)
    for name, gradient in gradients.items():
        assert close(gradient, expected_gradients[name], 1e-4), name


@pytest.mark.parametrize("options", [{"lora_dropout": 0.5}, {"use_dora": True}])
def test_dropout_and_dora_are_left_to_peft(options: dict[str, Any]) -> None:
    model = adapted(**options)
    torch.manual_seed(1)
    expected, _ = losses_and_gradients(model.train())
    fuse_lora(model)
    torch.manual_seed(1)
    losses, _ = losses_and_gradients(model)
    assert torch.equal(losses, expected)


def test_an_adapter_that_is_switched_off_or_merged_is_not_added() -> None:
    model = adapted()
    with model.disable_adapter(), torch.no_grad():
        bare = PackedLoss(model.get_base_model()).token_losses(pack())
    adapted_losses, _ = losses_and_gradients(model)
    fuse_lora(model)
    with model.disable_adapter(), torch.no_grad():
        assert torch.equal(PackedLoss(model.get_base_model()).token_losses(pack()), bare)
    model.merge_adapter()
    with torch.no_grad():
        merged = PackedLoss(model.get_base_model()).token_losses(pack())
    assert torch.allclose(merged, adapted_losses, atol=1e-4)
    assert not torch.allclose(merged, bare, atol=1e-2)
    model.unmerge_adapter()
    with torch.no_grad():
        assert torch.allclose(PackedLoss(model.get_base_model()).token_losses(pack()), adapted_losses, atol=1e-4)


def test_a_second_adapter_is_the_one_at_work_once_it_is_set() -> None:
    model = adapted()
    model.add_adapter("other", LoraConfig(task_type=TaskType.CAUSAL_LM, r=2, target_modules="all-linear"))
    model.set_adapter("other")
    expected, _ = losses_and_gradients(model)
    fuse_lora(model)
    losses, gradients = losses_and_gradients(model)
    assert torch.allclose(losses, expected, atol=1e-5)
    assert any("lora_B.other" in name for name in gradients)


def test_gemmas_norm_keeps_its_own_formula() -> None:
    shape = {key: value for key, value in SHAPE.items() if key != "attn_implementation"}
    model = GemmaForCausalLM(GemmaConfig(**shape, head_dim=8))
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.weight.data.uniform_(-0.5, 0.5)
            module.variance_epsilon = module.eps  # as most others name it
    assert fuse_norms(model) == 0


def test_on_a_cpu_the_layers_stay_as_they_are() -> None:
    model = adapted()
    before = [module.forward for module in model.modules() if "lora" in type(module).__module__]
    use_fast_layers(model)
    assert [module.forward for module in model.modules() if "lora" in type(module).__module__] == before
