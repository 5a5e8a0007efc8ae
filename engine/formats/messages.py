"""A list of messages as people write it -> the one form the engine trains on, or what is wrong with it.

In: OpenAI's role/content, ShareGPT's from/value, content as a text or as text parts, tool arguments as a JSON string.
Out: dicts with `role` (system, user, assistant, tool) and `content`, where given `tool_calls` (arguments as objects,
for chat templates), `tool_call_id`, `name`, `reasoning_content`, `weight`. A conversation has at most one system
message, at its start, at least one user message, and ends with the assistant.
"""

import json
from typing import Any

from engine.formats.faults import RowFault, kind, unencodable
from engine.formats.jsonrows import parse

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": "call",
    "tool_call": "call",
}
_MEDIA = ("image", "audio", "video", "file")


def read_messages(items: Any, column: str) -> list[dict]:
    """Every message of one conversation in the engine's form; the order is checked by `check_order`."""
    items = as_list(items, column)
    return [_read_message(item, f"{column}[{index}]") for index, item in enumerate(items)]


def as_list(value: Any, column: str) -> list:
    """A list, also where it is written as JSON inside a text (in CSV cells)."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse(value)
        except ValueError as error:
            raise RowFault("bad-json", f"'{column}' holds JSON that does not parse: {error}", value) from None
    if not isinstance(value, (list, tuple)):
        raise RowFault("wrong-type", f"'{column}' is {kind(value)}; it must be a list", value)
    return list(value)


def _read_message(item: Any, where: str) -> dict:
    if not isinstance(item, dict):
        raise RowFault("wrong-type", f"'{where}' is {kind(item)}; a message has a role and a content", item)
    key = "from" if item.get("role") is None and "from" in item else "role"
    role = item.get(key)
    if role is None:
        raise RowFault("no-role", f"'{where}' has no '{key}'; use system, user, assistant or tool", item)
    if not isinstance(role, str) or role.strip().lower() not in _ROLES:
        shown = f"'{role}'" if isinstance(role, str) else kind(role)
        names = "system, human, gpt or tool" if key == "from" else "system, user, assistant or tool"
        raise RowFault("bad-role", f"'{where}.{key}' is {shown[:60]}; use {names}", item)
    role = _ROLES[role.strip().lower()]
    field = "value" if "value" in item and item.get("content") is None else "content"
    content = item.get(field)
    if role == "call":
        return {"role": "assistant", "content": None, "tool_calls": _written_calls(content, f"{where}.{field}")}
    message: dict[str, Any] = {"role": role, "content": _content(content, role, f"{where}.{field}", item)}
    if role == "assistant":
        calls = item.get("tool_calls")
        if not calls and item.get("function_call"):
            calls = [item["function_call"]]
        if calls:
            calls = as_list(calls, f"{where}.tool_calls")
            message["tool_calls"] = [_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(calls)]
        thought = item.get("reasoning_content")
        if isinstance(thought, str) and thought:
            message["reasoning_content"] = encodable(thought, f"{where}.reasoning_content")
        if item.get("weight") is not None:
            message["weight"] = _weight(item["weight"], where)
    for name in ("name", "tool_call_id"):
        if isinstance(item.get(name), str) and item[name]:
            message[name] = encodable(item[name], f"{where}.{name}")
    _check_filled(message, f"{where}.{field}", item)
    return message


def _weight(weight: Any, where: str) -> int:
    if isinstance(weight, (int, float)) and weight in (0, 1):
        return int(weight)
    raise RowFault("bad-weight", f"'{where}.weight' must be 0 or 1", weight)


def _check_filled(message: dict, where: str, item: Any) -> None:
    content = message["content"]
    if content and content.strip():
        return
    if message["role"] == "assistant" and not message.get("tool_calls"):
        raise RowFault("empty-answer", f"the assistant's answer is empty ('{where}')", item)
    if message["role"] == "user":
        raise RowFault("empty-prompt", f"the user's message is empty ('{where}')", item)
    if content is None and message["role"] != "assistant":
        message["content"] = ""


def _content(content: Any, role: str, where: str, item: dict) -> str | None:
    if content is None or isinstance(content, str):
        return None if content is None else encodable(content, where)
    if isinstance(content, (list, tuple)) and role != "tool":
        return "".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))
    if role == "tool" and isinstance(content, (dict, list)):
        if isinstance(content, list) and content and all(isinstance(part, dict) and "text" in part for part in content):
            return "".join(_part(part, f"{where}[{index}]") for index, part in enumerate(content))
        # A tool's result that is data and not text: the model sees it as JSON.
        return encodable(json.dumps(content, ensure_ascii=False), where)
    raise RowFault("wrong-type", f"'{where}' is {kind(content)}; it must be a text", item)


def _part(part: Any, where: str) -> str:
    if isinstance(part, str):
        return encodable(part, where)
    if not isinstance(part, dict):
        raise RowFault("wrong-type", f"'{where}' is {kind(part)}; a content part has a type and a text", part)
    part_type = str(part.get("type", "text"))
    for medium in _MEDIA:
        if medium in part_type:
            plural = "audio" if medium == "audio" else f"{medium}s"
            raise RowFault("not-text", f"{plural} are not supported ('{where}' is of type '{part_type[:40]}')", part)
    text = part.get("text", part.get("refusal"))
    if not isinstance(text, str):
        raise RowFault("wrong-type", f"'{where}.text' is {kind(text)}; it must be a text", part)
    return encodable(text, where)


def _written_calls(value: Any, where: str) -> list[dict]:
    """ShareGPT's function_call: one call or a list of them as JSON text."""
    if isinstance(value, str):
        try:
            value = parse(value)
        except ValueError as error:
            raise RowFault("bad-tool-call", f"'{where}' holds JSON that does not parse: {error}", value) from None
    calls = value if isinstance(value, list) else [value]
    if not calls:
        raise RowFault("bad-tool-call", f"'{where}' holds no call", value)
    return [_call(call, where) for call in calls]


def _call(call: Any, where: str) -> dict:
    function = call.get("function", call) if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise RowFault("bad-tool-call", f"'{where}' names no function", call)
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        try:
            arguments = parse(arguments) if arguments.strip() else {}
        except ValueError as error:
            message = f"the arguments of '{name[:40]}' ('{where}') are JSON that does not parse: {error}"
            raise RowFault("bad-tool-call", message, arguments) from None
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        message = f"the arguments of '{name[:40]}' ('{where}') are {kind(arguments)}; they must be an object"
        raise RowFault("bad-tool-call", message, call)
    encodable(json.dumps(arguments, ensure_ascii=False, default=str), f"{where}.arguments")
    read = {"type": "function", "function": {"name": encodable(name, where), "arguments": arguments}}
    return {"id": encodable(call["id"], where), **read} if isinstance(call.get("id"), str) else read


def read_tools(value: Any, column: str) -> tuple[dict, ...]:
    """The tools a conversation may use, each as {'type': 'function', 'function': {...}}."""
    if value is None or value == "":
        return ()
    tools = []
    for index, tool in enumerate(as_list(value, column)):
        if isinstance(tool, dict) and "function" not in tool and isinstance(tool.get("name"), str):
            tool = {"type": "function", "function": tool}
        if not isinstance(tool, dict) or not isinstance(tool.get("function"), dict):
            raise RowFault("bad-tools", f"'{column}[{index}]' describes no function", tool)
        encodable(json.dumps(tool, ensure_ascii=False, default=str), f"{column}[{index}]")
        tools.append(tool)
    return tuple(tools)


def encodable(text: str, where: str) -> str:
    """The text itself, unless no tokenizer could take it."""
    fault = unencodable(text)
    if fault:
        raise RowFault(fault[0], f"'{where}' holds {fault[1]}", text)
    return text


def check_order(messages: list[dict], column: str) -> int:
    """How many messages at the end have no answer; RowFault when the roles are in an order that cannot be learnt."""
    roles = [message["role"] for message in messages]
    if not roles:
        raise RowFault("no-messages", f"'{column}' is empty, nothing to learn from")
    if "system" in roles[1:]:
        index = roles.index("system", 1)
        raise RowFault("role-order", f"'{column}[{index}]' is a system message; only the first message may be one")
    if "assistant" not in roles:
        raise RowFault("no-assistant", "no assistant message, nothing to learn from")
    last = len(roles) - 1 - roles[::-1].index("assistant")
    if "user" not in roles[: last + 1]:
        raise RowFault("no-user", "no user message before the assistant's, nothing to answer")
    called = False
    for index, message in enumerate(messages[: last + 1]):
        if message["role"] == "tool" and not called:
            raise RowFault("role-order", f"'{column}[{index}]' is a tool's result, but no tool was called before it")
        called = bool(message.get("tool_calls")) or (called and message["role"] == "tool")
    if all(message.get("weight") == 0 for message in messages[: last + 1] if message["role"] == "assistant"):
        raise RowFault("no-weight", "every assistant message has weight 0, nothing to learn from")
    return len(roles) - 1 - last
