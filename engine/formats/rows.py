"""A row and its shape -> an Example, or a RowFault that says what is wrong in the user's words."""

import sys
from dataclasses import dataclass
from typing import Any

from engine.formats.columns import Shape
from engine.formats.faults import RowFault, kind
from engine.formats.messages import as_list, check_order, encodable, read_messages, read_tools
from engine.records import Example


@dataclass(frozen=True, slots=True)
class Built:
    """An example, and how many messages at its end were left out because nothing answers them."""

    example: Example
    left_out: int = 0


def build_example(row: dict, shape: Shape, system: str | None, file: str, line: int) -> Built:
    """What the row teaches. `system` goes before conversations that have no system message of their own."""
    column = shape.columns
    for role in shape.required:
        if column[role] not in row:
            have = ", ".join(map(str, row)) or "nothing"
            raise RowFault("missing-column", f"'{column[role]}' is missing; the row has {have[:200]}", row)
    if shape.kind == "text":
        return Built(Example(text=_text(row, column["text"], "empty-text", "the text"), file=file, line=line))
    if shape.kind == "classification":
        prompt = _text(row, column["text"], "empty-prompt", "the text")
        messages = [_message("user", prompt), _message("assistant", _label(row, column["label"]))]
    elif shape.kind == "pair":
        messages = _pair(row, column)
    else:
        messages = read_messages(row[column["messages"]], column["messages"])
    left_out = check_order(messages, column.get("messages", "messages"))
    if left_out:
        del messages[-left_out:]
    if messages[0]["role"] != "system":
        own = row.get(column["system"]) if "system" in column else None
        system = _flat(own, column["system"]) if own not in (None, "") else system
        if system and system.strip():
            messages.insert(0, _message("system", system))
    tools = read_tools(row.get(column["tools"]), column["tools"]) if "tools" in column else ()
    return Built(Example(messages=tuple(messages), tools=tools, file=file, line=line), left_out)


def _message(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def _pair(row: dict, column: dict[str, str]) -> list[dict]:
    """Earlier turns, the question, and the answer; question and answer may be lists of messages themselves."""
    prompt, completion = row[column["prompt"]], row[column["completion"]]
    messages: list[dict] = []
    if "history" in column and row.get(column["history"]) not in (None, ""):
        for turn in as_list(row[column["history"]], column["history"]):
            if not isinstance(turn, (list, tuple)) or len(turn) != 2:
                raise RowFault("wrong-type", f"'{column['history']}' must hold pairs of question and answer", turn)
            messages.append(_message("user", _filled(turn[0], column["history"], "empty-prompt", "a question")))
            messages.append(_message("assistant", _filled(turn[1], column["history"], "empty-answer", "an answer")))
    if _is_messages(prompt):
        messages += read_messages(prompt, column["prompt"])
    else:
        question = _text(row, column["prompt"], "empty-prompt", "the question")
        more = row.get(column["input"]) if "input" in column else None
        if more is not None and (more := _flat(more, column["input"])).strip():
            question = f"{question}\n\n{more}"
        messages.append(_message("user", question))
    if _is_messages(completion):
        return messages + read_messages(completion, column["completion"])
    answer = _text(row, column["completion"], "empty-answer", "the assistant's answer")
    return [*messages, _message("assistant", answer)]


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _text(row: dict, column: str, code: str, what: str) -> str:
    return _filled(row[column], column, code, what)


def _filled(value: Any, column: str, code: str, what: str) -> str:
    text = "" if value is None else _flat(value, column)
    if not text.strip():
        raise RowFault(code, f"{what} is empty ('{column}')")
    return text


def _flat(value: Any, column: str) -> str:
    """A column's text; a whole number is kept as written, a list of one text is that text."""
    while isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, (list, tuple)):
        raise RowFault("wrong-type", f"'{column}' is a list of {len(value)}; it must be one text", value)
    if not isinstance(value, str):
        raise RowFault("wrong-type", f"'{column}' is {kind(value)}; it must be a text", value)
    return encodable(value, column)


def _label(row: dict, column: str) -> str:
    """A class by its name or number, shared between rows to save memory."""
    label = row[column]
    if isinstance(label, bool):
        label = str(label).lower()
    elif isinstance(label, float) and label.is_integer():
        label = str(int(label))
    return sys.intern(_filled(label, column, "empty-label", "the label").strip())
