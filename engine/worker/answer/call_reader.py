"""Tool calls in what a model writes, by the form in which its chat template writes one.

There is no table of models: a call with unmistakable name and arguments is rendered, and what stands around them is the
form. It is JSON with the name in it (Qwen, Llama, Mistral), the name and behind it the arguments as JSON (GLM-4,
DeepSeek), or the name and behind it each argument by its key (Qwen3.5, GLM-4.5, Gemma 4).
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.base.errors import DataError
from engine.formats.examples import Example
from engine.worker.data.chat_template import ChatTemplate
from engine.worker.data.token_text import token_text
from engine.worker.data.turn_ends import TOOL

_NAME: str = TOOL["function"]["name"]  # type: ignore[index]
_KEYS, _VALUES = ("kqzat", "kqzof"), ("kqzcall", "kqzmore")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class CallForm:
    """How a template writes a call; `known` is False where it writes none, or in a form that is not read."""

    opener: str = ""
    """What stands before the JSON, or before the name."""
    between: str | None = None
    """What stands between the name and the arguments, or the first key; None: all is in one JSON value."""
    assigns: str = ""
    """What stands between key and value; empty: the arguments are JSON."""
    next_key: str = ""
    """What stands between a value and the next key."""
    closer: str = ""
    """What stands behind the last value."""
    again: str = ""
    """What stands between the arguments of one call and the name of the next, where these are not in JSON."""
    known: bool = False

    @staticmethod
    def seen(template: ChatTemplate) -> "CallForm":
        """Observed in a rendered call, and in two."""
        one = _rendered(template, [_NAME])
        form = _form_of(one) if one else CallForm()
        two = _rendered(template, [_NAME, _NAME]) if form.between is not None else ""
        if not two or two.count(_NAME) != 2:
            return form
        first = two.index(_VALUES[1]) + len(_VALUES[1])
        between_calls = two[first : two.rindex(_NAME)]
        if not form.assigns:
            return replace(form, again=between_calls.partition("}")[2])
        closer = os.path.commonprefix((form.closer, between_calls)).rstrip("<")
        return replace(form, again=between_calls.removeprefix(closer), closer=closer)


def _rendered(template: ChatTemplate, names: Sequence[str]) -> str:
    """A turn of such calls, without its end and without a thought; empty where the template refuses it."""
    arguments = dict(zip(_KEYS, _VALUES, strict=True))
    calls = [
        {"id": f"kqz45678{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, name in enumerate(names)
    ]
    talk = ({"role": "user", "content": "Look."}, {"role": "assistant", "content": None, "tool_calls": calls})
    encoded = template.encode_chats([Example(messages=talk, tools=(TOOL,))])[0]
    if isinstance(encoded, DataError) or not encoded.turns:
        return ""
    turn = encoded.turns[-1]
    ids = encoded.ids[turn.start : turn.end].tolist()
    while ids and ids[-1] in template.stop_token_ids:
        ids.pop()
    text = token_text(template.tokenizer, ids)
    for _, closes in template.thought_tags:  # a thought may stand before a call, or none
        text = text.rpartition(closes)[2]
    return text.lstrip()


def _form_of(text: str) -> CallForm:
    arguments = dict(zip(_KEYS, _VALUES, strict=True))
    name, value = text.find(_NAME), text.find(_VALUES[0])
    if not 0 <= name < value:
        return CallForm()
    for begin in (at for at in range(name) if text[at] in "{["):
        if _calls_in(text[begin:], {_NAME}):
            return CallForm(text[:begin], known=True)
    opener, behind = text[:name], name + len(_NAME)
    for begin in (at for at in range(behind, value) if text[at] == "{"):
        decoded = _decoded(text[begin:])
        if decoded is not None and decoded[0] == arguments:
            return CallForm(opener, text[behind:begin], known=True)
    parts = re.split("|".join((*_KEYS, *_VALUES)), text[behind:])
    if len(parts) == 5 and parts[1] == parts[3] and parts[1].strip() and parts[4].strip():
        between, assigns, next_key, _, closer = parts
        return CallForm(opener, between, assigns, next_key, closer, known=True)
    return CallForm()


class CallReader:
    """The text of one answer on its way: what may be a call is kept until the answer has ended."""

    def __init__(self, form: CallForm, tools: Sequence[Mapping[str, Any]]) -> None:
        """`tools`: those that may be called, as a request has them."""
        self._form = form
        self._tools = {tool["function"]["name"]: tool["function"] for tool in tools}
        self._opener = form.opener.strip()
        self._kept = ""
        self._is_call = self._is_text = False

    def push(self, text: str) -> str:
        """What of it is plain text."""
        if not self._form.known:
            return text
        self._kept += text
        if self._is_call or (not self._opener and not self._is_text and self._may_be_call(self._kept.lstrip())):
            return ""
        at = self._kept.find(self._opener) if self._opener else -1
        if at >= 0:
            self._is_call = True
            out, self._kept = self._kept[:at], self._kept[at:]
            return out
        self._is_text = True
        longest = max((n for n in range(1, len(self._opener)) if self._kept.endswith(self._opener[:n])), default=0)
        cut = len(self._kept) - longest
        out, self._kept = self._kept[:cut], self._kept[cut:]
        return out

    def _may_be_call(self, begun: str) -> bool:
        """Where nothing marks a call, only an answer that is nothing else is one."""
        if self._form.between is None:
            return begun[:1] in ("{", "[", "")
        return any(name.startswith(begun) or begun.startswith(name) for name in self._tools)

    def finish(self) -> tuple[str, list[dict[str, str]]]:
        """The text that is left, and the calls, each with `name` and `arguments`, which are JSON."""
        kept = self.kept()
        calls = self._read(kept) if kept else []
        return ("", calls) if calls else (kept, [])

    def kept(self) -> str:
        """What has been held back, as text."""
        kept, self._kept = self._kept, ""
        return kept

    def _read(self, text: str) -> list[dict[str, str]]:
        calls: list[dict[str, str]] = []
        starts = [re.escape(mark) for mark in (self._form.again.strip(), self._opener) if mark]
        pieces = re.split("|".join(starts), text) if starts else [text]
        pieces = pieces[1:] if self._opener else pieces
        for piece in pieces:
            is_named = self._form.between is not None
            calls_here = self._named(piece) if is_named else _calls_in(piece.lstrip(), set(self._tools))
            if not calls_here:
                return []
            calls += calls_here
        return calls

    def _named(self, piece: str) -> list[dict[str, str]]:
        between = _loose(self._form.between or "")
        names = "|".join(map(re.escape, sorted(self._tools, key=len, reverse=True)))
        match = re.match(rf"\s*({names})(?![\w.-]){between}", piece)
        if match is None:
            return []
        behind_name = piece[match.end() :]
        if self._form.assigns:
            arguments: Any = self._by_keys(match[1], behind_name)
        else:
            arguments = (_decoded(behind_name.lstrip()) or (None,))[0]
        if not isinstance(arguments, dict):
            return []
        return [{"name": match[1], "arguments": json.dumps(arguments, ensure_ascii=False)}]

    def _by_keys(self, name: str, text: str) -> dict[str, Any] | None:
        """Arguments written one by one; those that are no texts by the tool's own schema are read as JSON."""
        properties = (self._tools[name].get("parameters") or {}).get("properties") or {}
        end = re.search(_loose(self._form.closer), text)
        if end is None:
            return None
        arguments = {}
        for item in re.split(_loose(self._form.next_key), text[: end.start()]):
            assigned = re.search(_loose(self._form.assigns), item)
            if assigned is None:
                return None
            key, value = item[: assigned.start()].strip(), item[assigned.end() :].strip("\n")
            schema = properties.get(key)
            is_text = isinstance(schema, dict) and schema.get("type") == "string"
            decoded = None if is_text else _decoded(value.strip())
            arguments[key] = value if decoded is None or value.strip()[decoded[1] :] else decoded[0]
        return arguments


def _loose(text: str) -> str:
    """A pattern for it, whatever white space stands in it or beside it."""
    return r"\s*" + r"\s*".join(map(re.escape, text.split())) + r"\s*" if text.strip() else r"\s*"


def _decoded(text: str) -> tuple[Any, int] | None:
    try:
        return _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None


def _calls_in(text: str, names: set[str]) -> list[dict[str, str]]:
    """The calls in the JSON value that the text begins with, or in several one behind the other."""
    calls = []
    while text:
        decoded = _decoded(text)
        if decoded is None:
            break
        value, end = decoded
        for call in value if isinstance(value, list) else [value]:
            call = call.get("function", call) if isinstance(call, dict) else None
            if not isinstance(call, dict):
                return []
            name, arguments = call.get("name", call.get("tool_name")), call.get("arguments", call.get("parameters", {}))
            if isinstance(arguments, str):
                arguments = (_decoded(arguments) or (None,))[0]
            if name not in names or not isinstance(arguments, dict):
                return []
            calls.append({"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)})
        text = text[end:].lstrip().lstrip(";,").lstrip()
        if not text.startswith(("{", "[")):
            break
    return calls
