"""Calls of tools and what tools there are, as people write them -> as chat templates want them."""

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

from engine.base.messages import msg
from engine.formats.json_lines import parse
from engine.formats.list_values import as_list
from engine.formats.row_errors import RowRejected, encodable, kind

_CALL_IN_TEXT = re.compile(
    # Hermes, glaive, Llama, Mistral, ReAct: a tag or a mark that announces a call.
    r"<\|?/?(?:tool|function)[_ ]?calls?\b|<function=|<functioncall>|<\|python_tag\|>|\[TOOL_CALLS\]|^Action\s*:"
    # ToolACE: [name(key="value"), …]; or the call itself as JSON.
    r"|\A\s*\[[^\[\](]+\(.*\)|\A\s*(?:```\w*\s*)?[\[{].*\"(?:name|function|action|tool)\"\s*:",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
_LOOKED_AT = 20_000
"""Characters of an answer in which a call is looked for."""


def calls_a_tool(message: dict) -> bool:
    """Whether a message calls, be it in an answer's text; a tool's results may follow it."""
    if message["role"] != "assistant":
        return False
    return bool(message.get("tool_calls") or _CALL_IN_TEXT.search((message["content"] or "")[:_LOOKED_AT]))


def calls_of_tools(text: str, tools: tuple[dict, ...]) -> list[dict] | None:
    """The calls in an answer that is nothing but JSON calls of these tools (xLAM); None for any other answer."""
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        calls = written_calls(text, "answer")
    except RowRejected:
        return None
    names = {tool["function"].get("name") for tool in tools}
    return calls if all(call["function"]["name"] in names for call in calls) else None


def written_calls(value: Any, where: str) -> list[dict]:
    """ShareGPT's function_call: one call or a list of them as JSON text."""
    if isinstance(value, str):
        try:
            value = parse(value)
        except ValueError as error:
            raise RowRejected(
                "bad-tool-call",
                msg("'{where}' holds JSON that does not parse: {error}", where=where, error=error),
                value,
            ) from None
    calls = value if isinstance(value, list) else [value]
    if not calls:
        raise RowRejected("bad-tool-call", msg("'{where}' holds no call", where=where), value)
    return [read_call(call, where) for call in calls]


def read_call(call: Any, where: str) -> dict:
    function = call.get("function", call) if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name:
        raise RowRejected("bad-tool-call", msg("'{where}' names no function", where=where), call)
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        try:
            arguments = parse(arguments) if arguments.strip() else {}
        except ValueError as error:
            message = msg(
                "the arguments of '{name}' ('{where}') are JSON that does not parse: {error}",
                name=name[:40],
                where=where,
                error=error,
            )
            raise RowRejected("bad-tool-call", message, arguments) from None
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        message = msg(
            "the arguments of '{name}' ('{where}') are {arguments}; they must be an object",
            name=name[:40],
            where=where,
            arguments=kind(arguments),
        )
        raise RowRejected("bad-tool-call", message, call)
    encodable(json.dumps(arguments, ensure_ascii=False, default=str), f"{where}.arguments")
    read = {"type": "function", "function": {"name": encodable(name, where), "arguments": arguments}}
    return {"id": encodable(call["id"], where), **read} if isinstance(call.get("id"), str) else read


def read_tools(value: Any, column: str) -> tuple[dict, ...]:
    """The tools a conversation may use, each as {'type': 'function', 'function': {...}}."""
    if value is None or value == "":
        return ()
    tools = []
    for index, tool in enumerate(_declared(as_list(value, column))):
        if isinstance(tool, dict) and "function" not in tool and isinstance(tool.get("name"), str):
            if "parameters" not in tool and "input_schema" in tool:  # Anthropic
                tool = {"parameters" if key == "input_schema" else key: value for key, value in tool.items()}
            tool = {"type": "function", "function": tool}
        if not isinstance(tool, dict) or not isinstance(tool.get("function"), dict):
            raise RowRejected(
                "bad-tools", msg("'{column}[{index}]' describes no function", column=column, index=index), tool
            )
        encodable(json.dumps(tool, ensure_ascii=False, default=str), f"{column}[{index}]")
        tools.append(tool)
    return tuple(tools)


def _declared(tools: list) -> Iterator[Any]:
    """Each tool, also where it is JSON text (columns of texts in Parquet), or several stand in one (Gemini)."""
    for tool in tools:
        if isinstance(tool, str):
            with contextlib.suppress(ValueError):
                tool = parse(tool)
        inner = tool.get("functionDeclarations", tool.get("function_declarations")) if isinstance(tool, dict) else None
        yield from inner if isinstance(inner, list) else [tool]
