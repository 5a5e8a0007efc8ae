"""Where in a rendered conversation each answer stands: what the model must write, from the prompt that the template
gives at that turn, until it stops.

An answer begins where its generation prompt ends, if the conversation's text begins with that prompt. Its end is known

1. where the text goes on with the answer's own words and a closing that the template was seen to write; or
2. with what the template adds to the prompt when the answer is the last message: that can only be the answer's.
3. Else messages are exchanged for others and the renderings compared: what changed is the message's, and the text
   between two messages is searched for the header of the one and the closing of the other, never beyond.

Where the prompt of the last turn is not what its conversation begins with, although both end in the same header (a
template that moves the system prompt), prompt and answer are put together.
"""

import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.errors import DataError
from engine.records import Example
from engine.worker.rendering import Rendering
from engine.worker.turn_ends import TurnEnds

PROMPT_DIFFERS = "prompt-differs"
TURN_DIFFERS = "turn-differs"
REASONING_DROPPED = "reasoning-dropped"
TEXT_DROPPED = "text-dropped"


@dataclass(frozen=True)
class Span:
    """What the model is to write in one turn, as a range of the text."""

    message: int
    start: int
    end: int
    notes: tuple[str, ...] = ()
    is_open: bool = False
    """The template ends the text without a token that stops generation."""


@dataclass(frozen=True)
class _View:
    """A text that shows the first messages of a conversation, and how to make it with other words in them."""

    text: str
    count: int
    render: Callable[[list[dict]], str]


class Spans:
    def __init__(
        self, rendering: Rendering, ends: TurnEnds, stops: Collection[str], last_token: Callable[[str], str]
    ) -> None:
        """`stops`: the tokens that end generation; `last_token`: the added token that a text ends with, or nothing."""
        self._given = rendering, ends, frozenset(stops), last_token

    def find(self, example: Example) -> tuple[str, list[Span]]:
        """The conversation's text and its trained turns, in order. Raises DataError where the template refuses it, or
        leaves out what an assistant says."""
        return _Conversation(*self._given, example).find()


class _Conversation:
    def __init__(
        self,
        rendering: Rendering,
        ends: TurnEnds,
        stops: frozenset[str],
        last_token: Callable[[str], str],
        example: Example,
    ) -> None:
        self._rendering, self._ends, self._stops, self._last_token = rendering, ends, stops, last_token
        self._messages, self._tools = list(example.messages), example.tools
        self._prompts: dict[int, str | None] = {}
        self._regions: dict[tuple[str, int], tuple[int, int] | None] = {}

    def find(self) -> tuple[str, list[Span]]:
        answers = [k for k, message in enumerate(self._messages) if message["role"] == "assistant"]
        trained = [k for k in answers if self._messages[k].get("weight", 1)]
        for k in trained:
            if not (self._messages[k]["content"] or "").strip() and not self._messages[k].get("tool_calls"):
                raise DataError("the assistant's answer is empty")
        marks: dict[int, tuple[int, int]] = {}
        if self._rendering.has_marks(self._tools):
            text, found = self._rendering.marked(self._messages, self._tools)
            if len(found) == len(answers):
                marks = dict(zip(answers, found, strict=True))
        else:
            text = self._rendering.text(self._messages, self._tools)
        view = _View(text, len(self._messages), lambda messages: self._rendering.text(messages, self._tools))
        if not trained:
            return text, []
        *earlier, last = trained
        prompt = self._prompt(last)
        final = self._span(view, last)
        if prompt is not None and not text.startswith(prompt) and PROMPT_DIFFERS not in final.notes:
            answer = text[final.start : final.end]
            view = _View(
                prompt,
                last,
                lambda messages: self._rendering.text(messages[:last], self._tools, prompt=True),
            )
            final = replace(final, start=len(prompt), end=len(prompt) + len(answer))
            text, marks = prompt + answer, {}
        spans = [self._span(view, k) for k in earlier] + [final]
        return text, [self._with_mark(text, span, marks.get(span.message)) for span in spans]

    def _prompt(self, k: int) -> str | None:
        """What the model is given at this turn; None where the template refuses the messages before it."""
        if k not in self._prompts:
            try:
                self._prompts[k] = self._rendering.text(self._messages[:k], self._tools, prompt=True)
            except DataError:
                self._prompts[k] = None
        return self._prompts[k]

    def _span(self, view: _View, k: int) -> Span:
        prompt, text = self._prompt(k), view.text
        if prompt is not None:
            start, header = len(prompt), self._ends.header
            if not text.startswith(prompt):  # only its last words may differ, such as a thought that it opens
                start = self._shared(text, prompt)
                start = start if header and prompt.endswith(header) and len(prompt) - start <= len(header) else -1
            differs = () if start == len(prompt) else (PROMPT_DIFFERS,)
            if start >= 0 and (span := self._by_words(view, k, start)):
                return replace(span, notes=(*differs, *span.notes))
            if not differs and (span := self._by_prompt(view, k, start)):
                return self._checked(view, span)
        return self._checked(view, self._by_exchange(view, k))

    # 1. The answer's own words and a known closing

    def _by_words(self, view: _View, k: int, start: int) -> Span | None:
        message, text = self._messages[k], view.text
        content = message["content"]
        if not content or message.get("tool_calls") or any(message.get(key) for key in _THOUGHTS):
            return None
        is_last = k == view.count - 1
        for number, opening in enumerate(self._ends.openings or ("",)):
            for words in dict.fromkeys((content, content.strip(), content.lstrip(), content.rstrip())):
                if not text.startswith(opening + words, start):
                    continue
                after = start + len(opening) + len(words)
                if self._ends.openings and not self._ends.closings:
                    return Span(k, start, self._end_of(text, after) if is_last else after, is_open=is_last)
                for closing in self._ends.closings:
                    if text.startswith(closing, after):
                        differs = not is_last and (number > 0 or closing != self._ends.closing)
                        notes = (TURN_DIFFERS,) if differs else ()
                        return Span(k, start, after + len(closing), notes)
        return None

    # 2. What the template adds to the prompt

    def _by_prompt(self, view: _View, k: int, start: int) -> Span | None:
        text = view.text
        alone = self._alone(view, k)
        if alone is None or not alone.startswith(text[:start]):
            return None
        end = self._end_of(alone, start)
        if not text.startswith(alone[start:end], start):
            return None
        if k == len(self._messages) - 1:
            return Span(k, start, end, is_open=not self._is_closed(text[start:end]))
        if not self._is_closed(text[start:end]):
            end = self._with_next_token(text, end)
        return Span(k, start, end)

    def _alone(self, view: _View, k: int) -> str | None:
        """The conversation up to this answer; None where the template refuses it."""
        if k == len(self._messages) - 1 and k == view.count - 1:
            return view.text
        try:
            return self._rendering.text(self._messages[: k + 1], self._tools)
        except DataError:
            return None

    def _end_of(self, text: str, start: int) -> int:
        """The end of the last turn: behind its last token, without the header that some templates always write."""
        trailer = self._ends.trailer
        end = len(text) - len(trailer) if trailer and text.endswith(trailer) else len(text)
        closed = len(text[start:end].rstrip())
        return start + closed if self._last_token(text[start : start + closed]) else end

    def _is_closed(self, answer: str) -> bool:
        """Whether it ends with a token that ends turns, and not only with one that belongs to a call."""
        return self._last_token(answer.rstrip()) in self._stops

    def _with_next_token(self, text: str, end: int) -> int:
        """The end, or that of the next turn's first token where this is what ends a turn."""
        rest = text[end:]
        begin = end + len(rest) - len(rest.lstrip())
        stop = next((stop for stop in self._ends.stops if text.startswith(stop, begin)), "")
        return begin + len(stop) if stop else end

    # 3. What changes with a message

    def _by_exchange(self, view: _View, k: int) -> Span:
        text = view.text
        own = self._changed(view, k)
        if own is None:
            raise DataError("the chat template leaves out the assistant's answer")
        begin, after = own
        for neighbour in (k - 1, k + 1):
            region = self._changed(view, neighbour) if 0 <= neighbour < view.count else None
            if region and begin < region[0] and region[1] < after:
                raise DataError("the chat template writes this answer in two places, with another message between them")
        before = self._nearest(view, range(k - 1, -1, -1), lambda region: region[1] <= begin)
        behind = self._nearest(view, range(k + 1, view.count), lambda region: region[0] >= after)
        floor, ceiling = before[1] if before else 0, behind[0] if behind else len(text)
        start, differs = self._behind_header(text[floor:begin], k)
        notes = (PROMPT_DIFFERS,) if differs else ()
        start += floor
        alone = self._alone(view, k)
        end = self._behind_closing(text, after, ceiling, alone if alone != text else None, k)
        answer = text[start:end]
        if k == view.count - 1 == len(self._messages) - 1:
            return Span(k, start, end, notes, is_open=not self._is_closed(answer))
        prompt = self._prompt(k)
        if prompt is not None and alone is not None and alone.startswith(prompt):
            written = alone[len(prompt) : self._end_of(alone, len(prompt))]
            if written != answer and written + self._last_token(answer) != answer:
                notes += (TURN_DIFFERS,)
        return Span(k, start, end, notes)

    def _changed(self, view: _View, k: int, exchange: Callable | None = None) -> tuple[int, int] | None:
        """The range of the text that depends on this message's words; None where nothing does."""
        if exchange is None and (view.text, k) in self._regions:
            return self._regions[view.text, k]
        exchanged = (exchange or _exchanged)(self._messages[k])
        try:
            other = view.render([*self._messages[:k], exchanged, *self._messages[k + 1 :]])
        except DataError as error:
            raise DataError(f"where this answer stands cannot be told: with other words, {error.message}") from None
        start = len(os.path.commonprefix((view.text, other)))
        after = len(os.path.commonprefix((view.text[start:][::-1], other[start:][::-1])))
        end = len(view.text) - after
        region = (start, end) if start < end else None
        if exchange is None:
            self._regions[view.text, k] = region
        return region

    def _nearest(self, view: _View, order: Sequence[int], fits: Callable) -> tuple[int, int] | None:
        for k in order:
            region = self._changed(view, k)
            if region and fits(region):
                return region
        return None

    def _behind_header(self, gap: str, k: int) -> tuple[int, bool]:
        """Where in the gap before an answer the model begins to write, and whether its prompt ends otherwise."""
        prompt = self._prompt(k)
        if prompt is None:
            header = self._ends.header
            suffixes = (header[i:] for i in range(len(header)))
            found = next((gap.rfind(suffix) + len(suffix) for suffix in suffixes if suffix in gap), len(gap))
            return found, True
        asked = _View(prompt, k, lambda messages: self._rendering.text(messages[:k], self._tools, prompt=True))
        before = self._nearest(asked, range(k - 1, -1, -1), lambda region: True)
        header = prompt[before[1] :] if before else prompt
        shared = self._shared(gap, header)
        return shared, shared < len(header)

    def _shared(self, one: str, two: str) -> int:
        """How many characters two texts begin with alike, no token and no word of them cut in two."""
        shared = len(os.path.commonprefix((one, two)))
        if shared < min(len(one), len(two)):
            while shared and not (one[shared - 1].isspace() or self._last_token(one[:shared])):
                shared -= 1
        return shared

    def _behind_closing(self, text: str, after: int, ceiling: int, alone: str | None, k: int) -> int:
        """The end of a turn whose words end at `after`, the next message's beginning at `ceiling`."""
        gap = text[after:ceiling]
        places = [(gap.find(closing), -len(closing)) for closing in (*self._ends.closings, *self._ends.stops)]
        found = [place for place in places if place[0] >= 0]
        if found:
            at, length = min(found)
            return after + at - length
        if ceiling == len(text) and k == len(self._messages) - 1:
            return self._end_of(text, after)
        if alone is None:
            return after
        own = self._changed(
            _View(alone, k + 1, lambda messages: self._rendering.text(messages[: k + 1], self._tools)), k
        )
        shared = os.path.commonprefix((gap, alone[own[1] :])) if own else ""
        return after + len(shared.rstrip())

    # What must be in an answer

    def _calls(self, k: int) -> Sequence[dict]:
        return self._messages[k].get("tool_calls") or ()

    def _checked(self, view: _View, span: Span) -> Span:
        """The span with notes of what the template left out. Raises DataError when that is the answer or a call."""
        message, calls = self._messages[span.message], self._calls(span.message)
        written = _Loose(view.text[span.start : span.end])
        notes = span.notes
        content = (message["content"] or "").strip()
        thought = next((message[key] for key in _THOUGHTS if message.get(key)), "")
        inline, closed, said = content.rpartition("</think>")
        if closed and content not in written:
            thought, content = inline.replace("<think>", ""), said.strip()
        if thought.strip() and thought not in written:
            notes += (REASONING_DROPPED,)
        if content and content not in written and not self._holds(view, span, _other_content):
            if not calls:
                raise DataError("the chat template leaves out the assistant's answer")
            notes += (TEXT_DROPPED,)
        names = [call["function"]["name"] for call in calls]
        for number, call in enumerate(calls):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            if names.index(name) == number and written.count(name) < names.count(name):
                raise DataError("the chat template leaves out the assistant's tool calls")
            if not all(leaf in written for leaf in _leaves(arguments)) and not self._holds(
                view, span, lambda message, number=number: _other_arguments(message, number)
            ):
                raise DataError(f"the chat template leaves out the arguments of the assistant's call of {name}")
        return replace(span, notes=notes)

    def _holds(self, view: _View, span: Span, exchange: Callable) -> bool:
        """Whether other words in the message would be seen in the span: a template may write them in its own way."""
        region = self._changed(view, span.message, exchange) if span.message < view.count else None
        return region is not None and region[0] < span.end and region[1] > span.start

    def _with_mark(self, text: str, span: Span, mark: tuple[int, int] | None) -> Span:
        """What a template's `{% generation %}` block adds: white space behind the end, and thoughts left out."""
        if mark is None:
            return span
        start, end = mark
        thought = _Loose(text[span.start : start])
        message = self._messages[span.message]
        leaves_out = span.start < start < span.end and any(
            message.get(key) and message[key] in thought for key in _THOUGHTS
        )
        return replace(
            span,
            start=start if leaves_out else span.start,
            end=end if end > span.end and text[span.end : end].isspace() else span.end,
        )


_THOUGHTS = ("reasoning_content", "thinking", "reasoning")


class _Loose:
    """A text in which words are looked for whatever white space or JSON made of them."""

    def __init__(self, text: str) -> None:
        self._text, self._bare = text, None

    def __contains__(self, words: str) -> bool:
        if words in self._text:
            return True
        if self._bare is None:
            self._bare = "".join(self._text.split())
        bare = "".join(words.split())
        return bare in self._bare or json.dumps(bare, ensure_ascii=False)[1:-1] in self._bare

    def count(self, words: str) -> int:
        return self._text.count(words)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value
    elif value is not None and not isinstance(value, bool):
        yield json.dumps(value)


def _exchanged(message: dict[str, Any]) -> dict[str, Any]:
    """The message with other words in all it says."""
    made = _other_content(message)
    for key in _THOUGHTS:
        if made.get(key):
            made = made | {key: _unlike(made[key])}
    for number in range(len(message.get("tool_calls") or ())):
        made = _other_arguments(_other_name(made, number), number)
    return made


def _other_content(message: dict[str, Any]) -> dict[str, Any]:
    return message | {"content": _unlike(message["content"])} if message.get("content") else message


def _other_arguments(message: dict[str, Any], number: int) -> dict[str, Any]:
    calls = list(message["tool_calls"])
    function = calls[number]["function"]
    calls[number] = calls[number] | {"function": function | {"arguments": _unlike_in(function["arguments"])}}
    return message | {"tool_calls": calls}


def _other_name(message: dict[str, Any], number: int) -> dict[str, Any]:
    calls = list(message["tool_calls"])
    function = calls[number]["function"]
    calls[number] = calls[number] | {"function": function | {"name": _unlike(function["name"])}}
    return message | {"tool_calls": calls}


def _unlike_in(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unlike_in(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_unlike_in(item) for item in value]
    if isinstance(value, str):
        return _unlike(value)
    if isinstance(value, bool) or value is None:
        return value if value is None else not value
    written = json.dumps(value)
    return next(digit for digit in (3, 5, 7) if str(digit) not in (written[0], written[-1]))


def _unlike(text: str) -> str:
    """A text that differs from this one in its first and its last character."""
    stripped = text.strip()
    return ("B" if stripped[:1] == "A" else "A") + ("Z" if stripped[-1:] == "Y" else "Y")
