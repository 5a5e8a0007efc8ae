"""Faults that software which marks trained tokens has been seen to have, put back into the code by which answers are
found, so that the oracle can be seen to find each. A fault changes the code for as long as its MonkeyPatch lasts."""

import itertools
import os
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest

from engine.base.errors import DataError
from engine.formats.examples import Example
from engine.formats.turn_notes import PROMPT_DIFFERS
from engine.worker.data import answer_spans, rendering, template_omissions, turn_ends
from engine.worker.data.answer_spans import Span, Spans
from engine.worker.data.message_text import Loose
from engine.worker.data.rendered_chat import RenderedChat, View
from engine.worker.data.rendering import Rendering

Patch = pytest.MonkeyPatch


def _with_found(patch: Patch, change: Callable[[Spans, Example, str, list[Span]], list[Span]]) -> None:
    """Other spans in the text than those found."""
    sound = Spans.find

    def find(self: Spans, example: Example) -> tuple[str, list[Span]]:
        text, found = sound(self, example)
        return text, change(self, example, text, found)

    patch.setattr(Spans, "find", find)


def _untold(span: Span) -> Span:
    return span._replace(notes=tuple(note for note in span.notes if note != PROMPT_DIFFERS))


def one_rendering_laid_over_another(patch: Patch) -> None:
    """A turn ends behind the last token that its rendering as the last and as an earlier turn have in common."""

    def by_prompt(self: Spans, chat: RenderedChat, view: View, k: int, start: int) -> Span | None:
        alone = self._alone(chat, view, k)
        shared = os.path.commonprefix((view.text, alone.text)) if alone else ""
        while len(shared) > start and not self._last_token(shared):
            shared = shared[:-1]
        return Span(k, start, len(shared)) if len(shared) > start else None

    patch.setattr(Spans, "_by_prompt", by_prompt)


def a_turn_measured_with_the_results_of_its_calls(patch: Patch) -> None:
    def alone(self: Spans, chat: RenderedChat, view: View, k: int) -> View | None:
        is_result = (message["role"] == "tool" for message in chat.messages[k + 1 :])
        return chat.until(k + sum(1 for _ in itertools.takewhile(bool, is_result)))

    patch.setattr(Spans, "_alone", alone)


def calls_given_to_the_template_as_they_come(patch: Patch) -> None:
    patch.setattr(Rendering, "_form", lambda *_: rendering._as_given)


def the_whole_rendering_taken_for_the_last_prompt(patch: Patch) -> None:
    def put_together(self: Spans, chat: RenderedChat, view: View, final: Span, earlier: list[int]) -> tuple:
        return view.text, [self._span(chat, view, k) for k in earlier] + [_untold(final)]

    patch.setattr(Spans, "_put_together", put_together)


def a_closing_of_one_token(patch: Patch) -> None:
    sound = turn_ends._Seen._closing

    def closing(self: turn_ends._Seen, text: str, inner: str, plain: bool) -> str:
        found = sound(self, text, inner, plain)
        return found[: self._tokens(found)[0].end()] if found else ""

    patch.setattr(turn_ends._Seen, "_closing", closing)


def an_answer_that_begins_with_its_own_words(patch: Patch) -> None:
    def change(self: Spans, example: Example, text: str, found: list[Span]) -> list[Span]:
        words = ((example.messages[span.message]["content"] or "").strip() for span in found)
        firsts = [(text.find(said, span.start), span) for said, span in zip(words, found, strict=True)]
        return [span._replace(start=at) if span.start < at < span.end else span for at, span in firsts]

    _with_found(patch, change)


def a_part_that_is_no_conversation_refuses_the_row(patch: Patch) -> None:
    """A turn is rendered with a question behind it, which stands nowhere in the conversation."""
    sound = RenderedChat.until

    def until(self: RenderedChat, k: int) -> View | None:
        self._rendering.text([*self.messages[: k + 1], {"role": "user", "content": "And?"}], self.tools)
        return sound(self, k)

    patch.setattr(RenderedChat, "until", until)


def a_clock_that_ticks_between_renderings(patch: Patch) -> None:
    sound, ticks = Rendering._blocks, itertools.count()

    def blocks(self: Rendering, *given: Any, **named: Any) -> list[str]:
        now = datetime(2026, 1, 1) + timedelta(hours=11.7, seconds=next(ticks))
        for compiled in self._compiled.values():
            compiled.named["strftime_now"] = now.strftime
        return sound(self, *given, **named)

    patch.setattr(Rendering, "_blocks", blocks)


def a_header_looked_for_across_other_messages(patch: Patch) -> None:
    patch.setattr(RenderedChat, "regions_since_question", lambda *_: iter(()))


def an_unlike_prompt_not_told(patch: Patch) -> None:
    _with_found(patch, lambda self, example, text, found: [_untold(span) for span in found])


def what_is_left_out_not_told(patch: Patch) -> None:
    sound = template_omissions.left_out
    patch.setattr(answer_spans, "left_out", lambda *given: sound(*given) and ())


def the_templates_own_marks_trusted(patch: Patch) -> None:
    sound = Spans.find

    def find(self: Spans, example: Example) -> tuple[str, list[Span]]:
        answers = [k for k, message in enumerate(example.messages) if message["role"] == "assistant"]
        text, marks = self._rendering.marked(example.messages, example.tools)
        if len(marks) != len(answers):
            return sound(self, example)
        marked = zip(answers, marks, strict=True)
        return text, [Span(k, *mark) for k, mark in marked if example.messages[k].get("weight", 1)]

    patch.setattr(Spans, "find", find)


def the_end_of_the_prompt_taken_for_the_answers(patch: Patch) -> None:
    opened = re.compile(r"<think>\s*$")

    def change(self: Spans, example: Example, text: str, found: list[Span]) -> list[Span]:
        starts = [opened.search(text, 0, span.start) for span in found]
        return [s._replace(start=m.start()) if m else s for m, s in zip(starts, found, strict=True)]

    _with_found(patch, change)


def the_next_token_taken_for_the_end_of_a_closed_turn(patch: Patch) -> None:
    def with_next_token(self: Spans, text: str, end: int) -> int:
        rest = text[end:].lstrip()
        token = next((token for token in map(self._last_token, _beginnings(rest)) if token), "")
        return text.index(rest, end) + len(token) if token else end

    patch.setattr(Spans, "_is_closed", lambda *_: False)
    patch.setattr(Spans, "_with_next_token", with_next_token)


def _beginnings(text: str) -> Iterable[str]:
    return (text[:length] for length in range(1, min(len(text), 30) + 1))


def calls_looked_for_by_name_only(patch: Patch) -> None:
    patch.setattr(Loose, "count", lambda self, words: 2 * (words in self))
    patch.setattr(template_omissions, "leaves", lambda value: iter(()))


def an_answer_that_is_not_written_not_refused(patch: Patch) -> None:
    sound = template_omissions.left_out

    def unchecked(*given: object) -> tuple[str, ...]:
        try:
            return sound(*given)
        except DataError:
            return ()

    patch.setattr(answer_spans, "left_out", unchecked)


FAULTS = (
    one_rendering_laid_over_another,
    a_turn_measured_with_the_results_of_its_calls,
    calls_given_to_the_template_as_they_come,
    the_whole_rendering_taken_for_the_last_prompt,
    a_closing_of_one_token,
    an_answer_that_begins_with_its_own_words,
    a_part_that_is_no_conversation_refuses_the_row,
    a_clock_that_ticks_between_renderings,
    a_header_looked_for_across_other_messages,
    an_unlike_prompt_not_told,
    what_is_left_out_not_told,
    the_templates_own_marks_trusted,
    an_answer_that_is_not_written_not_refused,
    the_end_of_the_prompt_taken_for_the_answers,
    the_next_token_taken_for_the_end_of_a_closed_turn,
    calls_looked_for_by_name_only,
)
