"""Greedy answers in batches with a KV cache; and the exact-match score over validation examples."""

import unicodedata
from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from engine.records import Example
from engine.worker.model import Precision
from engine.worker.template import ChatTemplate

_BATCH_TOKENS = 16384
"""Tokens, prompts and answers, that one batch's cache may hold."""


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Every token that ends an answer: the tokenizer's, and those of the generation config."""
    configured = model.generation_config.eos_token_id
    found = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    return found - {None}


@torch.no_grad()
def generate(
    model: PreTrainedModel, prompts: Sequence[list[int]], stop: set[int], max_new_tokens: int, precision: Precision
) -> list[list[int]]:
    """The most likely continuation of each prompt, without its stop token, in the order of the prompts."""
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    while order:
        longest_of_batch = [len(prompts[i]) + max_new_tokens for i in order]
        size = 1
        while size < len(order) and (size + 1) * longest_of_batch[size] <= _BATCH_TOKENS:
            size += 1
        batch, order = order[:size], order[size:]
        for index, answer in zip(
            batch, _one_batch(model, [prompts[i] for i in batch], stop, max_new_tokens, precision), strict=True
        ):
            answers[index] = answer
    return answers


def _one_batch(
    model: PreTrainedModel, prompts: list[list[int]], stop: set[int], max_new_tokens: int, precision: Precision
) -> list[list[int]]:
    device, width = precision.device, max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=device)  # padded on the left
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    cache = DynamicCache(config=model.config)
    stops = torch.tensor(sorted(stop), device=device)
    written: list[torch.Tensor] = []
    open_rows = torch.ones(len(prompts), dtype=torch.bool, device=device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    while True:
        with precision.context():
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        ids = output.logits[:, -1].float().argmax(-1, keepdim=True)
        open_rows = open_rows & ~torch.isin(ids[:, 0], stops)
        written.append(torch.where(open_rows, ids[:, 0], -1))
        if len(written) == max_new_tokens or not bool(open_rows.any()):
            break
        mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
        positions = positions[:, -1:] + 1
    rows = torch.stack(written, dim=1).tolist()
    return [[token for token in row if token >= 0] for row in rows]


def split_answer(example: Example) -> tuple[Example, str]:
    """The conversation before its last answer, and that answer."""
    last = max(i for i, message in enumerate(example.messages) if message["role"] == "assistant")
    prompt = Example(messages=example.messages[:last], tools=example.tools, file=example.file, line=example.line)
    return prompt, example.messages[last]["content"] or ""


def normalise(text: str) -> str:
    """How answers are compared: Unicode NFKC, case folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def answer_examples(
    model: PreTrainedModel,
    template: ChatTemplate,
    examples: Sequence[Example],
    max_new_tokens: int,
    precision: Precision,
) -> list[tuple[Example, str, str]]:
    """For each example: its prompt, the reference answer, and what the model writes."""
    parts = [split_answer(example) for example in examples]
    prompts = [template.encode_prompt(prompt) for prompt, _ in parts]
    stop = stop_tokens(model, template.tokenizer)
    written = generate(model, prompts, stop, max_new_tokens, precision)
    texts = template.tokenizer.batch_decode(written, skip_special_tokens=True)
    return [(prompt, reference, text.strip()) for (prompt, reference), text in zip(parts, texts, strict=True)]


def exact_match(answered: Sequence[tuple[Example, str, str]]) -> float:
    """Share of the answers that equal the reference after `normalise`."""
    return sum(normalise(reference) == normalise(text) for _, reference, text in answered) / max(1, len(answered))
