"""Where in a rendered conversation each answer stands: what the model must write, from the prompt that the template
gives at that turn, until it stops.

An answer begins where its generation prompt ends, if the conversation's text begins with that prompt. Its end is known

1. where the text goes on with the answer's own words and a closing that the template was observed to write; or
2. with what the template adds to the prompt when the answer is the last message: that can only be the answer's.
3. Else messages are exchanged for others and the renderings compared: what changed is the message's, and the text
   between two messages is searched for the header of the one and the closing of the other, never beyond.

Where the prompt of the last turn is not what its conversation begins with, although both end in the same header (a
template that moves the system prompt), prompt and answer are put together.
"""

import os
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from engine.base.errors import DataError
from engine.formats.examples import Example
from engine.formats.turn_notes import PROMPT_DIFFERS, TURN_DIFFERS
from engine.worker.data.message_text import THOUGHTS, Loose, has_thoughts
from engine.worker.data.rendered_chat import RenderedChat, View
from engine.worker.data.rendering import Rendering, Whole
from engine.worker.data.template_omissions import left_out, may_lack, not_asked
from engine.worker.data.turn_ends import TurnEnds


class Span(NamedTuple):
    """What the model must write in one turn, as a range of the text."""

    message: int
    start: int
    end: int
    notes: tuple[str, ...] = ()
    is_open: bool = False
    """The template ends the text without a token that stops generation."""
    same_header: bool = False
    """Between the message before and the answer stands what its generation prompt ends with."""


class Spans:
    """Finds the trained turns of conversations in one template's text."""

    def __init__(
        self, rendering: Rendering, ends: TurnEnds, stops: Collection[str], last_token: Callable[[str], str]
    ) -> None:
        """`stops`: the tokens that end generation; `last_token`: the added token that a text ends with, or ''."""
        self._rendering, self._ends, self._stops, self._last_token = rendering, ends, frozenset(stops), last_token

    def find(self, example: Example) -> tuple[str, list[Span]]:
        """The conversation's text and its trained turns, in order. Raises DataError where the template refuses it, or
        leaves out an assistant's words."""
        answers = []
        for k, message in enumerate(example.messages):
            if message["role"] == "assistant" and message.get("weight", 1):
                if not (message["content"] or "").strip() and not message.get("tool_calls"):
                    raise DataError("the assistant's answer is empty")
                answers.append(k)
        whole = self._rendering.whole(example.messages, example.tools)
        text, spans = whole.text, self._at_once(example, whole, answers)
        if spans is None:
            text, spans = self._one_by_one(RenderedChat(self._rendering, example, whole), answers)
        if spans and may_lack(text, example, answers[-1]):
            notes = not_asked(RenderedChat(self._rendering, example, whole), text, answers[-1])
            spans[-1] = spans[-1]._replace(notes=spans[-1].notes + notes)
        return text, spans

    def _at_once(self, example: Example, whole: Whole, answers: list[int]) -> list[Span] | None:
        """The turns, where one rendering and the answers' own words tell them all, as they mostly do; else None."""
        if answers and self._ends.marks_enclose_more:
            return None
        spans, last = [], len(example.messages) - 1
        for k in answers:
            start = whole.prompt_end(k)
            span = None if start is None else self._by_words(example.messages[k], k, whole.text, start, k == last)
            if span is None:
                return None
            spans.append(span)
        return spans

    def _one_by_one(self, chat: RenderedChat, answers: list[int]) -> tuple[str, list[Span]]:
        view, text = chat.whole, chat.whole.text
        spans = [self._span(chat, view, answers[-1])]
        if len(answers) > 1 or spans[0].notes:
            text, spans = self._put_together(chat, view, spans[0], answers[:-1])
        if text == view.text and self._rendering.has_marks(chat.tools):
            spans = self._with_marks(chat, text, spans)
        return text, spans

    def _put_together(self, chat: RenderedChat, view: View, final: Span, earlier: list[int]) -> tuple[str, list[Span]]:
        """All turns, in the text where the last one follows its prompt."""
        text, last = view.text, final.message
        prompt = chat.prompt(last)
        is_last = last == len(chat.messages) - 1
        if is_last and prompt is not None and PROMPT_DIFFERS in final.notes and final.same_header:
            view = prompt
            answer = text[final.start : final.end]
            text = prompt.text + answer
            notes = tuple(note for note in final.notes if note != PROMPT_DIFFERS)
            final = final._replace(start=len(prompt.text), end=len(text), notes=notes)
        return text, [self._span(chat, view, k) for k in earlier] + [final]

    def _span(self, chat: RenderedChat, view: View, k: int) -> Span:
        start = chat.prompt_end(view, k)
        if start is not None:
            if span := self._by_words(chat.messages[k], k, view.text, start, k == view.count - 1):
                return span
            if span := self._by_prompt(chat, view, k, start):
                return self._checked(chat, view, span)
        elif (prompt := chat.prompt(k)) is not None and (header := self._ends.header):
            shared = self._shared(view.text, prompt.text)
            # Only its last words may differ, such as a thought that it opens.
            near = prompt.text.endswith(header) and len(prompt.text) - shared <= len(header)
            if near and (span := self._by_words(chat.messages[k], k, view.text, shared, k == view.count - 1)):
                return span._replace(notes=(PROMPT_DIFFERS, *span.notes))
        return self._checked(chat, view, self._by_exchange(chat, view, k))

    def _checked(self, chat: RenderedChat, view: View, span: Span) -> Span:
        return span._replace(notes=span.notes + left_out(chat, view, span.message, (span.start, span.end)))

    # 1. The answer's own words and a known closing

    def _by_words(self, message: dict[str, Any], k: int, text: str, start: int, is_last: bool) -> Span | None:
        content = message["content"]
        if not content or message.get("tool_calls") or has_thoughts(message):
            return None
        stripped = content.strip()
        forms = (content,) if content == stripped else (content, stripped, content.lstrip(), content.rstrip())
        for opening in self._ends.openings or ("",):
            for words in forms:
                if not text.startswith(opening + words, start):
                    continue
                words_end = start + len(opening) + len(words)
                if self._ends.openings and not self._ends.closings:
                    return Span(k, start, self._end_of(text, words_end) if is_last else words_end, is_open=is_last)
                for closing in self._ends.closings:
                    if text.startswith(closing, words_end):
                        end = words_end + len(closing)
                        written = text[start : end if self._ends.closing else words_end]
                        return Span(k, start, end, () if is_last or self._as_alone(written, forms) else (TURN_DIFFERS,))
        return None

    def _as_alone(self, written: str, forms: Iterable[str]) -> bool:
        """Whether a plain answer is written as one that comes last."""
        opening = self._ends.openings[0] if self._ends.openings else ""
        return any(self._ends_alike(written, opening + words + self._ends.closing) for words in forms)

    # 2. What the template adds to the prompt

    def _by_prompt(self, chat: RenderedChat, view: View, k: int, start: int) -> Span | None:
        text = view.text
        alone = self._alone(chat, view, k)
        if alone is None or not alone.text.startswith(text[:start]):
            return None
        end = self._end_of(alone.text, start)
        if not text.startswith(alone.text[start:end], start):
            return None
        end = self._without_words_behind(chat, text, start, end, k)
        if k == len(chat.messages) - 1:
            return Span(k, start, end, is_open=not self._is_closed(chat, k, text[start:end]))
        if not self._is_closed(chat, k, text[start:end]):
            end = self._with_next_token(text, end)
        return Span(k, start, end)

    def _without_words_behind(self, chat: RenderedChat, text: str, start: int, end: int, k: int) -> int:
        """The end of a call, where the template writes the words beside it behind the token that ends it."""
        calls, words = chat.calls(k), (chat.messages[k]["content"] or "").strip()
        stop = self._ends.after_call
        if not (calls and words and stop):
            return end
        called = text.rfind(calls[-1]["function"]["name"], start, end)
        at = text.find(stop, called, end) if called >= 0 else -1
        return at + len(stop) if at >= 0 and words in text[at + len(stop) : end] else end

    def _ends_alike(self, written: str, other: str) -> bool:
        """Whether two writings of a turn are the same but for further tokens behind the end of one."""
        if written == other:
            return True
        short, long = sorted((written, other), key=len)
        remaining = long[len(short) :].strip()
        while remaining and (token := self._last_token(remaining)):
            remaining = remaining.removesuffix(token).rstrip()
        return long.startswith(short) and not remaining

    def _alone(self, chat: RenderedChat, view: View, k: int) -> View | None:
        """The conversation up to this answer; None where the template refuses it."""
        return view if k == len(chat.messages) - 1 and k == view.count - 1 else chat.until(k)

    def _end_of(self, text: str, start: int) -> int:
        """The end of the last turn: behind its last token, without the header that some templates always write."""
        trailer = self._ends.trailer
        end = len(text) - len(trailer) if trailer and text.endswith(trailer) else len(text)
        closed = len(text[start:end].rstrip())
        return start + closed if self._last_token(text[start : start + closed]) else end

    def _is_closed(self, chat: RenderedChat, k: int, answer: str) -> bool:
        """Whether it ends with a token that ends turns, behind its own words, which may hold such a token too, and not
        only with one that belongs to a call."""
        words = (chat.messages[k]["content"] or "").strip()
        behind = answer.partition(words)[2] if words and words in answer else answer
        return self._last_token(behind.rstrip()) in self._stops

    def _with_next_token(self, text: str, end: int) -> int:
        """The end, or that of the next turn's first token where this is what ends a turn."""
        remaining = text[end:]
        begin = end + len(remaining) - len(remaining.lstrip())
        stop = next((stop for stop in self._ends.stops if text.startswith(stop, begin)), "")
        return begin + len(stop) if stop else end

    # 3. What changes with a message

    def _by_exchange(self, chat: RenderedChat, view: View, k: int) -> Span:
        text = view.text
        begin, words_end = chat.answer_region(view, k)
        floor = max((region[1] for region in chat.regions_since_question(view, k) if region[1] <= begin), default=0)
        later = (chat.changed(view, other) for other in range(k + 1, view.count))
        ceiling = next((region[0] for region in later if region and region[0] >= words_end), len(text))
        start, same_header = self._behind_header(chat, text[floor:begin], k)
        start += floor
        prompt = chat.prompt(k)
        notes: tuple[str, ...] = () if prompt is not None and text[:start] == prompt.text else (PROMPT_DIFFERS,)
        alone = self._alone(chat, view, k)
        end = self._behind_closing(chat, text, words_end, ceiling, alone, k)
        end = self._without_words_behind(chat, text, start, end, k)
        answer = text[start:end]
        if k == view.count - 1 == len(chat.messages) - 1:
            return Span(k, start, end, notes, not self._is_closed(chat, k, answer), same_header)
        if prompt is not None and alone is not None and alone.text.startswith(prompt.text):
            begun = len(prompt.text)
            end_alone = self._without_words_behind(chat, alone.text, begun, self._end_of(alone.text, begun), k)
            if not self._ends_alike(alone.text[begun:end_alone], answer):
                notes += (TURN_DIFFERS,)
        return Span(k, start, end, notes, same_header=same_header)

    def _behind_header(self, chat: RenderedChat, gap: str, k: int) -> tuple[int, bool]:
        """Where in the gap before an answer the model begins to write, and whether its prompt ends as the gap does."""
        prompt_view = chat.prompt(k)
        if prompt_view is None:
            header = self._ends.header
            suffixes = (header[i:] for i in range(len(header)))
            begin = next((gap.rfind(suffix) + len(suffix) for suffix in suffixes if suffix in gap), len(gap))
            return begin, False
        header = prompt_view.text[
            max((region[1] for region in chat.regions_since_question(prompt_view, k)), default=0) :
        ]
        shared = self._shared(gap, header)
        if shared < len(header) and (end := self._end_of_header(gap, header)) > shared:
            return end, True  # the two differ before it only, such as in the white space behind a result
        return shared, shared == len(header)

    def _end_of_header(self, gap: str, header: str) -> int:
        """Behind the longest end of the header that begins with a token and stands in the gap; 0 where none does."""
        tokens = ((end, self._last_token(header[:end])) for end in range(1, len(header) + 1))
        ends = (header[end - len(token) :] for end, token in tokens if token)
        return next((gap.rfind(text) + len(text) for text in ends if text in gap), 0)

    def _shared(self, text: str, other: str) -> int:
        """How many characters two texts begin with alike, no token and no word of them cut in two."""
        shared = len(os.path.commonprefix((text, other)))
        if shared < min(len(text), len(other)):
            while shared and not (text[shared - 1].isspace() or self._last_token(text[:shared])):
                shared -= 1
        return shared

    def _behind_closing(
        self, chat: RenderedChat, text: str, words_end: int, ceiling: int, alone: View | None, k: int
    ) -> int:
        """The end of a turn whose words end at `after`, the next message's beginning at `ceiling`."""
        gap = text[words_end:ceiling]
        candidates = [(gap.find(closing), -len(closing)) for closing in (*self._ends.closings, *self._ends.stops)]
        hits = [hit for hit in candidates if hit[0] >= 0]
        if hits:
            at, length = min(hits)
            return words_end + at - length
        if ceiling == len(text) and k == len(chat.messages) - 1:
            return self._end_of(text, words_end)
        if alone is None or alone.text == text:
            return words_end
        words = chat.changed(alone, k)
        shared = gap[: self._shared(gap, alone.text[words[1] :])] if words else ""
        return words_end + len(shared.rstrip())

    # Marks of the template's own

    def _with_marks(self, chat: RenderedChat, text: str, spans: list[Span]) -> list[Span]:
        """What `{% generation %}` blocks add: white space behind an end, and thoughts that they leave out."""
        thoughtful = (has_thoughts(chat.messages[span.message]) for span in spans)
        if not (self._ends.marks_enclose_more or any(thoughtful)):
            return spans
        answers = [k for k, message in enumerate(chat.messages) if message["role"] == "assistant"]
        _, marks = self._rendering.marked(chat.messages, chat.tools)
        if len(marks) != len(answers):
            return spans
        marked = dict(zip(answers, marks, strict=True))
        return [self._with_mark(chat, text, span, *marked[span.message]) for span in spans]

    def _with_mark(self, chat: RenderedChat, text: str, span: Span, start: int, end: int) -> Span:
        head, behind = Loose(text[span.start : start]), text[start : span.end]
        message, calls = chat.messages[span.message], chat.calls(span.message)
        words = [(message["content"] or "").strip(), *(call["function"]["name"] for call in calls)]
        thoughts = [message[key] for key in THOUGHTS if message.get(key)]
        leaves_out = (
            span.start < start
            and any(thought in head for thought in thoughts)
            and all(word in Loose(behind) for word in words)
        )
        return span._replace(
            start=start if leaves_out else span.start,
            end=end if end > span.end and text[span.end : end].isspace() else span.end,
        )
