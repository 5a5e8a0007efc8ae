"""From a conversation to tokens, and which of them the model must learn to write.

A turn is trained on what the model must write, from the prompt that the template gives at that turn until generation
stops. `answer_spans` finds it in the text that the template writes; here the text is made into tokens, once, and every
trained turn is compared with inference:

* the tokens before it are those of its generation prompt, as `encode_prompt` makes them;
* fed one by one to the stop rule (`stop_token_ids`), generation ends with it, or where only closing tokens follow;
* it holds the words of its own message.

Where a template itself makes training and inference differ, the turn has notes that say so. A template that ends an
answer without a token gets the tokenizer's end-of-text token appended.
"""

import dataclasses
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from engine.base.errors import DataError, InputError, ModelError
from engine.base.messages import msg
from engine.formats.examples import Example
from engine.formats.turn_notes import DIFFERING, EARLY_STOP, NO_STOP, PROMPT_DIFFERS
from engine.metrics.reasoning import TAGS, has_tags
from engine.runs.journal import began
from engine.settings.schema import DataConfig
from engine.worker.data.answer_spans import Span, Spans
from engine.worker.data.rendering import Rendering
from engine.worker.data.thought_channel import learn
from engine.worker.data.token_text import token_text
from engine.worker.data.turn_ends import observe

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

_MOST_PROMPT_ENDS = 4096
_ANCHOR = re.compile(r"(?<=\n)\S[^\n]*$")


class Turn(NamedTuple):
    """One trained turn, as a range of tokens."""

    message: int
    """Its index in the example's messages."""
    start: int
    end: int
    notes: tuple[str, ...] = ()
    """Codes of `engine.formats.turn_notes`."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation or document as tokens."""

    ids: np.ndarray
    """int32, shape (tokens,)."""
    loss_mask: np.ndarray
    """bool, shape (tokens,): the loss is taken on this token."""
    turns: tuple[Turn, ...] = ()
    """Of a conversation, in order; those left out by `train_on` have nothing trained in their range."""


class ChatTemplate:
    """One tokenizer with the chat template in force. Raises ModelError when the template itself is unusable."""

    stop_token_ids: tuple[int, ...]
    """Where an answer ends, sorted: the tokens that the template is observed to end turns with, the tokenizer's end
    token, and those of the model's generation config. One rule for training, evaluation, answers and exports."""
    thought_tags: tuple[tuple[str, str], ...]
    """What may open and close a thought: what the template puts there, then those known."""
    writes_thoughts: bool
    """The template knows of thoughts."""
    openings: tuple[str, ...]
    """What it has the model write before a plain answer, the longest first, such as the name of a channel; not an
    empty thought."""
    ending: str
    """What it has the model write behind one, without special tokens."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str = "auto",
        ends: Iterable[int] = (),
        now: datetime | None = None,
    ) -> None:
        """`template`: a Jinja file, or auto. `ends`: tokens that the model's generation config stops at. `now`: the
        time that the template may write."""
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
            raise ModelError(
                msg("the tokenizer's chat template: {error}", error=error), "Give data.template a Jinja file."
            ) from None
        self.tokenizer = tokenizer
        self._bos = _leading_tokens(tokenizer)
        # Some models add their end-of-turn token without calling it special; runs of white space are no such token.
        added = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
        added |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        leading = {*tokenizer.convert_ids_to_tokens(self._bos), tokenizer.bos_token} - {tokenizer.eos_token, None}
        observed = observe(self._rendering, added, leading)
        stops = {added[text] for text in observed.stops} | {tokenizer.eos_token_id, *ends}
        self.stop_token_ids = tuple(sorted(stops - {None}))
        self._stops = frozenset(self.stop_token_ids)
        channel = learn(self._rendering)
        self.thought_tags = tuple(dict.fromkeys([*([channel] if channel else []), *TAGS]))
        self.writes_thoughts = channel is not None or has_tags(tokenizer.get_chat_template())
        written = {opening.strip() for opening in observed.openings if not has_tags(opening, self.thought_tags)}
        closing = observed.closing
        for token in tokenizer.added_tokens_decoder.values():
            closing = closing.replace(token.content, "") if token.special else closing
        self.ending = closing.strip()
        self.openings = tuple(sorted(written - {""}, key=len, reverse=True))
        self._added, self._added_ids = tuple(sorted(added, key=len, reverse=True)), frozenset(added.values())
        self._after_call = added.get(observed.after_call, tokenizer.eos_token_id)
        known_stops = {text for text, i in added.items() if i in self._stops} if observed.stops else set(added)
        self._spans = Spans(self._rendering, observed, known_stops, self._last_token)
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        turns = {
            token for token in added if token in observed.header or any(token in text for text in observed.closings)
        }
        control = {token for token in special | turns if token.strip() and "think" not in token}
        self._control = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))) or r"(?!)")
        self._swallows = any(token.lstrip or token.rstrip for token in tokenizer.added_tokens_decoder.values())
        self._prompt_ends: dict[str, list[int]] = {}

    def _last_token(self, text: str) -> str:
        return next((token for token in self._added if text.endswith(token)), "") if text.endswith(self._added) else ""

    def encode_chats(self, examples: Sequence[Example], train_on: str = "assistant") -> list[Encoded | DataError]:
        """Tokens of each conversation, or why the template refuses it or hides its answers.

        `train_on`: assistant, all answers; matching, those without a note in DIFFERING; all, every token.
        """
        rendered: list[tuple[str, list[Span]] | DataError] = []
        for example in examples:
            try:
                rendered.append(self._spans.find(example))
            except DataError as error:
                rendered.append(error)
        texts = [entry[0] for entry in rendered if not isinstance(entry, DataError)]
        encodings = iter(self._encodings(texts))
        return [
            entry if isinstance(entry, DataError) else self._encode(next(encodings), example, *entry, train_on)
            for example, entry in zip(examples, rendered, strict=True)
        ]

    def _encodings(self, texts: list[str]) -> list[Encoding]:
        """Without what the tokenizer class makes beside them: lists of masks and types that are not used."""
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        return backend.encode_batch(texts, add_special_tokens=False)

    def _ids(self, text: str) -> list[int]:
        return self._encodings([text])[0].ids

    def _encode(self, encoding: Encoding, example: Example, text: str, spans: list[Span], train_on: str) -> Encoded:
        ids: list[int] = encoding.ids
        apart: list[tuple[int, int]] = []
        """Offsets, once prompts and answers are tokenised apart."""
        cuts: list[int] = []

        def at(position: int) -> int:
            return bisect_left(apart, (position,)) if apart else _token_at(encoding, position)

        turns: list[Turn] = []
        for span in spans:
            first, end, notes = at(span.start), at(span.end), span.notes
            if PROMPT_DIFFERS in notes:
                if self._has_prompt(ids[:first], text[: span.start], example, span.message):
                    notes = tuple(note for note in notes if note != PROMPT_DIFFERS)
            elif apart or not self._follows_prompt(encoding, ids, first, text, span.start):
                # At inference the model cannot write a token that holds the prompt's end, too.
                cut = self._cut(ids, text, [*cuts, span.start])
                if cut is None or cuts:  # what was cut earlier is one token in the prompt of this answer
                    notes = (PROMPT_DIFFERS, *notes)
                if cut is not None:
                    ids, apart = cut
                    cuts.append(span.start)
                    first, end = at(span.start), at(span.end)
            if span.is_open:  # the last; what may follow is a header that the template always writes
                calls = example.messages[span.message].get("tool_calls")
                closing = self._after_call if calls else self.tokenizer.eos_token_id
                if closing is not None:
                    ids, end = [*ids[:end], closing], end + 1
            if stopped := self._stop_note(ids[first:end]):
                notes = (*notes, stopped)
            turns.append(Turn(span.message, first, end, notes))
        count = len(ids)
        ids, _ = self._with_bos(ids, [])
        if shift := len(ids) - count:
            turns = [turn._replace(start=turn.start + shift, end=turn.end + shift) for turn in turns]
        loss_mask = np.zeros(len(ids), dtype=bool)
        if train_on == "all":
            loss_mask[shift:] = True
        for turn in turns:
            if train_on != "matching" or DIFFERING.keys().isdisjoint(turn.notes):
                loss_mask[turn.start : turn.end] = True
        return Encoded(np.array(ids, dtype=np.int32), loss_mask, tuple(turns))

    def _follows_prompt(self, encoding: Encoding, ids: list[int], first: int, text: str, start: int) -> bool:
        """Whether the tokens before an answer are those of the prompt by itself.

        What follows a text can change the tokens of its end only, and nothing before an added token or the beginning of
        a line. So the end is compared; where it differs, the whole prompt.
        """
        anchor = first - 1
        lowest = max(0, first - 24)
        while anchor >= lowest and ids[anchor] not in self._added_ids:
            anchor -= 1
        if anchor >= lowest:
            begin = _first_char(encoding, anchor)
        else:
            line = _ANCHOR.search(text, max(0, start - 80), start)
            begin = line.start() if line else 0
        tail = text[begin:start]
        tail_ids = self._prompt_ends.get(tail)
        if tail_ids is None:
            tail_ids = self._ids(tail)
            if len(self._prompt_ends) < _MOST_PROMPT_ENDS:
                self._prompt_ends[tail] = tail_ids
        if len(tail_ids) <= first and ids[first - len(tail_ids) : first] == tail_ids:
            return True
        return self._ids(text[:start]) == ids[:first]

    def _has_prompt(self, ids: list[int], prompt_text: str, example: Example, message: int) -> bool:
        """Whether these are the tokens of the prompt for this message, though the texts differ: in white space at their
        end, or in such that added tokens swallow."""
        try:
            text = self._rendering.text(example.messages[:message], example.tools, prompt=True)
        except DataError:
            return False
        return (self._swallows or text.rstrip() == prompt_text.rstrip()) and self._ids(text) == ids

    def _cut(self, ids: list[int], text: str, cuts: list[int]) -> tuple[list[int], list[tuple[int, int]]] | None:
        """Tokens and offsets of the text in parts; None where their tokens decode to another text."""
        begins = [0, *cuts]
        parts = self._encodings([text[begin:end] for begin, end in zip(begins, [*cuts, len(text)], strict=True)])
        joined = [token for part in parts for token in part.ids]
        if self.tokenizer.decode(joined) != self.tokenizer.decode(ids):
            return None
        return joined, [
            (start + begin, end + begin)
            for begin, part in zip(begins, parts, strict=True)
            for start, end in part.offsets
        ]

    def _stop_note(self, ids: list[int]) -> str:
        """The note on where inference would stop: '' where it ends with these tokens, and only there."""
        if ids and ids[-1] in self._stops and self._stops.isdisjoint(ids[:-1]):
            return ""
        first = next((index for index, token in enumerate(ids) if token in self._stops), None)
        if first is None:
            return NO_STOP
        behind = [token for token in ids[first + 1 :] if token not in self._added_ids]
        return EARLY_STOP if behind and token_text(self.tokenizer, behind).strip() else ""

    def separate(self, example: Example) -> list[Example]:
        """The conversation up to each of its trained answers, with only that one trained."""
        parts = []
        for k, message in enumerate(example.messages):
            if message["role"] == "assistant" and message.get("weight", 1):
                earlier = (m | {"weight": 0} if m["role"] == "assistant" else m for m in example.messages[:k])
                parts.append(dataclasses.replace(example, messages=(*earlier, message)))
        return parts

    def control_tokens(self, example: Example) -> list[tuple[int, str]]:
        """Where a message's text holds one of the model's control tokens: (index of the message, the token)."""
        places = []
        for k, message in enumerate(example.messages):
            for text in (message.get("content"), message.get("reasoning_content")):
                if text and (match := self._control.search(text)):
                    places.append((k, match[0]))
        return places

    def encode_text(self, text: str) -> Encoded:
        """Tokens of a plain document, all trained, ended by the end-of-text token."""
        ids = self._ids(text)
        if self.tokenizer.eos_token_id is not None:
            ids = [*ids, self.tokenizer.eos_token_id]
        ids, loss_mask = self._with_bos(ids, [True] * len(ids))
        return Encoded(np.array(ids, dtype=np.int32), np.array(loss_mask, dtype=bool))

    def encode_prompt(self, example: Example) -> list[int]:
        """Tokens of a conversation up to the point where the assistant is to answer. Raises DataError."""
        text = self._rendering.text(example.messages, example.tools, prompt=True)
        return self._with_bos(self._ids(text), [])[0]

    def _with_bos(self, ids: list[int], loss_mask: list[bool]) -> tuple[list[int], list[bool]]:
        """The beginning-of-text token, once: many templates write it themselves, others leave it to the tokenizer."""
        if ids[: len(self._bos)] != self._bos:
            return [*self._bos, *ids], [*[False] * len(self._bos), *loss_mask]
        return ids, loss_mask


def _token_at(encoding: Encoding, position: int) -> int:
    """The first token that begins at this character or behind it."""
    token = encoding.char_to_token(position)
    if token is not None and _first_char(encoding, token) == position:
        return token
    count = len(encoding)
    if count and _first_char(encoding, count - 1) < position:
        return count
    # A list of all offsets takes many times as long.
    return bisect_left(encoding.offsets, (position,))


def _first_char(encoding: Encoding, token: int) -> int:
    """Where a token begins in the text; without special tokens, every token is part of it."""
    chars = encoding.token_to_chars(token)
    if chars is None:
        raise IndexError(token)
    return chars[0]


def clock_of(config: DataConfig, run: Path | None = None) -> datetime:
    """The time that templates write: the one set, or when the run in this folder began, or now. Raises InputError."""
    if config.clock != "auto":
        try:
            return datetime.fromisoformat(config.clock)
        except ValueError:
            raise InputError(
                msg("data.clock {clock}: no date and time", clock=config.clock), "Write it as 2026-01-31 12:00."
            ) from None
    when = began(run) if run else None
    return datetime.now() if when is None else datetime.fromtimestamp(when)


def _leading_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that the tokenizer itself puts before a text: the beginning-of-text token, two for GLM-4, or none."""
    plain, special = (tokenizer("a", add_special_tokens=flag)["input_ids"] for flag in (False, True))
    for count in range(len(special) - len(plain) + 1):
        if special[count : count + len(plain)] == plain:
            return special[:count]
    return special[:1] if special[:1] == [tokenizer.bos_token_id] else []
