"""From a conversation to tokens, and which of them the assistant wrote.

The chat template renders the whole conversation once; where the assistant's words stand in that text is found in one
of three ways, each checked by its result:

1. `{% generation %}` marks in the template say so.
2. Otherwise each answer in turn is exchanged for another text and the rendering compared: what changed is the answer.
   This needs nothing of the template: it holds where a template moves the system prompt, drops the reasoning of
   earlier turns, or adds nothing after the last answer.
3. An answer with tool calls is what rendering up to and including it adds to rendering up to the prompt for it.

Tokens are made from the text once, with offsets. A token is the assistant's if it starts inside its words, and so is
the end-of-turn token that follows, since the model must learn to stop. A template that ends an answer without one gets
the tokenizer's end-of-text token appended.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from engine.errors import DataError, InputError, ModelError
from engine.records import Example

PLAIN_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
Assistant: {% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}{{ '\\n' }}
{%- elif message.role == 'system' -%}
{{ message.content }}{{ '\\n\\n' }}
{%- else -%}
{{ 'User' if message.role == 'user' else message.role }}: {{ message.content }}{{ '\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}Assistant: {% endif -%}"""
"""For base models, whose tokenizers have no chat template. Saved with the checkpoint like any other."""

_HEADER_LIMIT = 64
"""Characters that may stand between the generation prompt and the answer, such as an empty reasoning block."""


@dataclass(frozen=True)
class Encoded:
    ids: np.ndarray
    """int32, shape (tokens,)."""
    trained: np.ndarray
    """bool, shape (tokens,)."""


class ChatTemplate:
    """One tokenizer with the chat template in force. Raises ModelError when the template itself is unusable."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str = "auto") -> None:
        if template != "auto":
            try:
                tokenizer.chat_template = Path(template).read_text("utf-8")
            except OSError as error:
                raise InputError(f"data.template {template}: {error.strerror}") from None
        elif not tokenizer.chat_template:
            tokenizer.chat_template = PLAIN_TEMPLATE
        if not tokenizer.is_fast:
            raise ModelError("this tokenizer has no fast version, which is needed to tell the answers' tokens")
        self.tokenizer = tokenizer
        self._marked = "{% generation" in tokenizer.get_chat_template().replace("{%-", "{%")
        plain, special = (tokenizer("a", add_special_tokens=flag)["input_ids"] for flag in (False, True))
        added = len(special) - len(plain)
        self._bos = special[:1] if added and special[:1] != plain[:1] else []
        self._special = set(tokenizer.all_special_ids) | {
            i for i, token in tokenizer.added_tokens_decoder.items() if token.special
        }

    def encode_chats(self, examples: Sequence[Example], train_on: str = "assistant") -> list[Encoded | DataError]:
        """Tokens of each conversation, or why the template refuses it or hides its answers."""
        rendered: list[tuple[str, list[tuple[int, int]]] | DataError] = []
        for example in examples:
            try:
                rendered.append(self._render_marked(example) if self._marked else self._render_compared(example))
            except DataError as error:
                rendered.append(error)
        texts = [item[0] for item in rendered if not isinstance(item, DataError)]
        encodings = iter(self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True).encodings)
        return [
            item if isinstance(item, DataError) else self._encode(next(encodings), *item, train_on) for item in rendered
        ]

    def _encode(self, encoding: Encoding, text: str, spans: list[tuple[int, int]], train_on: str) -> Encoded:
        ids = encoding.ids
        if train_on == "all":
            trained = [True] * len(ids)
        else:
            trained, open_end = self._mark(ids, encoding.offsets, spans, text)
            if open_end:
                ids, trained = [*ids, self.tokenizer.eos_token_id], [*trained, True]
        ids, trained = self._with_bos(ids, trained)
        return Encoded(np.array(ids, dtype=np.int32), np.array(trained, dtype=bool))

    def encode_text(self, text: str) -> Encoded:
        """Tokens of a plain document, all trained, ended by the end-of-text token."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if self.tokenizer.eos_token_id is not None:
            ids = [*ids, self.tokenizer.eos_token_id]
        ids, trained = self._with_bos(ids, [True] * len(ids))
        return Encoded(np.array(ids, dtype=np.int32), np.array(trained, dtype=bool))

    def encode_prompt(self, example: Example) -> list[int]:
        """Tokens of a conversation up to the point where the assistant is to answer."""
        text = self._render(list(example.messages), example, add_generation_prompt=True)
        return self._with_bos(self.tokenizer(text, add_special_tokens=False)["input_ids"], [])[0]

    def _with_bos(self, ids: list[int], trained: list[bool]) -> tuple[list[int], list[bool]]:
        """The beginning-of-text token, once: many templates write it themselves, others leave it to the tokenizer."""
        if self._bos and ids[:1] != self._bos:
            return [*self._bos, *ids], [False, *trained]
        return ids, trained

    def _render(self, messages: list[dict], example: Example, add_generation_prompt: bool = False) -> str:
        try:
            return self.tokenizer.apply_chat_template(
                messages,
                tools=list(example.tools) or None,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
            )
        except Exception as error:  # a template may raise anything, jinja2.TemplateError above all
            raise DataError(f"the chat template refuses this conversation: {error}") from None

    def _render_marked(self, example: Example) -> tuple[str, list[tuple[int, int]]]:
        try:
            texts, spans = render_jinja_template(
                conversations=[list(example.messages)],
                tools=list(example.tools) or None,
                chat_template=self.tokenizer.get_chat_template(tools=example.tools or None),
                return_assistant_tokens_mask=True,
                **self.tokenizer.special_tokens_map,
            )
        except Exception as error:
            raise DataError(f"the chat template refuses this conversation: {error}") from None
        answers = [message for message in example.messages if message["role"] == "assistant"]
        if len(spans[0]) != len(answers):
            return self._render_compared(example)
        wanted = zip(spans[0], answers, strict=True)
        return texts[0], [span for span, answer in wanted if answer.get("weight", 1)]

    def _render_compared(self, example: Example) -> tuple[str, list[tuple[int, int]]]:
        messages = list(example.messages)
        full = self._render(messages, example)
        spans = []
        for number, message in enumerate(messages):
            if message["role"] == "assistant" and message.get("weight", 1):
                find = self._span_of_turn if message.get("tool_calls") else self._span_of_answer
                spans.append(find(messages, number, example, full))
        return full, spans

    def _span_of_answer(self, messages: list[dict], number: int, example: Example, full: str) -> tuple[int, int]:
        content = messages[number]["content"]
        first, last = content.strip()[:1], content.strip()[-1:]
        other = ("A" if first != "A" else "B") + ("Y" if last != "Y" else "Z")
        changed = self._render(
            [*messages[:number], messages[number] | {"content": other}, *messages[number + 1 :]], example
        )
        start = len(os.path.commonprefix((full, changed)))
        after = len(os.path.commonprefix((full[start:][::-1], changed[start:][::-1])))
        end = len(full) - after
        if start >= end:
            raise DataError("the chat template leaves out the assistant's answer")
        return self._from_header(messages, number, example, full, start), end

    def _from_header(self, messages: list[dict], number: int, example: Example, full: str, start: int) -> int:
        """The answer's start, moved back to the end of the generation prompt: the model must write what lies between,
        such as an empty reasoning block."""
        before = self._render(messages[:number], example)
        prompted = self._render(messages[:number], example, add_generation_prompt=True)
        header = prompted.removeprefix(before) if prompted.startswith(before) else ""
        if header:
            at = full.rfind(header, max(0, start - _HEADER_LIMIT - len(header)), start)
            if at >= 0:
                return at + len(header)
        return start

    def _span_of_turn(self, messages: list[dict], number: int, example: Example, full: str) -> tuple[int, int]:
        before = self._render(messages[:number], example, add_generation_prompt=True)
        through = self._render(messages[: number + 1], example)
        if not (full.startswith(before) and full.startswith(through)) or len(through) <= len(before):
            raise DataError(
                "the chat template rewrites earlier turns, so the tool calls' tokens cannot be told",
                "Give data.template a template with {% generation %} marks.",
            )
        return len(before), len(before) + len(through[len(before) :].rstrip())

    def _mark(
        self, ids: list[int], offsets: list[tuple[int, int]], spans: list[tuple[int, int]], text: str
    ) -> tuple[list[bool], bool]:
        """Which tokens start inside a span or end its turn; and whether the last span wants an end token appended."""
        starts = np.array([start for start, _ in offsets], dtype=np.int64)
        empty = np.array([start == end for start, end in offsets], dtype=bool)
        trained = np.zeros(len(ids), dtype=bool)
        open_end = False
        for start, end in spans:
            trained |= (starts >= start) & (starts < end) & ~empty
            follower = int(np.searchsorted(starts, end))
            gap = follower
            while gap < len(ids) and not text[offsets[gap][0] : offsets[gap][1]].strip() and gap - follower < 2:
                if ids[gap] in self._special:
                    break
                gap += 1  # Llama 2 writes a space between the answer and </s>
            if follower and ids[follower - 1] in self._special and trained[follower - 1]:
                continue  # the span itself ends with the end of turn
            if gap < len(ids) and ids[gap] in self._special:
                trained[follower : gap + 1] = True
            elif gap >= len(ids):
                open_end = self.tokenizer.eos_token_id is not None
        return trained.tolist(), open_end
