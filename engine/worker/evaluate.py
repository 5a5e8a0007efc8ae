"""Evaluation: the loss per supervised token of a whole set, scores of generated answers, and answers to prompts."""

import math

import numpy as np
import torch
from transformers import PreTrainedModel

from engine.config import RunConfig
from engine.journal import Journal
from engine.records import Example
from engine.worker.data import Prepared
from engine.worker.generate import answer_examples, exact_match, generate, stop_tokens
from engine.worker.loss import PackedLoss, PlainLoss
from engine.worker.memory import is_out_of_memory
from engine.worker.model import Precision
from engine.worker.packing import TokenSet, make_pack, plan_passes
from engine.worker.progress import Progress
from engine.worker.template import ChatTemplate


@torch.no_grad()
def evaluate(
    journal: Journal,
    loss_of: PackedLoss | PlainLoss,
    template: ChatTemplate,
    data: Prepared,
    config: RunConfig,
    progress: Progress,
    precision: Precision,
) -> float | None:
    """Loss, scores and answers at this step, into the journal. Returns the loss; None without validation data.

    Random numbers are drawn from a fork, so that evaluating more or less often changes nothing in training.
    """
    model = loss_of.model
    values: dict[str, float] = {}
    with torch.random.fork_rng():
        if len(data.val):
            loss = mean_loss(loss_of, data.val, progress.micro_tokens, precision)
            values = {"eval/loss": loss, "eval/perplexity": math.exp(min(loss, 700))}
        if "exact_match" in config.eval.metrics and data.val_examples:
            chosen = data.val_examples[: config.eval.max_examples or None]
            answered = answer_examples(model, template, chosen, config.eval.max_new_tokens, precision)
            values["eval/exact_match"] = exact_match(answered)
            for prompt, reference, text in answered:
                journal.write("sample", step=progress.step, prompt=last_words(prompt), reference=reference, text=text)
        if config.eval.prompts:
            answer_prompts(journal, model, template, config, progress.step, precision)
    if values:
        journal.write("eval", step=progress.step, values=values)
    return values.get("eval/loss")


@torch.no_grad()
def mean_loss(loss_of: PackedLoss | PlainLoss, tokens: TokenSet, micro_tokens: int, precision: Precision) -> float:
    """Loss per supervised token over a whole set; out of memory, it goes on with fewer tokens per pass."""
    while True:
        try:
            total = 0.0
            for group in plan_passes(np.arange(len(tokens)), tokens.lengths, micro_tokens):
                with precision.context():
                    total += float(loss_of(make_pack(tokens, group).to(precision.device)))
            return total / int(tokens.trained.sum())
        except Exception as error:
            if not is_out_of_memory(error) or micro_tokens <= int(tokens.lengths.max()) // 2:
                raise
        micro_tokens //= 2


def last_words(example: Example) -> str:
    return str(example.messages[-1].get("content") or "") if example.messages else ""


def answer_prompts(
    journal: Journal,
    model: PreTrainedModel,
    template: ChatTemplate,
    config: RunConfig,
    step: int,
    precision: Precision,
) -> None:
    system = [{"role": "system", "content": config.data.system}] if config.data.system else []
    examples = [Example(messages=(*system, {"role": "user", "content": prompt})) for prompt in config.eval.prompts]
    written = generate(
        model,
        [template.encode_prompt(example) for example in examples],
        stop_tokens(model, template.tokenizer),
        config.eval.max_new_tokens,
        precision,
    )
    for prompt, text in zip(
        config.eval.prompts, template.tokenizer.batch_decode(written, skip_special_tokens=True), strict=True
    ):
        journal.write("sample", step=step, prompt=prompt, text=text.strip())
