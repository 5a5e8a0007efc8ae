"""The faster products on the CPU are the same products."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.worker.model import linear
from engine.worker.model.linear import use_onednn
from engine.worker.model.loss import _CrossEntropy

SHAPES = [(1, 700, 300, 500), (3, 111, 256, 768), (1, 40, 64, 40_000), (2, 5, 8, 8)]
"""(batch, rows, in, out): around the bounds on either side of which another library is used."""


def close(fast: torch.Tensor, exact: torch.Tensor) -> bool:
    """Within float32 rounding of sums of a few hundred numbers."""
    return bool((fast.double() - exact).abs().max() <= 5e-6 * exact.abs().max())


@pytest.mark.parametrize(("batch", "rows", "width", "out"), SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_float64(batch, rows, width, out, bias, monkeypatch) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(width, out, bias=bias)
    exact = nn.Linear(width, out, bias=bias).double()
    exact.load_state_dict({name: value.double() for name, value in layer.state_dict().items()})
    model = nn.Sequential(layer)
    if not use_onednn(model):
        pytest.skip("no CPU with AVX-512, or torch without oneDNN")
    x = torch.randn(batch, rows, width, requires_grad=True)
    x64 = x.detach().double().requires_grad_()
    to = torch.randn(batch, rows, out)
    made, right = model(x), exact(x64)
    assert made.shape == right.shape and close(made, right)
    made.backward(to)
    right.backward(to.double())
    assert close(x.grad, x64.grad)
    for mine, theirs in zip(layer.parameters(), exact.parameters(), strict=True):
        assert close(mine.grad, theirs.grad) and mine.grad.is_contiguous()


def test_frozen_weights_get_no_gradient_and_trained_ones_under_checkpointing_do() -> None:
    from torch.utils.checkpoint import checkpoint

    layers = nn.Sequential(nn.Linear(256, 512), nn.Linear(512, 256))
    if not use_onednn(layers):
        pytest.skip("no CPU with AVX-512, or torch without oneDNN")
    layers[0].requires_grad_(False)
    x = torch.randn(600, 256)
    layers(x).sum().backward()
    straight = layers[1].weight.grad.clone()
    layers[1].weight.grad = None
    checkpoint(layers, x.requires_grad_(), use_reentrant=False).sum().backward()
    assert layers[0].weight.grad is None
    assert torch.equal(layers[1].weight.grad, straight)


def test_other_types_and_small_products_take_the_usual_path(monkeypatch) -> None:
    layer = nn.Linear(8, 8)
    use_onednn(nn.Sequential(layer))
    monkeypatch.setattr(linear, "_product", None)  # would raise
    x = torch.randn(4, 8)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    large = nn.Linear(512, 512).bfloat16()
    use_onednn(nn.Sequential(large))
    assert large(torch.randn(600, 512, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        wide = nn.Linear(512, 512)
        use_onednn(nn.Sequential(wide))
        assert wide(torch.randn(600, 512)).dtype == torch.bfloat16


@pytest.mark.parametrize("spread", [1.0, 30.0, 1e4])
def test_cross_entropy_in_place_is_cross_entropy(spread: float) -> None:
    torch.manual_seed(0)
    base = torch.randn(50, 300) * spread
    targets, to = torch.randint(300, (50,)), torch.rand(50)
    ours, theirs = base.clone().requires_grad_(), base.clone().requires_grad_()
    losses = _CrossEntropy.apply(ours * 1, targets)
    reference = F.cross_entropy(theirs * 1, targets, reduction="none")
    assert torch.equal(losses, reference)
    losses.backward(to)
    reference.backward(to)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-7)


def test_cross_entropy_of_what_is_no_number_is_no_number() -> None:
    logits = torch.tensor([[0.0, float("nan")], [0.0, 1.0], [float("inf"), 0.0]])
    losses = _CrossEntropy.apply(logits, torch.tensor([0, 1, 0]))
    assert losses.isnan().tolist() == [True, False, True]
