"""From a conversation to tokens, and which of them the assistant wrote.

The chat template renders the whole conversation once; where the assistant's words stand in that text is found in one
of two ways, checked by the result:

1. `{% generation %}` marks in the template say so.
2. Otherwise each answer in turn is exchanged for another text and the rendering compared: what changed is the answer.
   This needs nothing of the template: it holds where a template moves the system prompt, drops the reasoning of
   earlier turns, or adds nothing after the last answer. An answer with tool calls is what rendering up to and
   including it adds to the prompt for it; where a template rewrites earlier turns, it is exchanged for a text as well.

Tokens are made from the text once, with offsets. A token is the assistant's if it starts inside its words, and so is
the end-of-turn token that follows, since the model must learn to stop. A template that ends an answer without one gets
the tokenizer's end-of-text token appended.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from engine.errors import DataError, InputError, ModelError
from engine.records import Example
from engine.worker.rendering import Rendering
from engine.worker.turn_ends import observe

PLAIN_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
Assistant:{% generation %} {{ message.content }}{{ eos_token }}{% endgeneration %}{{ '\\n' }}
{%- elif message.role == 'system' -%}
{{ message.content }}{{ '\\n\\n' }}
{%- else -%}
{{ 'User' if message.role == 'user' else message.role }}: {{ message.content }}{{ '\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}Assistant:{%- endif -%}"""
"""For base models, whose tokenizers have no chat template. Saved with the checkpoint like any other. The space before
an answer is the model's to write: most tokenizers make one token of a space and the word after it."""

_MARK = re.compile(r"\{%-?\s*generation\b")
_HEADER_LIMIT = 64
"""Characters that may stand between the generation prompt and the answer, such as an empty reasoning block, where the
prompt has to be searched for because the template rewrites earlier turns."""
_ENDING_TOKENS = 3
"""The end-of-turn token is looked for among so many tokens after the answer, the ones before it being white space:
Llama 2 writes a space between the answer and </s>."""


@dataclass(frozen=True)
class Encoded:
    ids: np.ndarray
    """int32, shape (tokens,)."""
    trained: np.ndarray
    """bool, shape (tokens,)."""


@dataclass(frozen=True)
class _Span:
    """Where in the rendered text one answer stands."""

    start: int
    end: int
    content: str
    """The answer as the data has it, without white space around it."""
    is_last: bool
    """Nothing but what closes the turn comes after it."""


class ChatTemplate:
    """One tokenizer with the chat template in force. Raises ModelError when the template itself is unusable."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str = "auto",
        ends: Iterable[int] = (),
        now: datetime | None = None,
    ) -> None:
        """`template`: a Jinja file, or auto. `ends`: tokens that the model's generation config stops at. `now`: what
        the template is told of the time."""
        if template != "auto":
            try:
                tokenizer.chat_template = Path(template).read_text("utf-8")
            except OSError as error:
                raise InputError(f"data.template {template}: {error.strerror}") from None
        elif not tokenizer.chat_template:
            tokenizer.chat_template = PLAIN_TEMPLATE
        if not tokenizer.is_fast:
            raise ModelError("this tokenizer has no fast version, which is needed to tell the answers' tokens")
        try:
            tokenizer.get_chat_template()
        except ValueError as error:
            raise ModelError(f"the tokenizer's chat template: {error}", "Give data.template a Jinja file.") from None
        self.tokenizer = tokenizer
        self._bos = _leading_tokens(tokenizer)
        self._rendering = Rendering(tokenizer, now or datetime.now())
        added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
        added |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        leading = {*tokenizer.convert_ids_to_tokens(self._bos), tokenizer.bos_token} - {tokenizer.eos_token, None}
        self._ends = observe(self._rendering, added, leading)
        stops = {added[text] for text in self._ends.stops} | {tokenizer.eos_token_id, *ends}
        self.stop_token_ids: tuple[int, ...] = tuple(sorted(stops - {None}))
        """Where an answer ends, sorted: the tokens that the template is seen to end turns with, the tokenizer's end
        token, and those of the model's generation config. One rule for training, evaluation, answers and exports."""
        # Some models add their end-of-turn token without calling it special; runs of white space are no such token.
        self._special = set(tokenizer.all_special_ids) | {
            i for i, token in tokenizer.added_tokens_decoder.items() if token.special or token.content.strip()
        }

    def encode_chats(self, examples: Sequence[Example], train_on: str = "assistant") -> list[Encoded | DataError]:
        """Tokens of each conversation, or why the template refuses it or hides its answers."""
        rendered: list[tuple[str, list[_Span]] | DataError] = []
        for example in examples:
            try:
                rendered.append(self._render_with_spans(example))
            except DataError as error:
                rendered.append(error)
        texts = [item[0] for item in rendered if not isinstance(item, DataError)]
        encodings: list[Encoding] = []
        if texts:
            encodings = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True).encodings
        following = iter(encodings)
        return [
            item if isinstance(item, DataError) else self._encode(next(following), *item, train_on) for item in rendered
        ]

    def _encode(self, encoding: Encoding, text: str, spans: list[_Span], train_on: str) -> Encoded:
        ids = encoding.ids
        trained, open_end = self._mark(ids, encoding.offsets, spans, text)
        if open_end:
            ids, trained = [*ids, self.tokenizer.eos_token_id], [*trained, True]
        if train_on == "all":
            trained = [True] * len(ids)
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
        if ids[: len(self._bos)] != self._bos:
            return [*self._bos, *ids], [*[False] * len(self._bos), *trained]
        return ids, trained

    def _render(self, messages: list[dict], example: Example, add_generation_prompt: bool = False) -> str:
        return self._rendered(messages, example, add_generation_prompt=add_generation_prompt)[0]

    def _rendered(self, messages: list[dict], example: Example, **options: bool) -> tuple[str, list[tuple[int, int]]]:
        """The text, and with `return_assistant_tokens_mask` where `{% generation %}` marks stand in it."""
        tools = list(example.tools) or None
        try:
            texts, marks = render_jinja_template(
                conversations=[messages],
                tools=tools,
                chat_template=self.tokenizer.get_chat_template(tools=tools),
                **{**self.tokenizer.special_tokens_map, **options},
            )
        except Exception as error:  # a template may raise anything, jinja2.TemplateError above all
            if any(message["content"] is None for message in messages):  # beside tool calls; some want a text there
                return self._rendered([m | {"content": m["content"] or ""} for m in messages], example, **options)
            raise DataError(f"the chat template refuses this conversation: {error}") from None
        return texts[0], marks[0] if marks else []

    def _render_with_spans(self, example: Example) -> tuple[str, list[_Span]]:
        messages = list(example.messages)
        answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        marked = bool(_MARK.search(self.tokenizer.get_chat_template(tools=list(example.tools) or None)))
        text, marks = self._rendered(messages, example, return_assistant_tokens_mask=marked)
        by_mark = dict(zip(answers, marks, strict=True)) if len(marks) == len(answers) else {}
        spans = []
        for number in answers:
            message = messages[number]
            if not message.get("weight", 1):
                continue
            content, calls = message["content"] or "", message.get("tool_calls") or ()
            if not content.strip() and not calls:
                raise DataError("the assistant's answer is empty")
            start, end = (
                by_mark.get(number)
                or (calls and self._find_turn(messages, number, example, text))
                or self._find_answer(messages, number, example, text)
            )
            if start >= end:
                raise DataError("the chat template leaves out the assistant's answer")
            if not all(call["function"]["name"] in text[start:end] for call in calls):
                raise DataError("the chat template leaves out the assistant's tool calls")
            spans.append(_Span(start, end, content.strip(), is_last=number == len(messages) - 1))
        return text, spans

    def _find_answer(self, messages: list[dict], number: int, example: Example, full: str) -> tuple[int, int]:
        message = messages[number]
        exchanged = {"role": "assistant", "content": _unlike(message["content"] or "")}
        if thought := message.get("reasoning_content"):
            exchanged["reasoning_content"] = _unlike(thought)
        changed = self._render([*messages[:number], exchanged, *messages[number + 1 :]], example)
        start = len(os.path.commonprefix((full, changed)))
        after = len(os.path.commonprefix((full[start:][::-1], changed[start:][::-1])))
        end = len(full) - after
        return (self._after_prompt(messages, number, example, full, start), end) if start < end else (start, start)

    def _after_prompt(self, messages: list[dict], number: int, example: Example, full: str, start: int) -> int:
        """The answer's start, moved back to the end of the generation prompt: the model must write what lies between,
        such as an empty reasoning block."""
        before = self._render(messages[:number], example)
        prompted = self._render(messages[:number], example, add_generation_prompt=True)
        header = prompted.removeprefix(before) if prompted.startswith(before) else ""
        if not header:
            return len(full[:start].rstrip(" "))
        if full.startswith(prompted) and len(prompted) <= start:
            return len(prompted)
        quoted = any(header in (message["content"] or "") for message in messages[:number])
        at = full.rfind(header, max(0, start - _HEADER_LIMIT - len(header)), start)
        return start if quoted or at < 0 else at + len(header)

    def _find_turn(self, messages: list[dict], number: int, example: Example, full: str) -> tuple[int, int] | None:
        """None when what the template writes for this turn depends on the turns after it."""
        before = self._render(messages[:number], example, add_generation_prompt=True)
        through = self._render(messages[: number + 1], example)
        if not full.startswith(through) or not through.startswith(before):
            return None
        return len(before), len(through.rstrip())

    def _mark(
        self, ids: list[int], offsets: list[tuple[int, int]], spans: list[_Span], text: str
    ) -> tuple[list[bool], bool]:
        """Which tokens start inside a span or end its turn; and whether the last span wants an end token appended."""
        starts = np.array([start for start, _ in offsets], dtype=np.int64)
        ends = np.array([end for _, end in offsets], dtype=np.int64)
        trained = np.zeros(len(ids), dtype=bool)
        open_end = False
        for span in spans:
            words = text[span.start : span.end]
            first = int(np.searchsorted(starts, span.start))
            # A space and the first word of the answer are often one token, which starts before the answer.
            if first and text[span.start : ends[first - 1]].strip() and text[starts[first - 1] : span.start].isspace():
                first -= 1
            after = int(np.searchsorted(starts, span.end))
            trained[first:after] = True
            beyond = words.partition(span.content)[2] if span.content and span.content in words else words
            last = after - 1
            while last > first and not text[slice(*offsets[last])].strip():
                last -= 1
            if beyond.strip() and last >= 0 and ids[last] in self._special:
                continue  # the span encloses the end of turn, as marks in a template may, and a line break after it
            ending = self._ending(ids, offsets, after, text)
            if ending is not None:
                trained[after : ending + 1] = True
            elif span.is_last and not self._special.intersection(ids[after:]):
                trained[after:] = True
                open_end = self.tokenizer.eos_token_id is not None
        return trained.tolist(), open_end

    def _ending(self, ids: list[int], offsets: list[tuple[int, int]], after: int, text: str) -> int | None:
        """The position of the special token that ends the turn, when only white space comes before it."""
        for position in range(after, min(after + _ENDING_TOKENS, len(ids))):
            if ids[position] in self._special:
                return position
            if text[slice(*offsets[position])].strip():
                break
        return None


def _unlike(text: str) -> str:
    """A text that differs from this one in its first and its last character."""
    stripped = text.strip()
    return ("B" if stripped[:1] == "A" else "A") + ("Z" if stripped[-1:] == "Y" else "Y")


def _leading_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer itself puts before a text: the beginning-of-text token, two of them for GLM-4, or nothing."""
    plain, special = (tokenizer("a", add_special_tokens=flag)["input_ids"] for flag in (False, True))
    for count in range(len(special) - len(plain) + 1):
        if special[count : count + len(plain)] == plain:
            return special[:count]
    return special[:1] if special[:1] == [tokenizer.bos_token_id] else []
