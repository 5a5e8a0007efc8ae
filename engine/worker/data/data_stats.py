"""Statistics of tokenised data for the plan: the sizes of passes for its memory estimate, repeats etc. for advice."""

import hashlib
import re
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from engine.models.model_facts import find_facts
from engine.settings.schema import RunConfig
from engine.worker.data.chat_template import ChatTemplate
from engine.worker.data.packing import TokenSet
from engine.worker.data.token_text import token_text
from engine.worker.data.tokenize import Prepared

_SAMPLED = 300
_ASKS_FOR_WHAT_CHANGES = re.compile(
    r"\b(today|tonight|yesterday|tomorrow|currently|right now|latest|up[- ]to[- ]date|this (week|month|year|quarter)|"
    r"as of (today|now|20\d\d)|(stock|share|exchange|interest|current) (price|rate)s?|weather (in|for|forecast)|"
    r"opening hours|who is the (current )?(president|ceo|prime minister))\b|"
    r"今天|今日|目前|现在|最新|当前|本周|本月|今年|股价|汇率|天气",
    re.IGNORECASE,
)


def data_stats(dataset: Prepared, config: RunConfig, template: ChatTemplate, batch_size: int) -> dict[str, Any]:
    """JSON-ready numbers; see engine.plan.advice.DatasetStats and engine.plan.memory.EstimateInputs for what they
    mean."""
    train = dataset.train
    lengths = train.lengths
    stats = {
        "median_tokens": float(np.median(lengths)),
        "median_answer_tokens": float(np.median(train.label_tokens)),
        "longest": int(lengths.max()),
        "step_tokens": train.largest_step(batch_size),
        "supervised": round(float(train.loss_mask.mean()), 4),
        "dated": 0.0,
        "beyond": beyond_positions(dataset, config),
        "with_system": dataset.with_system,
        **_repeats(train),
    }
    if config.method.objective == "sft":
        stats["dated"] = _dated(train, template)
    else:
        stats |= {"contradictions": 0, "same_answer": 0.0}
    return stats


def beyond_positions(dataset: Prepared, config: RunConfig) -> int:
    """How many examples are longer than the model has positions; 0 where this machine does not have its config."""
    limit = find_facts(config.model).positions
    return 0 if limit is None else sum(int((tokens.lengths > limit).sum()) for tokens in (dataset.train, dataset.val))


def _repeats(tokens: TokenSet) -> dict[str, Any]:
    """Exact repeats, token for token; prompts with several answers; the share of the most frequent answer."""
    seen: set[bytes] = set()
    answers: dict[bytes, Counter[bytes]] = defaultdict(Counter)
    repeats = 0
    for index in range(len(tokens)):
        ids, loss_mask = tokens.example(index)
        whole = _digest(ids)
        repeats += whole in seen
        seen.add(whole)
        # The prompt of a conversation of several turns is all up to its first answer.
        first = int(loss_mask.argmax())
        answers[_digest(ids[:first])][_digest(ids[first:])] += 1
    answer_counts: Counter[bytes] = Counter()
    for counts in answers.values():
        answer_counts.update(counts)
    return {
        "duplicates": repeats,
        "contradictions": sum(sum(counts.values()) for counts in answers.values() if len(counts) > 1),
        "same_answer": round(max(answer_counts.values(), default=0) / max(1, len(tokens)), 4),
    }


def _dated(tokens: TokenSet, template: ChatTemplate) -> float:
    """Share of the examples whose prompt asks about something that changes with time, of some hundred evenly drawn."""
    chosen = np.unique(np.linspace(0, len(tokens) - 1, min(_SAMPLED, len(tokens))).astype(int))
    dated = 0
    for index in chosen:
        ids, loss_mask = tokens.example(index)
        dated += bool(_ASKS_FOR_WHAT_CHANGES.search(token_text(template.tokenizer, ids[~loss_mask].tolist())))
    return round(dated / len(chosen), 4)


def _digest(ids: np.ndarray) -> bytes:
    return hashlib.blake2b(ids.tobytes(), digest_size=12).digest()
