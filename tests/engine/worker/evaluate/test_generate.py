"""Answers are those of transformers' own greedy generate, however the prompts are put together in batches."""

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTJConfig, Lfm2Config, MambaConfig

from engine.worker.evaluate import generate as generate_module
from engine.worker.evaluate.generate import Sampling, generate
from engine.worker.model import attention
from engine.worker.model.load import Precision
from tests.engine.families import FAMILIES, build

_PRECISION = Precision(torch.device("cpu"), None, torch.float32)
_NEW = 20


def _model(family: str, folder: Path) -> torch.nn.Module:
    attention.register()
    build(family, folder)
    return _outspoken(AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention.NAME).eval())


def _outspoken(model: torch.nn.Module) -> torch.nn.Module:
    """Fresh weights are so small that each token follows itself; these say something."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:
                parameter.mul_(8)
    return model


def _prompts(count: int, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(3, 600) for _ in range(draw.randrange(1, 45))] for _ in range(count)]


def _one_by_one(model: torch.nn.Module, prompts: list[list[int]], stop: set[int]) -> list[list[int]]:
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=_NEW,
            do_sample=False,
            eos_token_id=sorted(stop) or None,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        answers.append(out[:-1] if out and out[-1] in stop else out)
    return answers


def _stop_that_ends_some(model: torch.nn.Module, prompts: list[list[int]]) -> set[int]:
    """Tokens a random model writes often, so that answers end at different lengths."""
    free = _one_by_one(model, prompts, set())
    return {answer[4 + 3 * (number % 5)] for number, answer in enumerate(free[::2])} | {2}


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_equal_those_of_transformers(family, tmp_path, monkeypatch):
    model, prompts = _model(family, tmp_path / family), _prompts(14)
    stop = _stop_that_ends_some(model, prompts)
    expected = _one_by_one(model, prompts, stop)
    assert len({len(answer) for answer in expected}) > 2
    # Few rows and hardly any slack: rows leave, others join, and the buffers move back more than once.
    monkeypatch.setitem(generate_module._MOST_ROWS, "cpu", 4)
    monkeypatch.setattr("engine.worker.evaluate.kv_cache._SLACK_COLUMNS", 3)
    told: list[int] = []
    assert generate(model, prompts, stop, Sampling(_NEW), _PRECISION, True, told.append) == expected
    assert told == sorted(told) and told[-1] == len(prompts)
    assert generate(model, prompts, stop, Sampling(_NEW), _PRECISION, False) == expected


_OTHERS = {
    "mamba": lambda shape: MambaConfig(**shape),
    "lfm2": lambda shape: Lfm2Config(
        **shape,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
    ),
    "gptj": lambda shape: GPTJConfig(vocab_size=600, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, bos_token_id=None),
}


@pytest.mark.parametrize("kind", _OTHERS)
def test_models_without_packed_attention_answer_as_in_transformers(kind):
    torch.manual_seed(0)
    shape = {"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "bos_token_id": None, "pad_token_id": 0}
    model = _outspoken(AutoModelForCausalLM.from_config(_OTHERS[kind](shape)).eval())
    prompts = [prompt[:length] for prompt, length in zip(_prompts(6, seed=3), (9, 4, 9, 4, 1, 9), strict=True)]
    stop = {answer[6] for answer in _one_by_one(model, prompts, set())[:2]}
    expected = _one_by_one(model, prompts, stop)
    assert len({tuple(answer) for answer in expected}) > 2
    assert generate(model, prompts, stop, Sampling(_NEW), _PRECISION, False) == expected


def test_out_of_memory_goes_on_with_fewer_rows(tmp_path, monkeypatch):
    model, prompts = _model("qwen2.5", tmp_path / "m"), _prompts(12, seed=1)
    expected = generate(model, prompts, {2}, Sampling(_NEW), _PRECISION, True)
    forward, widest = type(model).forward, []

    def scarce(self, input_ids, **options):
        if input_ids.shape[0] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        widest.append(input_ids.shape[0])
        return forward(self, input_ids, **options)

    monkeypatch.setattr(type(model), "forward", scarce)
    assert generate(model, prompts, {2}, Sampling(_NEW), _PRECISION, True) == expected
    assert max(widest) == 3

    def never(self, input_ids, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(model), "forward", never)
    with pytest.raises(torch.OutOfMemoryError):
        generate(model, prompts, {2}, Sampling(_NEW), _PRECISION, True)


def test_drawn_answers_depend_on_the_seed_and_not_on_the_batch(tmp_path, monkeypatch):
    model, prompts = _model("llama3", tmp_path / "m"), _prompts(9, seed=2)
    drawn = generate(model, prompts, {2}, Sampling(_NEW, 1.0, seed=7), _PRECISION, True)
    monkeypatch.setitem(generate_module._MOST_ROWS, "cpu", 2)
    assert generate(model, prompts, {2}, Sampling(_NEW, 1.0, seed=7), _PRECISION, True) == drawn
    assert generate(model, prompts, {2}, Sampling(_NEW, 1.0, seed=8), _PRECISION, True) != drawn


def test_draws_follow_the_models_probabilities(tmp_path):
    model = _model("qwen2.5", tmp_path / "m")
    prompt = [5, 6, 7]
    with torch.no_grad():
        probabilities = torch.softmax(model(torch.tensor([prompt])).logits[0, -1] * 2, -1)  # temperature 1/2
    drawn = generate(model, [prompt] * 2000, set(), Sampling(1, 0.5, seed=1), _PRECISION, True)
    counts = torch.bincount(torch.tensor([answer[0] for answer in drawn]), minlength=600)
    bins = probabilities.argsort().chunk(20)
    expected = torch.stack([probabilities[one].sum() * 2000 for one in bins])
    observed = torch.stack([counts[one].sum() for one in bins])
    chi_squared = float(((observed - expected) ** 2 / expected).sum())
    assert chi_squared < 43.8  # the 99.9% point with 19 degrees of freedom
