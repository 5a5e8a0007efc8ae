"""Where a chat template puts a thought, observed in a conversation of unmistakable words.

Many models write `<think>…</think>`; others have a channel of their own for thoughts: Gemma 4 `<|channel>thought` to
`<channel|>`, gpt-oss a message of its own before the answer's.
"""

import os
import re
from typing import NamedTuple

from engine.base.errors import DataError
from engine.metrics.reasoning import TAGS
from engine.worker.data.rendering import Rendering
from engine.worker.data.turn_ends import TOOL

_USER, _THOUGHT, _REPLY = "kqzask", "kqzthought", "kqzsaid"
_MARK = re.compile(r"<+[^<>\s]+>+|\[+[^\[\]\s]+\]+|◁[^◁▷\s]+▷")
"""What looks like a tag or a control token."""
_ASK = {"role": "user", "content": _USER}
_ANSWER = {"role": "assistant", "content": _REPLY}
_CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "id": "kqz456789", "function": {"name": _REPLY, "arguments": {}}}],
}


class Channel(NamedTuple):
    """What stands before and behind a thought, without the white space around them. `opening` is empty where the model
    begins with the thought."""

    opening: str
    closing: str


def learn(rendering: Rendering) -> Channel | None:
    """The template's channel; None where it writes no thought that is apart from the content, or nothing around it."""
    for message, tools in ((_ANSWER, ()), (_CALL, (TOOL,))):  # some write the thoughts of calls only
        try:
            prompt = rendering.text([_ASK], tools, prompt=True)
            thinking = rendering.text([_ASK, message | {"reasoning_content": _THOUGHT}], tools)
            plain = rendering.text([_ASK, message], tools)
        except DataError:
            continue
        head, thought, behind = thinking.partition(_THOUGHT)
        if thought and _REPLY in behind:
            between, plain = behind.partition(_REPLY)[0], plain.rpartition(_REPLY)[0]
            opening = _opening(head, prompt, plain)
            closing = _closing(between, plain[_shared(plain, prompt) :], opening)
            if head[_shared(head, plain) :].strip() or plain.rpartition(opening)[2].strip().startswith(closing):
                return Channel(opening, closing) if closing else None
            return Channel("", closing) if closing else None  # the last mark before it is the turn's own
    return None


def _opening(head: str, prompt: str, plain: str) -> str:
    """What the model writes between its prompt and the thought; where the prompt or a turn without a thought has that,
    too, from the last mark on."""
    if head.startswith(prompt) and (written := head[len(prompt) :].strip()):
        return written
    marks = list(_MARK.finditer(head))
    return head[_shared(head, plain) :].strip() or (head[marks[-1].start() :].strip() if marks else "")


def _shared(text: str, other: str) -> int:
    """How many characters two texts begin with alike, no mark of either cut in two."""
    shared = len(os.path.commonprefix((text, other)))
    marks = [*_MARK.finditer(text), *_MARK.finditer(other)]
    return min([mark.start() for mark in marks if mark.start() < shared < mark.end()], default=shared)


def _closing(between: str, plain: str, opening: str) -> str:
    """Of what stands between a thought and the answer, the part that is not there without a thought."""
    if closing := dict(TAGS).get(opening):
        return closing
    if opening in plain:  # an empty thought
        mark = _MARK.search(between)
        return between[: mark.end()].strip() if mark else between.strip()
    shared = len(os.path.commonprefix((between[::-1], plain[::-1])))
    return between[: len(between) - shared].strip()
