"""How a chat template begins and ends what the assistant writes, observed in conversations of unmistakable words.

A template does not say which token ends an answer, nor need the tokenizer: its end token may be that of documents. So
an answer, a call and two calls are rendered, last in a conversation and followed by more of it.
"""

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from engine.base.errors import DataError
from engine.worker.data.rendering import Rendering

_USER, _MORE, _ANSWER, _LAST = "kqzask", "kqzmore", "kqzanswer", "kqzlast"
_NAME, _ARGUMENT, _ONE, _TWO, _RESULT = "kqzname", "kqzargument", "kqzone", "kqztwo", "kqzresult"
_ID = "kqz456789"  # Mistral wants nine letters and digits
TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "It looks.",  # templates may read a description, and that of every parameter
        "parameters": {
            "type": "object",
            "properties": {_ARGUMENT: {"type": "string", "description": "It says where."}},
            "required": [_ARGUMENT],
        },
    },
}


@dataclass(frozen=True)
class TurnEnds:
    """What surrounds the assistant's turns, as texts."""

    openings: tuple[str, ...]
    """What a template may write between its generation prompt and a plain answer: nothing, or an empty thought. The
    first of them stands in the last turn."""
    closings: tuple[str, ...]
    """What it writes behind an answer or a call, up to the end of turn, the longest first. May be empty."""
    closing: str
    """The one of `closings` that stands behind a plain answer at a conversation's end."""
    stops: tuple[str, ...]
    """The tokens, as text, that end a turn: the last of each closing that stands at a conversation's end, and where
    there is none, the token that the next turn begins with."""
    after_call: str
    """The one of `stops` that ends a call; empty where none was observed."""
    header: str
    """What the generation prompt has behind the user's words."""
    trailer: str
    """The header that stands behind the end of turn at a conversation's end too, where a template always writes one."""
    marks_enclose_more: bool
    """`{% generation %}` blocks go on behind the end of turn."""


def observe(rendering: Rendering, added: Collection[str], leading: Collection[str]) -> TurnEnds:
    """Render the conversations. `added`: the texts of the tokenizer's added tokens; `leading`: those that only begin a
    text."""
    observed = _Seen(rendering, added, leading)
    observed.answers(())
    observed.answers((TOOL,))
    observed.calls()
    closings = sorted(set(observed.closings), key=len, reverse=True)
    return TurnEnds(
        tuple(dict.fromkeys(observed.openings)),
        tuple(closings),
        observed.closing,
        tuple(sorted(set(observed.stops))),
        observed.after_call,
        observed.header,
        observed.trailer,
        observed.marks_enclose_more,
    )


class _Seen:
    def __init__(self, rendering: Rendering, added: Collection[str], leading: Collection[str]) -> None:
        self._rendering = rendering
        self._leading = leading
        by_length = sorted(added, key=len, reverse=True)
        self._added = re.compile("|".join(map(re.escape, by_length)) or r"(?!)")
        self._turn_opener = ""
        self._always_opens = False
        self._own_header = ""
        self.openings: list[str] = []
        self.closings: list[str] = []
        self.stops: list[str] = []
        self.marks_enclose_more = False
        self.after_call = self.closing = self.header = self.trailer = ""

    def answers(self, tools: Sequence[dict]) -> None:
        talk = [_user(_USER), _assistant(_ANSWER), _user(_MORE), _assistant(_LAST)]
        for system in ([], [{"role": "system", "content": "kqzsystem"}]):
            whole = self._text([*system, *talk], tools)
            if whole and all(word in whole for word in (_USER, _ANSWER, _MORE, _LAST)):
                break
        else:
            return
        prompt = self._text([*system, *talk[:1]], tools, prompt=True)
        alone = self._text([*system, *talk[:2]], tools)
        opener = next((m[0] for m in self._added.finditer(whole[: whole.find(_USER)]) if m[0] not in self._leading), "")
        self._turn_opener = opener
        if prompt and _USER in prompt:
            self.header = prompt.rpartition(_USER)[2]
            for text in filter(None, (alone, whole)):
                if text.startswith(prompt) and _ANSWER in text[len(prompt) :]:
                    self.openings.append(text[len(prompt) :].partition(_ANSWER)[0])
        if self._rendering.has_marks(tools):
            _, marks = self._rendering.marked([*system, *talk], tools)
            self.marks_enclose_more |= any(whole[:end][-1:].isspace() for _, end in marks)
        self._always_opens = self._text([*system, *talk], tools, prompt=True) == whole
        last, between = whole.rpartition(_LAST)[2], whole.partition(_ANSWER)[2].partition(_MORE)[0]
        question = self._text([*system, *talk[:1]], tools)
        is_added = prompt != question and prompt.startswith(question)
        self._own_header = prompt[len(question) :] if is_added else self._header_of(last, between)
        self._end(last, between, "", plain=True)

    def calls(self) -> None:
        ask, result = (
            _user(_USER),
            {"role": "tool", "content": _RESULT, "name": _NAME, "tool_call_id": _ID},
        )
        last = self._text([ask, _calls(_ONE)], (TOOL,))
        if _ONE not in last:
            return
        self._always_opens = self._text([ask, _calls(_ONE)], (TOOL,), prompt=True) == last
        whole = self._text([ask, _calls(_ONE), result, _assistant(_LAST)], (TOOL,))
        pair = self._text([ask, _calls(_ONE, _TWO)], (TOOL,))
        last = last.rpartition(_ONE)[2]
        inner = pair.partition(_ONE)[2].partition(_TWO)[0] if _TWO in pair else self._without_end(last)
        between = whole.partition(_ONE)[2].partition(_RESULT)[0] if _RESULT in whole else ""
        self.after_call = self._end(last, between, inner, plain=False)

    def _without_end(self, last: str) -> str:
        """What closes a call itself, of a template that does not write two: what stands before the end of a plain
        turn, all where that has none, and nothing that is known where calls end otherwise."""
        ends = self._tokens(self.closing)
        own = last.removesuffix(self._own_header) if self._always_opens else last
        return own.rpartition(ends[0][0])[0] if ends else own

    def _end(self, last: str, between: str, inner: str, plain: bool) -> str:
        """Record what follows a turn that is the last (`last`), and what separates it from the next (`between`);
        `inner` separates two calls of one turn. Returns the token that ends it, if any."""
        shared = self._common(last, between)
        # A header that is written with and without a generation prompt is no part of what ends a turn.
        header = self._own_header if self._always_opens and last.endswith(self._own_header) else ""
        closing = self._closing(last.removesuffix(header), inner, plain)
        if closing:
            self.closings.append(closing)
            self.closing = self.closing or (closing if plain else "")
            self.trailer = max(self.trailer, header or last.partition(closing)[2].lstrip(), key=len)
            stop = self._tokens(closing)[-1][0]
            # Phi-3 writes its documents' end token behind the end of turn, where nothing follows.
            both = self._closing(shared, inner, plain)
            # Where a template writes one call only, what ends calls and what ends turns were not seen apart.
            if both and (plain or inner or self._tokens(both)[-1][0] in self.stops):
                self.closings.append(both)
                self.stops.append(self._tokens(both)[-1][0])
            elif plain and (other := self._closing(between, inner, plain)):
                self.closings.append(other)
        else:
            self.trailer = max(self.trailer, header, key=len)
            next_up = [m for m in self._tokens(between) if m[0] not in inner]
            if not next_up or (plain and between[: next_up[0].start()].strip()):
                return ""
            stop = next_up[0][0]
            if plain:
                self.closings.append(between[: next_up[0].end()])
        self.stops.append(stop)
        return stop

    def _common(self, text: str, other: str) -> str:
        """What both texts begin with, without a part of an added token: many begin with `<|`."""
        length = len(os.path.commonprefix((text, other)))
        cut = next((m.start() for m in self._tokens(text) if m.start() < length < m.end()), length)
        return text[:cut]

    def _header_of(self, last: str, between: str) -> str:
        """The header that a text ends with as generation prompts do, of a template that always writes one: from the
        token on that opens turns. Where each role has one of its own, that is the first that an earlier turn lacks."""
        common = os.path.commonprefix((last[::-1], self.header[::-1]))[::-1]
        at = common.rfind(self._turn_opener) if self._turn_opener else -1
        if at >= 0:
            return common[at:]
        shared = len(self._common(last, between)) - (len(last) - len(common))
        at = next((match.start() for match in self._tokens(common) if match.start() >= shared), len(common))
        is_end = not last.removesuffix(common[at:]).strip() and self._closing(between, "", plain=True)
        return "" if is_end else common[at:]

    def _closing(self, text: str, inner: str, plain: bool) -> str:
        """Up to the last added token, without the header of another turn; of a call, without its own tokens."""
        added = [m for m in self._tokens(text)]
        for number, match in enumerate(added):
            if match[0] == self._turn_opener or (match[0] in self._leading and number):
                added = added[:number]
                break
        if not added or added[-1][0] in inner:
            return ""
        begin = len(added) - 1
        while (
            begin
            and added[begin - 1][0] not in inner
            and not text[added[begin - 1].end() : added[begin].start()].strip()
        ):
            begin -= 1
        if plain and not text[: added[begin].start()].strip():
            return text[: added[-1].end()]
        return text[added[begin].start() : added[-1].end()]

    def _tokens(self, text: str) -> list[re.Match[str]]:
        return list(self._added.finditer(text))

    def _text(self, messages: list[dict], tools: Sequence[dict], prompt: bool = False) -> str:
        try:
            return self._rendering.text(messages, tools, prompt)
        except DataError:
            return ""


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _calls(*arguments: str) -> dict[str, Any]:
    calls = [
        {"type": "function", "id": _ID, "function": {"name": _NAME, "arguments": {_ARGUMENT: argument}}}
        for argument in arguments
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}
