"""Thoughts in data and answers: what `data.thinking` does to rows, and how much a model thinks.

A model that reasons is taught not to when its rows have no thoughts: Qwen3's template writes an empty one before such
an answer, and the model learns to write just that.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from engine.base.messages import msg
from engine.formats.examples import Example
from engine.metrics.reasoning import TAGS, Parts, has_tags, left_open, parts, share_that_think
from engine.worker.data.chat_template import ChatTemplate, Encoded
from engine.worker.data.token_text import token_text

Tags = Sequence[tuple[str, str]]
"""What may open and close a thought: those known, and those the template shows (`ChatTemplate.thought_tags`)."""
_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Under which a message holds its thought, apart from its content."""
_BEGINNING = 24
"""Tokens of a turn among which an empty thought is looked for."""
_FELL = 0.5
"""Of the share at the start. Below it, that answers no longer think is reported."""
_TOO_FEW = 0.1
"""A smaller share of answers that think at the start is no habit that could be lost."""


def without_thoughts(example: Example, tags: Tags) -> Example:
    """The row as it is trained with data.thinking=drop: no thought in any message, nor beside it."""
    return replace(example, messages=tuple(_without_thought(message, tags) for message in example.messages))


def _without_thought(message: dict[str, Any], tags: Tags) -> dict[str, Any]:
    if message["role"] != "assistant":
        return message
    kept = {key: field for key, field in message.items() if key not in _KEYS}
    if isinstance(kept.get("content"), str):
        kept["content"] = parts(kept["content"], tags).answer
    return kept


def has_thought(example: Example, tags: Tags) -> bool:
    """Whether an answer of this row comes with a thought."""
    return any(
        message["role"] == "assistant"
        and (
            any((message.get(key) or "").strip() for key in _KEYS) or parts(message.get("content") or "", tags).thought
        )
        for message in example.messages
    )


class Thoughts:
    """Finds thoughts in encoded conversations; with data.thinking=no_loss_on_empty takes the loss off empty ones."""

    def __init__(self, template: ChatTemplate, thinking: str) -> None:
        self._tokenizer, self._tags = template.tokenizer, template.thought_tags
        self.trains_empty = thinking != "no_loss_on_empty"
        self._known: list[list[int]] = []
        self._beginnings: dict[int, bool] = {}
        self._in_template = template.writes_thoughts

    def look(self, example: Example, encoded: Encoded) -> tuple[Encoded, bool, bool]:
        """The tokens with the loss where it belongs, whether the row has a thought, and whether it has an empty one."""
        thought = has_thought(example, self._tags)
        if not self._in_template and not any(has_tags(m.get("content") or "", self._tags) for m in example.messages):
            return encoded, thought, False
        loss_mask, has_empty = encoded.loss_mask, False
        for turn in encoded.turns:
            if empty := self._empty_thought(encoded.ids[turn.start : turn.end]):
                has_empty = True
                if not self.trains_empty:
                    loss_mask = np.array(loss_mask)
                    loss_mask[turn.start : turn.start + empty] = False
        return replace(encoded, loss_mask=loss_mask), thought, has_empty

    def _empty_thought(self, ids: np.ndarray) -> int:
        """How many of a turn's first tokens write an empty thought and the white space after it."""
        beginning = ids[:_BEGINNING].tolist()
        for written in self._known:  # a template writes the same one again and again
            if beginning[: len(written)] == written:
                return len(written)
        if not beginning or not self._may_begin(beginning[0]):
            return 0
        length = _empty_length(token_text(self._tokenizer, beginning), self._tags)
        counts = range(len(beginning), 0, -1) if length else ()
        count = next((n for n in counts if len(token_text(self._tokenizer, beginning[:n])) <= length), 0)
        if count and len(token_text(self._tokenizer, beginning[:count])) == length:
            self._known.append(beginning[:count])
        return count

    def _may_begin(self, token: int) -> bool:
        """Whether a tag may begin with this token; decoding every turn would cost a fifth of making its tokens."""
        if token not in self._beginnings:
            text = token_text(self._tokenizer, [token]).strip()
            self._beginnings[token] = not text or any(tag[:1] == text[0] for pair in self._tags for tag in pair)
        return self._beginnings[token]


def _empty_length(text: str, tags: Tags) -> int:
    """Characters of an empty thought that the text begins with, or whose opening tag the prompt has."""
    for opening, closing in tags:
        remaining = text.lstrip().removeprefix(opening).lstrip()
        if remaining.startswith(closing):
            return len(text) - len(remaining.removeprefix(closing).lstrip())
    return 0


def decode(template: ChatTemplate, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[str]:
    """The texts of answers, without what the template has the model write around one, and without special tokens but
    for those around a thought. A thought that the prompt opened gets its opening tag; a channel of the template's own
    for thoughts is written as the first of the known tags, which every reader of answers knows."""
    tokenizer, tags, openings = template.tokenizer, template.thought_tags, template.openings
    kept = [*openings, *(tag for pair in tags for tag in pair)]
    special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    left_out = {i for i, content in special.items() if not any(content in text for text in kept)}
    texts = tokenizer.batch_decode(
        [[i for i in answer if i not in left_out] for answer in answers], skip_special_tokens=False
    )
    control = set(special.values()) - {tag for pair in TAGS for tag in pair}
    clear = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))) or r"(?!)")
    readable = []
    for prompt, text in zip(prompts, texts, strict=True):
        opened = left_open(token_text(tokenizer, prompt[-_BEGINNING:]), tags)
        text = text.strip().removesuffix(template.ending).rstrip()
        readable.append(_readable(f"{opened}\n{text}" if opened else text, tags, openings, clear))
    return readable


def _readable(text: str, tags: Tags, openings: Sequence[str], clear: re.Pattern[str]) -> str:
    written = parts(text, tags)
    opening = next((opening for opening in openings if written.answer.startswith(opening)), "")
    answer = clear.sub("", written.answer.removeprefix(opening)).strip()
    if not written.marked:
        return answer
    head = text.removesuffix(written.answer) if written.answer else text
    return clear.sub("", in_known_tags(head, tags)) + answer


def in_known_tags(text: str, tags: Tags) -> str:
    """An answer whose thought is in a channel of the template's own, with the first of the known tags around it."""
    written = parts(text, tags)
    if not written.marked or parts(text).marked:
        return text
    opening, closing = TAGS[0]
    end = f"\n{closing}\n\n{written.answer}" if written.closed else ""
    return f"{opening}\n{written.thought}{end}"


def thinking_scores(template: ChatTemplate, texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """How much these answers think, by score; empty where neither the template nor a text has thoughts."""
    tokenizer = template.tokenizer
    if not texts or not (template.writes_thoughts or any(has_tags(text) for text in (*texts, *references))):
        return {}
    written: list[Parts] = [parts(text) for text in texts]
    thoughts = [answer.thought for answer in written if answer.thought]
    lengths = [len(ids) for ids in tokenizer(thoughts, add_special_tokens=False)["input_ids"]] if thoughts else [0]
    return {
        "eval/thinking_share": share_that_think(written),
        "eval/thinking_tokens": sum(lengths) / len(lengths),
        "eval/thinking_unclosed": sum(not answer.closed for answer in written) / len(written),
    }


def thinks_less(start: float | None, share: float) -> str:
    """A warning where a model has lost the habit of thinking it began with, else an empty string."""
    if start is None or start < _TOO_FEW or share > _FELL * start:
        return ""
    return msg(
        "{share:.0%} of the answers think, {start:.0%} did at the start: the model is unlearning it. Rows without "
        "thoughts teach that; data.thinking=no_loss_on_empty takes the loss off empty ones, "
        "rows with thoughts keep it.",
        share=share,
        start=start,
    )
