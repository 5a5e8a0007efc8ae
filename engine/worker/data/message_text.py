"""What a message says, looked for in a rendered text, and the same message saying something else."""

import json
from collections.abc import Callable, Iterator
from typing import Any

THOUGHTS = ("reasoning_content", "thinking", "reasoning")


def has_thoughts(message: dict[str, Any]) -> bool:
    return not message.keys().isdisjoint(THOUGHTS) and any(message.get(key) for key in THOUGHTS)


class Loose:
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


def leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, str):
        yield value
    elif value is not None and not isinstance(value, bool):
        yield json.dumps(value)


def otherwise(message: dict[str, Any]) -> dict[str, Any]:
    """The message with other words in all it says."""
    if message["role"] == "tool" and not message.get("content"):
        return message | {"content": _unlike("")}  # where it would stand
    return other_arguments(other_thoughts(other_content(message)))


def other_content(message: dict[str, Any]) -> dict[str, Any]:
    return message | {"content": _unlike(message["content"])} if message.get("content") else message


def other_thoughts(message: dict[str, Any]) -> dict[str, Any]:
    return message | {key: _unlike(message[key]) for key in THOUGHTS if message.get(key)}


def other_arguments(message: dict[str, Any], only: int | None = None) -> dict[str, Any]:
    """With other arguments in each of its calls, or in one."""
    return _other_calls(message, only, lambda function: {"arguments": _unlike_in(function["arguments"])})


def other_names(message: dict[str, Any]) -> dict[str, Any]:
    return _other_calls(message, None, lambda function: {"name": _unlike(function["name"])})


def _other_calls(message: dict[str, Any], only: int | None, change: Callable[[dict], dict]) -> dict[str, Any]:
    calls = [
        call | {"function": call["function"] | change(call["function"])} if only in (None, number) else call
        for number, call in enumerate(message.get("tool_calls") or ())
    ]
    return message | {"tool_calls": calls} if calls else message


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
