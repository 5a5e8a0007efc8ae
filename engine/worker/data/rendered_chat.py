"""One conversation as its chat template renders it: whole, up to a message, as the prompt of an answer, and with other
words in a message, which shows where that message is in the text."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from engine.base.errors import DataError
from engine.base.messages import msg
from engine.formats.examples import Example
from engine.worker.data.message_text import other_arguments, other_content, other_names, other_thoughts, otherwise
from engine.worker.data.rendering import Rendering, Whole

Region = tuple[int, int]
"""Start and end in a text."""


@dataclass(frozen=True, slots=True)
class View:
    """The text of a conversation's first `count` messages."""

    text: str
    count: int
    is_prompt: bool


class RenderedChat:
    """Renders each view once. Messages are named by their index in the example."""

    def __init__(self, rendering: Rendering, example: Example, whole: Whole) -> None:
        self.messages, self.tools = example.messages, example.tools
        self._rendering, self._whole = rendering, whole
        self.whole = View(whole.text, len(self.messages), False)
        self._views: dict[tuple[int, bool], View | None] = {(self.whole.count, False): self.whole}
        self._regions: dict[tuple[str, int], Region | None] = {}

    def prompt_end(self, view: View, k: int) -> int | None:
        """Where the prompt for this message ends in the text; None where the text does not begin with it."""
        if view is self.whole and k in self._whole.cuts:
            return self._whole.prompt_end(k)
        prompt = self.prompt(k)
        return len(prompt.text) if prompt is not None and view.text.startswith(prompt.text) else None

    def until(self, k: int) -> View | None:
        """Up to this message, that included; None where the template refuses it."""
        return self._view(k + 1, False)

    def prompt(self, k: int) -> View | None:
        """The prompt for which the model is to write this message; None where the template refuses that."""
        return self._view(k, True)

    def _view(self, count: int, is_prompt: bool) -> View | None:
        if (count, is_prompt) not in self._views:
            known = self._whole.prompt(count) if is_prompt else None
            try:
                text = self._rendering.text(self.messages[:count], self.tools, is_prompt) if known is None else known
                view = View(text, count, is_prompt)
            except DataError:
                view = None
            self._views[count, is_prompt] = view
        return self._views[count, is_prompt]

    def without_tools(self) -> str | None:
        """The text where no tools are offered; None where the template refuses that."""
        try:
            return self._rendering.text(self.messages, (), False)
        except DataError:
            return None

    def calls(self, k: int) -> Sequence[dict]:
        """The tool calls of this message."""
        return self.messages[k].get("tool_calls") or ()

    def changed(self, view: View, k: int, exchange: Callable[[dict], dict] | None = None) -> Region | None:
        """The range of the text that depends on this message's words, or on those that `exchange` changes; None where
        nothing does."""
        if exchange is None and (view.text, k) in self._regions:
            return self._regions[view.text, k]
        exchanged = (exchange or otherwise)(self.messages[k])
        if exchanged == self.messages[k]:
            return None
        messages = [*self.messages[:k], exchanged, *self.messages[k + 1 : view.count]]
        try:
            other = self._rendering.text(messages, self.tools, view.is_prompt)
        except DataError as error:
            raise DataError(
                msg("where this answer stands cannot be told: with other words, {message}", message=error.message)
            ) from None
        start = len(os.path.commonprefix((view.text, other)))
        tail = len(os.path.commonprefix((view.text[start:][::-1], other[start:][::-1])))
        region = (start, len(view.text) - tail) if other != view.text else None
        if exchange is None:
            self._regions[view.text, k] = region
        return region

    def answer_region(self, view: View, k: int) -> Region:
        """The range of this answer's words, without those that a template writes behind the results of its calls.
        Raises DataError where it has none, or another message stands between them."""
        ways = [other_arguments, other_content, other_thoughts]
        if any(not call["function"]["arguments"] for call in self.calls(k)):
            ways.append(other_names)
        changed = [region for way in ways if (region := self.changed(view, k, way))]
        regions = [region for region in changed if region[0] < region[1]]
        if not regions:
            left_out = "tool calls" if self.calls(k) else "answer"
            raise DataError(msg("the chat template leaves out the assistant's {left_out}", left_out=left_out))
        results = itertools.takewhile(lambda other: self.messages[other]["role"] == "tool", range(k + 1, view.count))
        neighbours = [other for other in {k - 1, k + 1, *results} if 0 <= other < view.count]
        beside = [region for other in neighbours if (region := self.changed(view, other))]
        whole = [
            region for region in regions if not any(region[0] < other[0] and other[1] < region[1] for other in beside)
        ]
        if not whole:
            raise DataError("the chat template writes this answer in two places, with another message between them")
        first = min(whole)
        whole = [region for region in whole if not any(first[1] <= other[0] < region[0] for other in beside)]
        return first[0], max(end for _, end in whole)

    def regions_since_question(self, view: View, k: int) -> Iterator[Region]:
        """Of the messages since the last question, that included: a template may write results with the calls."""
        for other in range(k - 1, -1, -1):
            if region := self.changed(view, other):
                yield region
                if self.messages[other]["role"] not in ("tool", "assistant"):
                    return
