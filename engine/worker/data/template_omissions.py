"""What a chat template leaves out of an answer that it writes, or of what is asked: reported by notes, or refused where
it is the answer."""

from collections.abc import Callable
from functools import partial

from engine.base.errors import DataError
from engine.base.messages import msg
from engine.formats.examples import Example
from engine.formats.turn_notes import (
    NAME_DROPPED,
    QUESTION_DROPPED,
    REASONING_DROPPED,
    RESULT_DROPPED,
    SYSTEM_DROPPED,
    TEXT_DROPPED,
    TOOLS_DROPPED,
)
from engine.worker.data.message_text import THOUGHTS, Loose, leaves, other_arguments, other_content, other_name
from engine.worker.data.rendered_chat import Region, RenderedChat, View

_OF_ROLE = {"system": SYSTEM_DROPPED, "user": QUESTION_DROPPED, "tool": RESULT_DROPPED}


def may_lack(text: str, example: Example, before: int) -> bool:
    """Whether `not_asked` must look: quick, since it is called for every row."""
    if example.tools:
        return True
    for message in example.messages[:before]:
        if message["role"] != "assistant":
            content = message["content"]
            if (content and content not in text and content.strip() not in text) or "name" in message:
                return True
    return False


def not_asked(chat: RenderedChat, text: str, before: int) -> tuple[str, ...]:
    """Notes on what the messages before this index say, on who says it, and on the tools, where the trained `text`
    lacks them and the template writes alike with others."""
    notes = []
    for k, message in enumerate(chat.messages[:before]):
        note, content = _OF_ROLE.get(message["role"]), (message["content"] or "").strip()
        if note and content and content not in text and content not in Loose(text) and _reads_alike(chat, k):
            notes.append(note)
        if message.get("name") and message["role"] != "tool" and _reads_alike(chat, k, other_name):
            notes.append(NAME_DROPPED)
    tools = chat.tools
    if tools and not all(leaf in text for leaf in leaves(tools[0])) and chat.without_tools() == chat.whole.text:
        notes.append(TOOLS_DROPPED)
    return tuple(dict.fromkeys(notes))


def _reads_alike(chat: RenderedChat, k: int, exchange: Callable[[dict], dict] | None = None) -> bool:
    try:
        return chat.changed(chat.whole, k, exchange) is None
    except DataError:
        return False  # a template that refuses other words has seen these


def left_out(chat: RenderedChat, view: View, k: int, span: Region) -> tuple[str, ...]:
    """Notes on the thought, or on the words beside a call, that answer `k` lacks in this range of the text. Raises
    DataError when it lacks the answer itself, or a call."""
    message, calls = chat.messages[k], chat.calls(k)
    written = Loose(view.text[span[0] : span[1]])
    notes: tuple[str, ...] = ()
    content = (message["content"] or "").strip()
    thought = next((message[key] for key in THOUGHTS if message.get(key)), "")
    inline, closed, answer = content.rpartition("</think>")
    if closed and content not in written:
        thought, content = inline.replace("<think>", ""), answer.strip()
    if thought.strip() and thought not in written:
        notes += (REASONING_DROPPED,)
    if content and content not in written and not _holds(chat, view, k, span, other_content):
        if not calls:
            raise DataError("the chat template leaves out the assistant's answer")
        notes += (TEXT_DROPPED,)
    names = [call["function"]["name"] for call in calls]
    for number, call in enumerate(calls):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        if names.index(name) == number and written.count(name) < names.count(name):
            raise DataError("the chat template leaves out the assistant's tool calls")
        if not all(leaf in written for leaf in leaves(arguments)) and not _holds(
            chat, view, k, span, partial(other_arguments, only=number)
        ):
            raise DataError(
                msg("the chat template leaves out the arguments of the assistant's call of {name}", name=name)
            )
    return notes


def _holds(chat: RenderedChat, view: View, k: int, span: Region, exchange: Callable[[dict], dict]) -> bool:
    """Whether other words in the message would be seen in the span: a template may write them in its own way."""
    region = chat.changed(view, k, exchange) if k < view.count else None
    return region is not None and region[0] < span[1] and region[1] > span[0]
