"""From a conversation to tokens, and which of them the model must learn to write.

What a turn is trained on is what the model must write, from the prompt that the template gives at that turn until
generation stops. `spans` finds it in the text that the template writes; here it is made into tokens, once, and every
trained turn is held against inference:

* the tokens before it are those of its generation prompt, as `encode_prompt` makes them;
* fed one by one to the stop rule (`stop_token_ids`), generation ends with it, or where only closing tokens follow;
* it holds the words of its own message.

Where a template itself makes training and inference differ, the turn has notes that say so. A template that ends an
answer without a token gets the tokenizer's end-of-text token appended.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from engine.errors import DataError, InputError, ModelError
from engine.records import Example
from engine.worker.rendering import Rendering
from engine.worker.spans import PROMPT_DIFFERS, TURN_DIFFERS, Span, Spans
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

NO_STOP, EARLY_STOP = "no-stop", "early-stop"
DIFFERING = frozenset({PROMPT_DIFFERS, TURN_DIFFERS, NO_STOP, EARLY_STOP})
"""Notes of a turn that the model is not asked for at inference as it is trained."""

_MOST_PROMPT_ENDS = 4096
_ANCHOR = re.compile(r"\n[^\n]*\S[^\n]*$")


@dataclass(frozen=True)
class Turn:
    """One trained turn, as a range of tokens."""

    message: int
    """Its place in the example's messages."""
    start: int
    end: int
    notes: tuple[str, ...] = ()
    """What is said of it, of NOTES."""


@dataclass(frozen=True)
class Encoded:
    ids: np.ndarray
    """int32, shape (tokens,)."""
    trained: np.ndarray
    """bool, shape (tokens,)."""
    turns: tuple[Turn, ...] = ()
    """Of a conversation, in order; those left out by `train_on` have nothing trained in their range."""


class ChatTemplate:
    """One tokenizer with the chat template in force. Raises ModelError when the template itself is unusable."""

    stop_token_ids: tuple[int, ...]
    """Where an answer ends, sorted: the tokens that the template is seen to end turns with, the tokenizer's end token,
    and those of the model's generation config. One rule for training, evaluation, answers and exports."""

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
            self._rendering = Rendering(tokenizer, now or datetime.now())
        except ValueError as error:
            raise ModelError(f"the tokenizer's chat template: {error}", "Give data.template a Jinja file.") from None
        self.tokenizer = tokenizer
        self._bos = _leading_tokens(tokenizer)
        # Some models add their end-of-turn token without calling it special; runs of white space are no such token.
        added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
        added |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        leading = {*tokenizer.convert_ids_to_tokens(self._bos), tokenizer.bos_token} - {tokenizer.eos_token, None}
        seen = observe(self._rendering, added, leading)
        stops = {added[text] for text in seen.stops} | {tokenizer.eos_token_id, *ends}
        self.stop_token_ids = tuple(sorted(stops - {None}))
        self._stops = frozenset(self.stop_token_ids)
        self._added, self._added_ids = tuple(sorted(added, key=len, reverse=True)), frozenset(added.values())
        self._after_call = added.get(seen.after_call, tokenizer.eos_token_id)
        known = {text for text, i in added.items() if i in self._stops} if seen.stops else set(added)
        self._spans = Spans(self._rendering, seen, known, self._last_token)
        self._prompt_ends: dict[str, list[int]] = {}

    def _last_token(self, text: str) -> str:
        return next((token for token in self._added if text.endswith(token)), "") if text.endswith(self._added) else ""

    def encode_chats(self, examples: Sequence[Example], train_on: str = "assistant") -> list[Encoded | DataError]:
        """Tokens of each conversation, or why the template refuses it or hides its answers.

        `train_on`: assistant; matching, the answers without one of the notes in DIFFERING; all tokens.
        """
        rendered: list[tuple[str, list[Span]] | DataError] = []
        for example in examples:
            try:
                rendered.append(self._spans.find(example))
            except DataError as error:
                rendered.append(error)
        texts = [item[0] for item in rendered if not isinstance(item, DataError)]
        encodings = iter(self._encodings(texts))
        return [
            item if isinstance(item, DataError) else self._encode(next(encodings), example, *item, train_on)
            for example, item in zip(examples, rendered, strict=True)
        ]

    def _encodings(self, texts: list[str]) -> list[Encoding]:
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True).encodings

    def _encode(self, encoding: Encoding, example: Example, text: str, spans: list[Span], train_on: str) -> Encoded:
        ids, offsets = encoding.ids, encoding.offsets
        starts = np.fromiter((start for start, _ in offsets), np.int64, len(offsets))
        turns, cut = [], False
        for span in spans:
            first, end = np.searchsorted(starts, (span.start, span.end)).tolist()
            notes = span.notes
            if PROMPT_DIFFERS not in notes and (
                cut or not self._follows_prompt(ids, offsets, first, text[: span.start])
            ):
                # A token of prompt and answer together is one that the model cannot be asked for.
                apart = None if cut else self._cut(ids, text, span.start)
                if apart is None:
                    notes = (PROMPT_DIFFERS, *notes)
                else:
                    cut, (ids, offsets) = True, apart
                    starts = np.fromiter((start for start, _ in offsets), np.int64, len(offsets))
                    first, end = np.searchsorted(starts, (span.start, span.end)).tolist()
            if span.is_open and end == len(ids):
                calls = example.messages[span.message].get("tool_calls")
                closing = self._after_call if calls else self.tokenizer.eos_token_id
                if closing is not None:
                    ids, offsets, end = [*ids, closing], [*offsets, (len(text), len(text))], end + 1
            if stopped := self._stop_note(ids[first:end]):
                notes = (*notes, stopped)
            turns.append(Turn(span.message, first, end, notes))
        trained = [train_on == "all"] * len(ids)
        for turn in turns:
            if train_on != "matching" or DIFFERING.isdisjoint(turn.notes):
                trained[turn.start : turn.end] = [True] * (turn.end - turn.start)
        with_bos, trained = self._with_bos(ids, trained)
        shift = len(with_bos) - len(ids)
        turns = [replace(turn, start=turn.start + shift, end=turn.end + shift) for turn in turns] if shift else turns
        return Encoded(np.array(with_bos, dtype=np.int32), np.array(trained, dtype=bool), tuple(turns))

    def _follows_prompt(self, ids: list[int], offsets: list[tuple[int, int]], first: int, prompt: str) -> bool:
        """Whether the tokens before an answer are those of the prompt by itself.

        What follows a text can change the tokens of its end only, and nothing before an added token or a line end with
        words behind it. So the end is looked at; where it differs, the whole prompt.
        """
        anchor = first - 1
        lowest = max(0, first - 24)
        while anchor >= lowest and ids[anchor] not in self._added_ids:
            anchor -= 1
        if anchor >= lowest:
            begin = offsets[anchor][0]
        else:
            line = _ANCHOR.search(prompt, max(0, len(prompt) - 80))
            begin = line.start() if line else 0
        tail = prompt[begin:]
        known = self._prompt_ends.get(tail)
        if known is None:
            known = self.tokenizer(tail, add_special_tokens=False)["input_ids"]
            if len(self._prompt_ends) < _MOST_PROMPT_ENDS:
                self._prompt_ends[tail] = known
        if len(known) <= first and ids[first - len(known) : first] == known:
            return True
        return self.tokenizer(prompt, add_special_tokens=False)["input_ids"] == ids[:first]

    def _cut(self, ids: list[int], text: str, at: int) -> tuple[list[int], list[tuple[int, int]]] | None:
        """Tokens and offsets of the text as two; None where the tokenizer makes another text of it so."""
        before, after = self._encodings([text[:at], text[at:]])
        joined = [*before.ids, *after.ids]
        if self.tokenizer.decode(joined) != self.tokenizer.decode(ids):
            return None
        return joined, [*before.offsets, *((start + at, end + at) for start, end in after.offsets)]

    def _stop_note(self, ids: list[int]) -> str:
        """What inference would make of these tokens: whether it ends with them, and only there."""
        if self._stops.isdisjoint(ids):
            return NO_STOP
        if ids[-1] in self._stops and self._stops.isdisjoint(ids[:-1]):
            return ""
        first = next(place for place, token in enumerate(ids) if token in self._stops)
        behind = [token for token in ids[first + 1 :] if token not in self._added_ids]
        return EARLY_STOP if behind and self.tokenizer.decode(behind).strip() else ""

    def encode_text(self, text: str) -> Encoded:
        """Tokens of a plain document, all trained, ended by the end-of-text token."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if self.tokenizer.eos_token_id is not None:
            ids = [*ids, self.tokenizer.eos_token_id]
        ids, trained = self._with_bos(ids, [True] * len(ids))
        return Encoded(np.array(ids, dtype=np.int32), np.array(trained, dtype=bool))

    def encode_prompt(self, example: Example) -> list[int]:
        """Tokens of a conversation up to the point where the assistant is to answer. Raises DataError."""
        text = self._rendering.text(example.messages, example.tools, prompt=True)
        return self._with_bos(self.tokenizer(text, add_special_tokens=False)["input_ids"], [])[0]

    def _with_bos(self, ids: list[int], trained: list[bool]) -> tuple[list[int], list[bool]]:
        """The beginning-of-text token, once: many templates write it themselves, others leave it to the tokenizer."""
        if ids[: len(self._bos)] != self._bos:
            return [*self._bos, *ids], [*[False] * len(self._bos), *trained]
        return ids, trained


def _leading_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer itself puts before a text: the beginning-of-text token, two of them for GLM-4, or nothing."""
    plain, special = (tokenizer("a", add_special_tokens=flag)["input_ids"] for flag in (False, True))
    for count in range(len(special) - len(plain) + 1):
        if special[count : count + len(plain)] == plain:
            return special[:count]
    return special[:1] if special[:1] == [tokenizer.bos_token_id] else []
