"""Whether the trained tokens of a conversation are right, judged without the code under test: by rendering with
transformers, with a word in every message, call argument and result that stands nowhere else, and by playing inference.

A turn is right when (a) the tokens before its first trained one are its generation prompt, id by id, or it is said that
they are not; (b) fed to the stop rule, prompt and trained tokens end at the last trained one, or earlier only where
nothing but closing tokens follow; (c) it holds all its own words and nobody else's, in the text that the template
writes behind the prompt. A refusal is right when what it says is true of the template's own rendering.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from engine.base.errors import DataError
from engine.formats.examples import Example
from engine.formats.turn_notes import (
    DIFFERING,
    EARLY_STOP,
    NO_STOP,
    PROMPT_DIFFERS,
    REASONING_DROPPED,
    TEXT_DROPPED,
    TURN_DIFFERS,
)
from engine.worker.data import chat_template as worker
from engine.worker.data.chat_template import ChatTemplate, Encoded
from tests.engine.worker.data.template_recipes import BEGIN, END, INDEX_END, annotated

WORD = re.compile(r"zq[a-z]{5}")
_SENTINEL = re.compile(f"{BEGIN}(\\d+){INDEX_END}|{END}")
_NOW = re.compile(r"Now: (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6})")
_BLANK = re.compile(r"[\s\u2581]+")


_NEAR, _HEADER = 48, 7
"""Characters: how far from its mark a turn may begin behind an unlike prompt, and what is no chance agreement."""
_UNREADABLE = ("trained what the template refuses", "None in the text")
"""What makes a reading none; another reading's violation says more."""


class Violation(AssertionError):
    """One promise that a result breaks: `kind` is short and stable."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


@dataclass
class Turn:
    """One assistant message that is trained, as inference has it."""

    number: int
    prompt: str
    prompt_ids: list[int]
    writes: str
    """What stands behind the prompt, through the last of what closes the turn."""
    begins_with_prompt: bool
    """The whole rendering begins with the prompt for this turn."""
    marked: str = ""
    """As `writes`, from where the template's own header ends."""
    header: str = ""
    """What stands before that."""
    later: set[str] = field(default_factory=set)
    """As `writes`, in the prompts of later turns, where these begin with this one's prompt."""
    alone: str | None = None
    """As `writes`, where the conversation ends with this turn; None where that cannot be compared."""
    alone_ending: str = ""
    """What ends the rendering there."""
    lacks: str = ""
    """What of the message the template does not write; empty where nothing is missing."""


@dataclass
class Reading:
    """The template's own rendering of one conversation."""

    text: str = ""
    turns: list[Turn] = field(default_factory=list)
    error: str = ""
    prompt_error: str = ""


def call_words(message: dict) -> list[str]:
    """Each call's name as often as it is called, and the words in its arguments."""
    found = []
    for call in message.get("tool_calls") or ():
        found += [call["function"]["name"], *WORD.findall(str(call["function"]["arguments"]))]
    return found


def own_words(message: dict) -> set[str]:
    texts = [message.get("content") or "", message.get("reasoning_content") or "", *call_words(message)]
    return {word for text in texts for word in WORD.findall(text)}


class Oracle:
    """One template, by its source with « and », and the tokenizer it is for."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, source: str) -> None:
        self.tokenizer = tokenizer
        self.source = source
        self._added = set(tokenizer.get_added_vocab().values())
        ids = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
        self._lead = ids[0][: len(ids[0]) - len(ids[1])]

    def render(self, messages: list[dict], example: Example, now: str, prompt: bool) -> str:
        numbered = [message | {"number": number} for number, message in enumerate(messages)]
        texts, _ = render_jinja_template(
            conversations=[numbered],
            tools=list(example.tools) or None,
            chat_template=annotated(self.source, now),
            add_generation_prompt=prompt,
            **self.tokenizer.special_tokens_map,
        )
        return texts[0]

    def ids(self, text: str) -> list[int]:
        """Begun once with what the tokenizer itself puts before a text."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids if ids[: len(self._lead)] == self._lead else [*self._lead, *ids]

    def read(self, messages: list[dict], example: Example, now: str) -> Reading:
        try:
            marked = self.render(messages, example, now, prompt=False)
        except Exception as error:
            return Reading(error=str(error))
        reading = Reading(text=_SENTINEL.sub("", marked))
        spans = dict(_spans(marked))
        for number, message in enumerate(messages):
            if message["role"] != "assistant" or not message.get("weight", 1):
                continue
            try:
                marked_prompt = self.render(messages[:number], example, now, prompt=True)
            except Exception as error:
                reading.prompt_error = str(error)
                continue
            prompt, in_prompt = _SENTINEL.sub("", marked_prompt), dict(_spans(marked_prompt))
            for turn in reading.turns:
                if turn.number in in_prompt and prompt.startswith(turn.prompt):
                    turn.later.add(prompt[len(turn.prompt) : in_prompt[turn.number][1]])
            begins = reading.text.startswith(prompt)
            start, end = spans.get(number, (len(reading.text), len(reading.text)))
            words = [reading.text.find(word, start) for word in own_words(message)]
            latest = min([at for at in words if at >= 0], default=start)
            resumed = len(prompt) if begins else _resumed(reading.text, prompt, start, latest)
            writes = reading.text[resumed:end]
            turn = Turn(number, prompt, self.ids(prompt), writes, begins)
            turn.marked, turn.header = reading.text[start:end], reading.text[max(0, start - _NEAR) : start]
            turn.alone, turn.alone_ending = self._alone(messages[: number + 1], example, now, prompt)
            turn.lacks = _lacking(message, writes)
            reading.turns.append(turn)
        return reading

    def _alone(self, messages: list[dict], example: Example, now: str, prompt: str) -> tuple[str | None, str]:
        try:
            marked = self.render(messages, example, now, prompt=False)
        except Exception:
            return None, ""
        text = _SENTINEL.sub("", marked)
        start, end = dict(_spans(marked)).get(len(messages) - 1, (len(text), len(text)))
        return (text[len(prompt) : end] if text.startswith(prompt) else None), text[start:end]

    # --- the verdict --------------------------------------------------------------------------------------------------

    def check(self, template: ChatTemplate, example: Example, outcome: Encoded | DataError) -> str:
        """What the outcome was, for counting: trained, told or refused. Raises Violation."""
        now = ""
        if isinstance(outcome, Encoded):
            match = _NOW.search(self.tokenizer.decode(outcome.ids.tolist()))
            now = match[1] if match else ""
        readings = [self.read(messages, example, now) for messages in _null_variants(list(example.messages))]
        if isinstance(outcome, DataError):
            self._check_refusal(readings, example, outcome, set(template.stop_token_ids))
            return "refused"
        violations = []
        for reading in readings:
            try:
                return self._check_encoded(reading, example, outcome, set(template.stop_token_ids))
            except Violation as violation:
                violations.append(violation)
        raise min(violations, key=lambda violation: violation.kind in _UNREADABLE)

    def _check_refusal(self, readings: list[Reading], example: Example, outcome: DataError, stop: set[int]) -> None:
        for reading in readings:
            if reading.error or reading.prompt_error or not reading.turns or "None" in reading.text:
                continue
            if any(turn.lacks for turn in reading.turns):
                continue
            if any(self._stops_inside(turn, stop) or not self._can_stop(turn, example, stop) for turn in reading.turns):
                continue
            raise Violation("false refusal", outcome.message)

    def _stops_inside(self, turn: Turn, stop: set[int]) -> bool:
        ids = self.tokenizer(turn.writes, add_special_tokens=False)["input_ids"]
        first = next((at for at, token in enumerate(ids) if token in stop), len(ids))
        return not self._only_closes(ids[first + 1 :])

    def _can_stop(self, turn: Turn, example: Example, stop: set[int]) -> bool:
        """The template closes the turn with an added token, the one that it closes last turns with; or it is the last
        one, which is given an end token where it has none."""
        if turn.number == len(example.messages) - 1:
            return True
        if not self._last_added(turn.alone_ending) and example.messages[turn.number + 1]["role"] == "system":
            return False  # the next header ends a turn, and that one follows no other answer
        ends = [self._last_added(text) for text in (turn.writes, turn.alone_ending)]
        if ends[0] is None or ends[0] != (ends[1] or ends[0]):
            return False
        return not self._closes_single_calls(example, turn.number, ends[0])

    def _closes_single_calls(self, example: Example, number: int, token: int) -> bool:
        """Whether the token belongs to each call, so that more of them may follow it."""
        message = example.messages[number]
        if not message.get("tool_calls"):
            return False
        counts = []
        for calls in (message["tool_calls"], [*message["tool_calls"], *message["tool_calls"]]):
            talk = [*example.messages[:number], message | {"tool_calls": calls}]
            found = [0]
            for variant in _null_variants(talk):
                with contextlib.suppress(Exception):
                    text = _SENTINEL.sub("", self.render(variant, example, "", prompt=False))
                    found.append(self.tokenizer(text, add_special_tokens=False)["input_ids"].count(token))
            counts.append(max(found))
        return counts[1] - counts[0] >= len(message["tool_calls"])

    def _last_added(self, text: str) -> int | None:
        """The added token that a text ends with, but for white space."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"][-3:]
        while ids and ids[-1] not in self._added and not self.tokenizer.decode(ids[-1:]).strip():
            ids.pop()
        return ids[-1] if ids and ids[-1] in self._added else None

    def _only_closes(self, ids: list[int]) -> bool:
        return all(token in self._added or not self.tokenizer.decode([token]).strip() for token in ids)

    def _check_encoded(self, reading: Reading, example: Example, encoded: Encoded, stop: set[int]) -> str:
        if reading.error:
            raise Violation("trained what the template refuses", reading.error)
        if "None" in reading.text:
            raise Violation("None in the text", reading.text)
        ids, runs = encoded.ids.tolist(), list(_runs(encoded.loss_mask))
        texts = [self.tokenizer.decode(ids[a:b]) for a, b in runs]
        trained_words = set(WORD.findall(" ".join(texts)))
        for number, message in enumerate(example.messages):
            if message["role"] != "assistant" or not message.get("weight", 1):
                strangers = own_words(message) & trained_words
                if strangers:
                    raise Violation("another's words trained", f"of message {number} in {texts}")
        if len(runs) != len(reading.turns):
            raise Violation("as many stretches as turns", f"{texts} for {[turn.writes for turn in reading.turns]}")
        if [(turn.message, turn.start, turn.end) for turn in encoded.turns] != [
            (turn.number, a, b) for turn, (a, b) in zip(reading.turns, runs, strict=True)
        ]:
            raise Violation("the turns told", f"{encoded.turns} for {runs}")
        for turn, described in zip(reading.turns, encoded.turns, strict=True):
            self._check_turn(turn, ids, described, texts.pop(0), example, stop)
        return "told" if any(set(DIFFERING).intersection(turn.notes) for turn in encoded.turns) else "trained"

    def _check_turn(
        self, turn: Turn, ids: list[int], described: worker.Turn, text: str, example: Example, stop: set[int]
    ) -> None:
        message, a, b = example.messages[turn.number], described.start, described.end
        told = PROMPT_DIFFERS in described.notes
        if turn.lacks:
            raise Violation("trained what is not written", f"{turn.lacks} of message {turn.number}")
        due = turn.marked if told else turn.writes
        missing = sorted(word for word in own_words(message) if word in due and word not in text)
        if missing:
            raise Violation("own words", f"{missing} of message {turn.number} not in {text!r}")
        others = {w for n, m in enumerate(example.messages) if n != turn.number for w in own_words(m)}
        if strangers := others.intersection(WORD.findall(text)):
            raise Violation("another's words trained", f"{strangers} in {text!r}")
        if not self._is_wanted(turn, text, told):
            raise Violation("the text", f"{text!r} for {turn.writes!r}")
        matches = ids[:a] == turn.prompt_ids
        if not matches and not told:
            before = self.tokenizer.decode(ids[:a])
            raise Violation("the prompt", f"{before!r} for {turn.prompt!r}, before {text!r}")
        if matches and told:
            raise Violation("said to differ and does not", f"message {turn.number}")
        if turn.begins_with_prompt and turn.alone is not None:
            differs = not self._same_turn(text, turn.alone)
            if differs != (TURN_DIFFERS in described.notes):
                raise Violation("whether the turn differs", f"{text!r}, alone {turn.alone!r}, {described.notes}")
        self._check_dropped(text, message, described.notes)
        self._check_stop(turn, ids[a:b], text, example, stop, described.notes)

    def _is_wanted(self, turn: Turn, text: str, told: bool) -> bool:
        """The text is what is written, but for white space, in the whole conversation, in the prompt of a later turn,
        or where this turn is the last; also with the token after it, where the next header or result ends the turn, and
        with the end token given to a last answer that has none. Where the prompt cannot be met, and that is told, it
        may begin anywhere between the message before and the first of its own words."""
        endings = ["", *self.tokenizer.get_added_vocab()]
        if not told:
            ways = {turn.writes, *turn.later} | ({turn.alone} if turn.alone is not None else set())
            if self._last_added(turn.alone_ending) != self._last_added(turn.writes):
                # The token of the next header need not be trained where a call's own last token stops generation.
                ways |= {turn.writes.rstrip().removesuffix(token) for token in endings}
            return any(_squash(text) == _squash(way + ending) for way in ways for ending in endings)
        return any(_squash(turn.header + turn.marked + ending).endswith(_squash(text)) for ending in endings)

    def _check_dropped(self, trained: str, message: dict, notes: Sequence[str]) -> None:
        """A thought, or words beside a call, that the template does not write are told."""
        content = message.get("content") or ""
        inline, _, answer = content.rpartition("</think>")
        thought = (message.get("reasoning_content") or "") + inline
        beside = answer if message.get("tool_calls") else ""
        for text, note in ((thought, REASONING_DROPPED), (beside, TEXT_DROPPED)):
            lost = [word for word in WORD.findall(text) if word not in trained]
            if bool(lost) != (note in notes):
                raise Violation("what was dropped", f"{lost} in {trained!r}, {notes}")

    def _same_turn(self, one: str, other: str) -> bool:
        """But for white space, and for the next header's token at the end of one of them."""
        one, other = sorted((_squash(one), _squash(other)), key=len)
        return other.startswith(one) and other[len(one) :] in map(_squash, ("", *self.tokenizer.get_added_vocab()))

    def _check_stop(
        self, turn: Turn, trained: list[int], text: str, example: Example, stop: set[int], notes: Sequence[str]
    ) -> None:
        """Where the data or the template make it impossible that generation ends at the turn's end, that is said."""
        first = next((at for at, token in enumerate(trained) if token in stop), None)
        if first is None and self._can_stop(turn, example, stop):
            raise Violation("never stops", f"{text!r} holds none of {self.tokenizer.convert_ids_to_tokens(list(stop))}")
        if (first is None) != (NO_STOP in notes):
            raise Violation("whether it stops", f"{text!r} with {notes}")
        early = first is not None and not self._only_closes(trained[first + 1 :])
        if early and not self._stops_inside(turn, stop):
            raise Violation("stops too early", f"{text!r} at {self.tokenizer.decode([trained[first]])!r}")
        if early != (EARLY_STOP in notes):
            raise Violation("whether it stops early", f"{text!r} with {notes}")


def _spans(marked: str) -> Iterator[tuple[int, tuple[int, int]]]:
    """Of each message whose own writing begins somewhere: its number, and from where to where in the bare text."""
    removed, begun = 0, None
    for match in _SENTINEL.finditer(marked):
        at = match.start() - removed
        removed += len(match[0])
        if match[1] is not None:
            begun = (int(match[1]), at)
        elif begun is not None:
            yield begun[0], (begun[1], at)
            begun = None
    if begun is not None:
        yield begun[0], (begun[1], len(marked) - removed)


def _resumed(text: str, prompt: str, start: int, latest: int) -> int:
    """Where the rendering goes on behind what the prompt ends with, near where the model's own writing begins: the
    place before which text and prompt agree longest. Without a header's worth of agreement it begins as marked."""
    places = range(max(0, start - _NEAR), latest + 1)
    best = max(places, key=lambda place: (_agreement(text[:place], prompt), -abs(place - start)))
    return best if _agreement(text[:best], prompt) >= _HEADER else start


def _agreement(one: str, other: str) -> int:
    return len(os.path.commonprefix((one[::-1][:_NEAR], other[::-1][:_NEAR])))


def _lacking(message: dict, writes: str) -> str:
    calls = message.get("tool_calls")
    content = message.get("content") or ""
    if not calls and not content.strip():
        return "anything"
    if not calls:
        return "" if set(WORD.findall(content.split("</think>")[-1])) <= set(WORD.findall(writes)) else "the answer"
    left = writes
    for word in call_words(message):
        if word not in left:
            return f"the call's {word}"
        left = left.replace(word, "", 1)
    return ""


def _null_variants(messages: list[dict]) -> list[list[dict]]:
    """Beside calls, no content may be null, an empty text, or left out; a template may be able to take one only."""
    if not any(message.get("tool_calls") and not message["content"] for message in messages):
        return [messages]
    return [messages] + [
        [_without_content(m, content) if m.get("tool_calls") and not m["content"] else m for m in messages]
        for content in ("", None, "left out")
    ]


def _without_content(message: dict, content: str | None) -> dict:
    if content != "left out":
        return message | {"content": content}
    return {key: value for key, value in message.items() if key != "content"}


def _runs(trained: np.ndarray) -> Iterator[tuple[int, int]]:
    borders = np.flatnonzero(np.diff(np.concatenate(([0], trained.astype(int), [0]))))
    return ((int(a), int(b)) for a, b in borders.reshape(-1, 2))


def _squash(text: str) -> str:
    return _BLANK.sub("", text)
