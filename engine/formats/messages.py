"""A list of messages as people write it -> the one form the engine trains on, or what is wrong with it.

In: OpenAI's role/content, ShareGPT's from/value, content as a text or as text parts, tool arguments as a JSON string,
texts by turns, pairs of question and answer. Out: dicts with `role` (system, user, assistant, tool) and `content`,
where given `tool_calls` (arguments as objects, for chat templates), `tool_call_id`, `name`, `reasoning_content`,
`weight`, in a system message `tools`. A conversation has at most one system message, at its start, a user or a system
message before the assistant's, and ends with the assistant.
"""

import json
import re
from typing import Any

from engine.base.messages import msg
from engine.formats.columns import normalise
from engine.formats.list_values import as_list, holds_text
from engine.formats.media import refuse_media
from engine.formats.preference import is_verdict
from engine.formats.row_errors import RowRejected, encodable, kind
from engine.formats.tool_calls import calls_a_tool, read_call, read_tools, written_calls

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "chatbot": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "function_call": "call",
    "tool_call": "call",
}
_MEDIA = ("image", "audio", "video", "file")
_PART_TEXTS = ("text", "refusal", "value")
"""Keys of a part's text: OpenAI's, a refusal of OpenAI's, LLaMA-Factory v1's."""
_READ_KEYS = frozenset({"role", "from", "content", "value", "name", "tool_call_id"})
_ASSISTANT_KEYS = ("tool_calls", "function_call", "refusal")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_WEIGHTS = ("weight", "loss_weight")
_TRAINED = ("loss", "train", "output_with_loss")
"""Whether an assistant message is trained on: as a number (OpenAI, LLaMA-Factory), as a truth (swift, axolotl,
XTuner)."""
_ASKED = ("human", "user", "input", "question", "prompt", "instruction", "query")
_ANSWERED = ("assistant", "gpt", "bot", "output", "answer", "response", "completion")
_SPOKEN = re.compile(r"\s*(问|答|用户|助手|Human|Assistant|User|Q|A)\s*[:：]\s*")
_OPENING = re.compile(r"\s*(Human|User|问|用户)\s*[:：]")
_AWAITING = re.compile(r"\n[ \t]*(Assistant|AI|答|助手)[ \t]*[:：]\Z")


def read_messages(items: Any, column: str, unread: set[str] | None = None) -> list[dict]:
    """Every message of one conversation in the engine's form; the order is checked by `check_order`.

    Names of keys that hold text and are not understood are added to `unread`.
    """
    items = as_list(items, column)
    if items and isinstance(items[0], str) and all(isinstance(item, str) for item in items):
        return _by_turns(items, column)
    unread = set() if unread is None else unread
    messages: list[dict] = []
    for index, item in enumerate(items):
        pair = None if isinstance(item, dict) and "role" in item else _pair_keys(item)
        if pair:
            messages += _read_pair(item, pair, f"{column}[{index}]", unread, first=not messages)
        else:
            messages.append(_read_message(item, f"{column}[{index}]", unread))
    return messages


def _by_turns(texts: list[str], column: str) -> list[dict]:
    """LIMA, UltraChat, HuatuoGPT: question and answer by turns, where marked as such without the mark."""
    marks = [mark for text in texts if (mark := _SPOKEN.match(text))]
    if (
        len(marks) == len(texts)
        and len({mark[1] for mark in marks[::2]}) == 1
        and marks[0][1] not in {m[1] for m in marks[1::2]}
    ):
        texts = [text[mark.end() :] for text, mark in zip(texts, marks, strict=True)]
    messages = []
    for index, text in enumerate(texts):
        message = {"role": ("user", "assistant")[index % 2], "content": encodable(text, f"{column}[{index}]")}
        _check_filled(message, f"{column}[{index}]", text)
        messages.append(message)
    return messages


def read_transcript(text: str, where: str) -> list[dict] | None:
    """The turns of a question that is a conversation up to the next answer: 'Human: … Assistant:' (BELLE, HH).

    None for any other text: it must begin as a person speaks and end where the assistant would.
    """
    text = text.strip()
    spoken = _OPENING.match(text)
    if not spoken:
        return None
    awaiting = _AWAITING.search(text)
    if not awaiting:
        return None
    asks, answers = spoken[1], awaiting[1]
    pieces = re.split(rf"(?:\A|\n)[ \t]*({re.escape(asks)}|{re.escape(answers)})[ \t]*[:：]", text)
    speakers, contents = pieces[1::2], [piece.strip() for piece in pieces[2::2]]
    if asks == answers or speakers != [asks, answers] * (len(speakers) // 2) or not all(contents[:-1]):
        return None
    return [
        {"role": ("user", "assistant")[index % 2], "content": encodable(turn, where)}
        for index, turn in enumerate(contents[:-1])
    ]


def _pair_keys(item: Any) -> tuple[str, str] | None:
    """The keys of question and answer where an item holds both (Firefly, Capybara) and has no role."""
    if not isinstance(item, dict) or "role" in item or "from" in item:
        return None
    by_name = {normalise(key): key for key in item if isinstance(key, str)}
    question_key = next((by_name[name] for name in _ASKED if name in by_name), None)
    answered = next((by_name[name] for name in _ANSWERED if name in by_name), None)
    return (question_key, answered) if question_key and answered else None


def _read_pair(item: dict, keys: tuple[str, str], where: str, unread: set[str], first: bool) -> list[dict]:
    """Question and answer; before the first of them a system prompt (XTuner)."""
    messages: list[dict[str, Any]] = []
    system = item.get("system") if first else None
    if isinstance(system, str) and system.strip():
        messages.append({"role": "system", "content": encodable(system, f"{where}.system")})
    read = {*keys, *_WEIGHTS, *_TRAINED, *(["system"] if messages else [])}
    unread.update(str(key) for key in item.keys() - read if _tells(key, item[key]))
    for role, key in zip(("user", "assistant"), keys, strict=True):
        message = {"role": role, "content": _content(item[key], role, f"{where}.{key}", item)}
        _check_filled(message, f"{where}.{key}", item)
        messages.append(message)
    weight = _weight(item, where)
    if weight is not None:
        messages[-1]["weight"] = weight
    return messages


def _read_message(item: Any, where: str, unread: set[str]) -> dict:
    if not isinstance(item, dict):
        raise RowRejected(
            "wrong-type",
            msg("'{where}' is {kind}; a message has a role and a content", where=where, kind=kind(item)),
            item,
        )
    key = "from" if item.get("role") is None and "from" in item else "role"
    role = item.get(key)
    if role is None:
        raise RowRejected(
            "no-role", msg("'{where}' has no '{key}'; use system, user, assistant or tool", where=where, key=key), item
        )
    if not isinstance(role, str) or normalise(role) not in _ROLES:
        shown = f"'{role}'" if isinstance(role, str) else kind(role)
        names = "system, human, gpt or tool" if key == "from" else "system, user, assistant or tool"
        raise RowRejected(
            "bad-role",
            msg("'{where}.{key}' is {shown}; use {names}", where=where, key=key, shown=shown[:60], names=names),
            item,
        )
    role = _ROLES[normalise(role)]
    field = "value" if "value" in item and item.get("content") is None else "content"
    content = item.get(field)
    if content is None and "parts" in item:
        field, content = "parts", item["parts"]
    if role == "call":
        message = {"role": "assistant", "content": None, "tool_calls": written_calls(content, f"{where}.{field}")}
    else:
        message = {"role": role, "content": _content(content, role, f"{where}.{field}", item)}
    if len(item) > 2 or content is None:
        _read_beside(message, item, role, field, where, unread)
    _check_filled(message, f"{where}.{field}", item)
    return message


def _read_beside(message: dict, item: dict, role: str, field: str, where: str, unread: set[str]) -> None:
    """What a message holds beside its content."""
    _note_unread(item, role, field, unread)
    refuse_media(item, where)
    if role == "assistant":
        if not message["content"] and isinstance(item.get("refusal"), str):
            message["content"] = encodable(item["refusal"], f"{where}.refusal") or message["content"]
        calls = item.get("tool_calls")
        if not calls and item.get("function_call"):
            calls = [item["function_call"]]
        if calls:
            calls = as_list(calls, f"{where}.tool_calls")
            message["tool_calls"] = [read_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(calls)]
    if role == "system" and isinstance(item.get("tools"), list):
        message["tools"] = read_tools(item["tools"], f"{where}.tools")
    if message["role"] == "assistant":
        key = _thought_key(item)
        if key:
            message["reasoning_content"] = encodable(item[key], f"{where}.{key}")
        weight = _weight(item, where)
        if weight is not None:
            message["weight"] = weight
    for name in ("name", "tool_call_id"):
        if isinstance(item.get(name), str) and item[name]:
            message[name] = encodable(item[name], f"{where}.{name}")


def _thought_key(item: dict) -> str:
    """The key that holds what the assistant thought; '' for none, or for two that say different things."""
    held = [name for name in _THOUGHTS if isinstance(item.get(name), str) and item[name].strip()]
    return held[0] if len({item[name] for name in held}) == 1 else ""


def _note_unread(item: dict, role: str, field: str, unread: set[str]) -> None:
    read = {field, *_READ_KEYS}
    if item.get("content") and item.get("value"):
        read.discard("value")
    if role == "system":
        read.add("tools")
    if role in ("assistant", "call"):
        read.update(_ASSISTANT_KEYS if role == "assistant" else (), _WEIGHTS)
        if _thought_key(item):
            read.update(_THOUGHTS)
        if item.get("content"):
            read.discard("refusal")
    unread.update(str(key) for key in item.keys() - read if _tells(key, item[key]))


def _tells(key: Any, value: Any) -> bool:
    """Whether something is lost where this key of a message is not read: text, or what says how good an answer is."""
    return holds_text(value) or (value is not None and is_verdict(str(key)))


def _weight(item: dict, where: str) -> int | None:
    for name in _WEIGHTS:
        weight = item.get(name)
        if isinstance(weight, (int, float)) and weight in (0, 1):
            return int(weight)
        if weight is not None:
            raise RowRejected("bad-weight", msg("'{where}.{name}' must be 0 or 1", where=where, name=name), weight)
    return next((int(item[name]) for name in _TRAINED if isinstance(item.get(name), bool)), None)


def _check_filled(message: dict, where: str, item: Any) -> None:
    content = message["content"]
    if content and content.strip():
        return
    if message["role"] == "assistant" and not message.get("tool_calls"):
        raise RowRejected("empty-answer", msg("the assistant's answer is empty ('{where}')", where=where), item)
    if message["role"] == "user":
        raise RowRejected("empty-prompt", msg("the user's message is empty ('{where}')", where=where), item)
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
    raise RowRejected(
        "wrong-type", msg("'{where}' is {content}; it must be a text", where=where, content=kind(content)), item
    )


def _part(part: Any, where: str) -> str:
    if isinstance(part, str):
        return encodable(part, where)
    if not isinstance(part, dict):
        raise RowRejected(
            "wrong-type",
            msg("'{where}' is {part}; a content part has a type and a text", where=where, part=kind(part)),
            part,
        )
    part_type = _part_type(part)
    for medium in _MEDIA:
        if medium in part_type:
            plural = "audio" if medium == "audio" else f"{medium}s"
            raise RowRejected(
                "not-text",
                msg(
                    "{plural} are not supported ('{where}' is of type '{part_type}')",
                    plural=plural,
                    where=where,
                    part_type=part_type[:40],
                ),
                part,
            )
    if "tool" in part_type or "function" in part_type:
        reason = (
            "calls and results are not read from content parts; write calls as 'tool_calls', results with role 'tool'"
        )
        raise RowRejected(
            "not-text",
            msg("{reason} ('{where}' is of type '{part_type}')", reason=reason, where=where, part_type=part_type[:40]),
            part,
        )
    if "thinking" in part_type or "reasoning" in part_type or part.get("thought") is True:
        reason = "thoughts are not read from content parts; write them as 'reasoning_content' of the message"
        raise RowRejected(
            "not-text",
            msg("{reason} ('{where}' is of type '{part_type}')", reason=reason, where=where, part_type=part_type),
            part,
        )
    text = next((part[key] for key in _PART_TEXTS if part.get(key) is not None), None)
    if not isinstance(text, str):
        raise RowRejected(
            "wrong-type", msg("'{where}.text' is {text}; it must be a text", where=where, text=kind(text)), part
        )
    return encodable(text, where)


def _part_type(part: dict) -> str:
    """What a part says it is; where it does not, its keys (Gemini's functionCall, Bedrock's toolUse and image)."""
    if "type" in part or any(key in part for key in _PART_TEXTS):
        return str(part.get("type", "text")).lower()
    inline = part.get("inlineData", part.get("inline_data"))
    names = [*part, inline.get("mimeType", "")] if isinstance(inline, dict) else part
    return " ".join(map(str, names)).lower()


def text_of(content: Any, where: str) -> str:
    """A system prompt written as text parts (Bedrock), also within an object of `parts` (Gemini)."""
    content = content["parts"] if isinstance(content, dict) and "parts" in content else content
    return _content(content, "system", where, {}) or ""


def check_order(messages: list[dict], column: str) -> int:
    """How many messages at the end have no answer; RowRejected when the roles are in an order that cannot be learnt."""
    roles = [message["role"] for message in messages]
    if roles == ["user", "assistant"] and "weight" not in messages[1]:
        return 0  # most rows
    if not roles:
        raise RowRejected("no-messages", msg("'{column}' is empty, nothing to learn from", column=column))
    if "system" in roles[1:]:
        index = roles.index("system", 1)
        raise RowRejected(
            "role-order",
            msg(
                "'{column}[{index}]' is a system message; only the first message may be one", column=column, index=index
            ),
        )
    if "assistant" not in roles:
        raise RowRejected("no-assistant", "no assistant message, nothing to learn from")
    last = len(roles) - 1 - roles[::-1].index("assistant")
    if roles[0] != "system" and "user" not in roles[: last + 1]:
        raise RowRejected("no-user", "no user message before the assistant's, nothing to answer")
    for index in range(last) if "tool" in roles else ():
        first_result = roles[index] == "tool" and (index == 0 or roles[index - 1] != "tool")
        if first_result and (index == 0 or not calls_a_tool(messages[index - 1])):
            raise RowRejected(
                "role-order",
                msg(
                    "'{column}[{index}]' is a tool's result, but no tool was called before it; write the call as "
                    "'tool_calls', or give the result the role 'user'",
                    column=column,
                    index=index,
                ),
            )
    if all(message.get("weight") == 0 for message in messages[: last + 1] if message["role"] == "assistant"):
        raise RowRejected("no-weight", "every assistant message has weight 0, nothing to learn from")
    return len(roles) - 1 - last
