"""The words of a message, searched for in a rendered text, and the same message with other words."""

import json
from collections.abc import Callable, Iterator
from typing import Any

THOUGHTS = ("reasoning_content", "thinking", "reasoning")


def has_thoughts(message: dict[str, Any]) -> bool:
    """Whether it has a thought beside its content."""
    return not message.keys().isdisjoint(THOUGHTS) and any(message.get(key) for key in THOUGHTS)


class Loose:
    """A text that is searched for words regardless of white space and JSON's escapes."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._bare: str | None = None
        """The text without white space; made at first use."""

    def __contains__(self, words: str) -> bool:
        if words in self._text:
            return True
        if self._bare is None:
            self._bare = "".join(self._text.split())
        bare = "".join(words.split())
        return bare in self._bare or json.dumps(bare, ensure_ascii=False)[1:-1] in self._bare

    def count(self, words: str) -> int:
        """How often the words occur as they are."""
        return self._text.count(words)


def leaves(node: Any) -> Iterator[str]:
    """The texts and, as JSON writes them, the numbers in JSON-like values."""
    if isinstance(node, dict):
        for child in node.values():
            yield from leaves(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from leaves(child)
    elif isinstance(node, str):
        yield node
    elif node is not None and not isinstance(node, bool):
        yield json.dumps(node)


def otherwise(message: dict[str, Any]) -> dict[str, Any]:
    """The message with other words throughout."""
    if message["role"] == "tool" and not message.get("content"):
        return message | {"content": _unlike("")}  # shows where it would stand
    return other_arguments(other_thoughts(other_content(message)))


def other_content(message: dict[str, Any]) -> dict[str, Any]:
    """With another content, where it has one."""
    return message | {"content": _unlike(message["content"])} if message.get("content") else message


def other_thoughts(message: dict[str, Any]) -> dict[str, Any]:
    """With other thoughts beside its content."""
    return message | {key: _unlike(message[key]) for key in THOUGHTS if message.get(key)}


def other_arguments(message: dict[str, Any], only: int | None = None) -> dict[str, Any]:
    """With other arguments in each of its calls, or in one."""
    return _other_calls(message, only, lambda function: {"arguments": _unlike_in(function["arguments"])})


def other_name(message: dict[str, Any]) -> dict[str, Any]:
    """With another name of who speaks."""
    return message | {"name": _unlike(message["name"])}


def other_names(message: dict[str, Any]) -> dict[str, Any]:
    """With other names of the functions it calls."""
    return _other_calls(message, None, lambda function: {"name": _unlike(function["name"])})


def _other_calls(message: dict[str, Any], only: int | None, change: Callable[[dict], dict]) -> dict[str, Any]:
    calls = [
        call | {"function": call["function"] | change(call["function"])} if only in (None, number) else call
        for number, call in enumerate(message.get("tool_calls") or ())
    ]
    return message | {"tool_calls": calls} if calls else message


def _unlike_in(argument: Any) -> Any:
    if isinstance(argument, dict):
        return {key: _unlike_in(child) for key, child in argument.items()}
    if isinstance(argument, list | tuple):
        return [_unlike_in(child) for child in argument]
    if isinstance(argument, str):
        return _unlike(argument)
    if isinstance(argument, bool) or argument is None:
        return argument if argument is None else not argument
    written = json.dumps(argument)
    return next(digit for digit in (3, 5, 7) if str(digit) not in (written[0], written[-1]))


def _unlike(text: str) -> str:
    """A text that differs from this one in its first and its last character."""
    stripped = text.strip()
    return ("B" if stripped[:1] == "A" else "A") + ("Z" if stripped[-1:] == "Y" else "Y")
