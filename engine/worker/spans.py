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

import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from engine.errors import DataError
from engine.records import Example
from engine.turn_notes import PROMPT_DIFFERS, REASONING_DROPPED, TEXT_DROPPED, TURN_DIFFERS
from engine.worker.rendering import Rendering
from engine.worker.turn_ends import TurnEnds
from engine.worker.wording import (
    THOUGHTS,
    Loose,
    leaves,
    other_arguments,
    other_content,
    other_names,
    other_thoughts,
    otherwise,
)


@dataclass(frozen=True)
class Span:
    """What the model is to write in one turn, as a range of the text."""

    message: int
    start: int
    end: int
    notes: tuple[str, ...] = ()
    is_open: bool = False
    """The template ends the text without a token that stops generation."""
    same_header: bool = False
    """Between the message before and the answer stands what its generation prompt ends with."""


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
        text = self._rendering.text(self._messages, self._tools)
        if not trained:
            return text, []
        view = _View(text, len(self._messages), lambda messages: self._rendering.text(messages, self._tools))
        spans = [self._span(view, trained[-1])]
        if len(trained) > 1 or spans[0].notes:
            text, spans = self._put_together(view, spans[0], trained[:-1])
        if text == view.text and self._rendering.has_marks(self._tools):
            spans = self._with_marks(text, spans, answers)
        return text, spans

    def _put_together(self, view: _View, final: Span, earlier: list[int]) -> tuple[str, list[Span]]:
        """All turns, in the text where the last one follows its prompt."""
        text, last = view.text, final.message
        prompt = self._prompt(last)
        is_last = last == len(self._messages) - 1
        if is_last and prompt is not None and PROMPT_DIFFERS in final.notes and final.same_header:
            view = _View(prompt, last, lambda messages: self._rendering.text(messages[:last], self._tools, prompt=True))
            answer = text[final.start : final.end]
            text = prompt + answer
            notes = tuple(note for note in final.notes if note != PROMPT_DIFFERS)
            final = replace(final, start=len(prompt), end=len(text), notes=notes)
        return text, [self._span(view, k) for k in earlier] + [final]

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
            if start >= 0 and (span := self._by_words(view, k, start, differs)):
                return span
            if not differs and (span := self._by_prompt(view, k, start)):
                return self._checked(view, span)
        return self._checked(view, self._by_exchange(view, k))

    # 1. The answer's own words and a known closing

    def _by_words(self, view: _View, k: int, start: int, notes: tuple[str, ...]) -> Span | None:
        message, text = self._messages[k], view.text
        content = message["content"]
        if not content or message.get("tool_calls") or any(message.get(key) for key in THOUGHTS):
            return None
        is_last = k == view.count - 1
        forms = dict.fromkeys((content, content.strip(), content.lstrip(), content.rstrip()))
        for opening in self._ends.openings or ("",):
            for words in forms:
                if not text.startswith(opening + words, start):
                    continue
                after = start + len(opening) + len(words)
                if self._ends.openings and not self._ends.closings:
                    return Span(k, start, self._end_of(text, after) if is_last else after, notes, is_open=is_last)
                for closing in self._ends.closings:
                    if text.startswith(closing, after):
                        end = after + len(closing)
                        written = text[start : end if self._ends.closing else after]
                        if not is_last and not self._as_alone(written, forms):
                            notes = (*notes, TURN_DIFFERS)
                        return Span(k, start, end, notes)
        return None

    def _as_alone(self, written: str, forms: Iterable[str]) -> bool:
        """Whether a plain answer is written as one that comes last."""
        opening = self._ends.openings[0] if self._ends.openings else ""
        return any(self._ends_alike(written, opening + words + self._ends.closing) for words in forms)

    # 2. What the template adds to the prompt

    def _by_prompt(self, view: _View, k: int, start: int) -> Span | None:
        text = view.text
        alone = self._alone(view, k)
        if alone is None or not alone.startswith(text[:start]):
            return None
        end = self._end_of(alone, start)
        if not text.startswith(alone[start:end], start):
            return None
        end = self._without_words_behind(text, start, end, k)
        if k == len(self._messages) - 1:
            return Span(k, start, end, is_open=not self._is_closed(text[start:end]))
        if not self._is_closed(text[start:end]):
            end = self._with_next_token(text, end)
        return Span(k, start, end)

    def _without_words_behind(self, text: str, start: int, end: int, k: int) -> int:
        """The end of a call, where the template writes the words beside it behind the token that ends it."""
        calls, words = self._calls(k), (self._messages[k]["content"] or "").strip()
        stop = self._ends.after_call
        if not (calls and words and stop):
            return end
        called = text.rfind(calls[-1]["function"]["name"], start, end)
        at = text.find(stop, called, end) if called >= 0 else -1
        return at + len(stop) if at >= 0 and words in text[at + len(stop) : end] else end

    def _ends_alike(self, one: str, other: str) -> bool:
        """Whether two writings of a turn are the same but for further tokens behind the end of one."""
        short, long = sorted((one, other), key=len)
        rest = long[len(short) :].strip()
        while rest and (token := self._last_token(rest)):
            rest = rest.removesuffix(token).rstrip()
        return long.startswith(short) and not rest

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
        begin, after = self._own(view, k)
        floor = max((region[1] for region in self._regions_before(view, k) if region[1] <= begin), default=0)
        later = (self._changed(view, other) for other in range(k + 1, view.count))
        ceiling = next((region[0] for region in later if region and region[0] >= after), len(text))
        start, same_header = self._behind_header(text[floor:begin], k)
        start += floor
        notes = () if text[:start] == self._prompt(k) else (PROMPT_DIFFERS,)
        alone = self._alone(view, k)
        end = self._behind_closing(text, after, ceiling, alone if alone != text else None, k)
        answer = text[start:end]
        if k == view.count - 1 == len(self._messages) - 1:
            return Span(k, start, end, notes, not self._is_closed(answer), same_header)
        prompt = self._prompt(k)
        if prompt is not None and alone is not None and alone.startswith(prompt):
            end_alone = self._without_words_behind(alone, len(prompt), self._end_of(alone, len(prompt)), k)
            written = alone[len(prompt) : end_alone]
            if not self._ends_alike(written, answer):
                notes += (TURN_DIFFERS,)
        return Span(k, start, end, notes, same_header=same_header)

    def _own(self, view: _View, k: int) -> tuple[int, int]:
        """The range of this answer's words, without those that a template writes behind the results of its calls."""
        ways = [other_arguments, other_content, other_thoughts]
        if any(not call["function"]["arguments"] for call in self._calls(k)):
            ways.append(other_names)
        changed = [region for way in ways if (region := self._changed(view, k, way))]
        regions = [region for region in changed if region[0] < region[1]]
        if not regions:
            left_out = "tool calls" if self._calls(k) else "answer"
            raise DataError(f"the chat template leaves out the assistant's {left_out}")
        results = itertools.takewhile(lambda other: self._messages[other]["role"] == "tool", range(k + 1, view.count))
        neighbours = [other for other in {k - 1, k + 1, *results} if 0 <= other < view.count]
        beside = [region for other in neighbours if (region := self._changed(view, other))]
        whole = [own for own in regions if not any(own[0] < other[0] and other[1] < own[1] for other in beside)]
        if not whole:
            raise DataError("the chat template writes this answer in two places, with another message between them")
        first = min(whole)
        whole = [own for own in whole if not any(first[1] <= other[0] < own[0] for other in beside)]
        return first[0], max(end for _, end in whole)

    def _regions_before(self, view: _View, k: int) -> Iterator[tuple[int, int]]:
        """Of the messages since the last question, that included: a template may write results with the calls."""
        for other in range(k - 1, -1, -1):
            if region := self._changed(view, other):
                yield region
                if self._messages[other]["role"] not in ("tool", "assistant"):
                    return

    def _changed(self, view: _View, k: int, exchange: Callable | None = None) -> tuple[int, int] | None:
        """The range of the text that depends on this message's words; None where nothing does."""
        if exchange is None and (view.text, k) in self._regions:
            return self._regions[view.text, k]
        exchanged = (exchange or otherwise)(self._messages[k])
        if exchanged == self._messages[k]:
            return None
        try:
            other = view.render([*self._messages[:k], exchanged, *self._messages[k + 1 :]])
        except DataError as error:
            raise DataError(f"where this answer stands cannot be told: with other words, {error.message}") from None
        start = len(os.path.commonprefix((view.text, other)))
        after = len(os.path.commonprefix((view.text[start:][::-1], other[start:][::-1])))
        end = len(view.text) - after
        region = (start, end) if other != view.text else None
        if exchange is None:
            self._regions[view.text, k] = region
        return region

    def _behind_header(self, gap: str, k: int) -> tuple[int, bool]:
        """Where in the gap before an answer the model begins to write, and whether its prompt ends as the gap does."""
        prompt = self._prompt(k)
        if prompt is None:
            header = self._ends.header
            suffixes = (header[i:] for i in range(len(header)))
            found = next((gap.rfind(suffix) + len(suffix) for suffix in suffixes if suffix in gap), len(gap))
            return found, False
        asked = _View(prompt, k, lambda messages: self._rendering.text(messages[:k], self._tools, prompt=True))
        header = prompt[max((region[1] for region in self._regions_before(asked, k)), default=0) :]
        shared = self._shared(gap, header)
        if shared < len(header) and (end := self._end_of_header(gap, header)) > shared:
            return end, True  # the two differ before it only, such as in the white space behind a result
        return shared, shared == len(header)

    def _end_of_header(self, gap: str, header: str) -> int:
        """Behind the longest end of the header that begins with a token and stands in the gap; 0 where none does."""
        tokens = ((end, self._last_token(header[:end])) for end in range(1, len(header) + 1))
        ends = (header[end - len(token) :] for end, token in tokens if token)
        return next((gap.rfind(text) + len(text) for text in ends if text in gap), 0)

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
        shared = gap[: self._shared(gap, alone[own[1] :])] if own else ""
        return after + len(shared.rstrip())

    # What must be in an answer

    def _calls(self, k: int) -> Sequence[dict]:
        return self._messages[k].get("tool_calls") or ()

    def _checked(self, view: _View, span: Span) -> Span:
        """The span with notes of what the template left out. Raises DataError when that is the answer or a call."""
        message, calls = self._messages[span.message], self._calls(span.message)
        written = Loose(view.text[span.start : span.end])
        notes = span.notes
        content = (message["content"] or "").strip()
        thought = next((message[key] for key in THOUGHTS if message.get(key)), "")
        inline, closed, said = content.rpartition("</think>")
        if closed and content not in written:
            thought, content = inline.replace("<think>", ""), said.strip()
        if thought.strip() and thought not in written:
            notes += (REASONING_DROPPED,)
        if content and content not in written and not self._holds(view, span, other_content):
            if not calls:
                raise DataError("the chat template leaves out the assistant's answer")
            notes += (TEXT_DROPPED,)
        names = [call["function"]["name"] for call in calls]
        for number, call in enumerate(calls):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            if names.index(name) == number and written.count(name) < names.count(name):
                raise DataError("the chat template leaves out the assistant's tool calls")
            if not all(leaf in written for leaf in leaves(arguments)) and not self._holds(
                view, span, lambda message, number=number: other_arguments(message, number)
            ):
                raise DataError(f"the chat template leaves out the arguments of the assistant's call of {name}")
        return replace(span, notes=notes)

    def _holds(self, view: _View, span: Span, exchange: Callable) -> bool:
        """Whether other words in the message would be seen in the span: a template may write them in its own way."""
        region = self._changed(view, span.message, exchange) if span.message < view.count else None
        return region is not None and region[0] < span.end and region[1] > span.start

    def _with_marks(self, text: str, spans: list[Span], answers: list[int]) -> list[Span]:
        """What `{% generation %}` blocks add: white space behind an end, and thoughts that they leave out."""
        thoughtful = any(self._messages[span.message].get(key) for span in spans for key in THOUGHTS)
        if not (thoughtful or self._ends.marks_enclose_more):
            return spans
        _, marks = self._rendering.marked(self._messages, self._tools)
        if len(marks) != len(answers):
            return spans
        marked = dict(zip(answers, marks, strict=True))
        return [self._with_mark(text, span, *marked[span.message]) for span in spans]

    def _with_mark(self, text: str, span: Span, start: int, end: int) -> Span:
        before, behind, message = Loose(text[span.start : start]), text[start : span.end], self._messages[span.message]
        words = [(message["content"] or "").strip(), *(call["function"]["name"] for call in self._calls(span.message))]
        thoughts = [message[key] for key in THOUGHTS if message.get(key)]
        leaves_out = (
            span.start < start
            and any(thought in before for thought in thoughts)
            and all(word in Loose(behind) for word in words)
        )
        return replace(
            span,
            start=start if leaves_out else span.start,
            end=end if end > span.end and text[span.end : end].isspace() else span.end,
        )
