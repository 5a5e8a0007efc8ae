"""A row and its schema -> an Example, or a RowRejected that says what is wrong in the user's words."""

import sys
from dataclasses import dataclass
from typing import Any

from engine.base.messages import msg
from engine.formats.columns import Schema
from engine.formats.examples import Example
from engine.formats.list_values import as_list, holds_text
from engine.formats.messages import check_order, read_messages, read_transcript, text_of
from engine.formats.row_errors import RowRejected, encodable, kind
from engine.formats.tool_calls import calls_of_tools, read_tools


@dataclass(frozen=True, slots=True)
class Built:
    """An example, and what of the row is not in it."""

    example: Example
    left_out: int = 0
    """Messages at its end that nothing answers."""
    unread: tuple[str, ...] = ()
    """Keys of messages (as 'messages[].key') and columns that hold text and are not understood."""


def build_example(row: dict, schema: Schema, system: str | None, file: str, line: int) -> Built:
    """What the row teaches. `system` goes before conversations that have no system message of their own."""
    column = schema.columns
    for role in schema.required:
        if column[role] not in row:
            have = ", ".join(map(str, row)) or "nothing"
            raise RowRejected(
                "missing-column",
                msg("'{column}' is missing; the row has {have}", column=column[role], have=have[:200]),
                row,
            )
    if schema.kind == "text":
        return Built(Example(text=_text(row, column["text"], "empty-text", "the text"), file=file, line=line))
    unread: set[str] = set()
    if schema.kind == "classification":
        prompt = _text(row, column["text"], "empty-prompt", "the text")
        messages = [_message("user", prompt), _message("assistant", _label(row, column["label"]))]
    elif schema.kind == "pair":
        messages = _pair(row, column, unread)
    else:
        messages = read_messages(row[column["messages"]], column["messages"], unread)
    left_out = check_order(messages, column.get("messages", "messages"))
    if left_out:
        del messages[-left_out:]
    named = [f"{column.get('messages', 'messages')}[].{key}" for key in unread] if unread else []
    if system or "system" in column:
        named += _add_system(messages, row, column.get("system", ""), system)
    tools: tuple[dict, ...] = ()
    not_read: tuple[str, ...] = ()
    if "tools" in column or messages[0]["role"] == "system":
        tools, not_read = _tools(row, schema, messages)
    if tools and schema.kind == "pair" and len(messages[-1]) == 2:
        calls = calls_of_tools(messages[-1]["content"], tools)
        if calls:
            messages[-1] |= {"content": None, "tool_calls": calls}
    more = column.get("input", "")
    if more and isinstance(row[column["prompt"]], list) and holds_text(row.get(more)):
        named.append(more)  # beside a list of messages it has no place
    example = Example(messages=tuple(messages), tools=tools, file=file, line=line)
    return Built(example, left_out, (*named, *not_read))


def _add_system(messages: list[dict], row: dict, column: str, system: str | None) -> list[str]:
    """Put the row's system prompt before its messages, or else the one that was given; the column if it is not read."""
    system_text = row.get(column) if column else None
    if isinstance(system_text, (dict, list)):
        system_text = text_of(system_text, column)
    system_text = None if system_text in (None, "") else _flat(system_text, column)
    if messages[0]["role"] == "system":
        return (
            [column]
            if system_text and system_text.strip() and system_text.strip() != messages[0]["content"].strip()
            else []
        )
    system = system if system_text is None else system_text
    if system and system.strip():
        messages.insert(0, _message("system", system))
    return []


def _tools(row: dict, schema: Schema, messages: list[dict]) -> tuple[tuple[dict, ...], tuple[str, ...]]:
    """(tools, columns or keys that are not read: what a question has beside it may be no tools)."""
    inside = messages[0].pop("tools", ()) if messages[0]["role"] == "system" else ()
    column = schema.columns.get("tools", "")
    try:
        tools = read_tools(row.get(column), column) if column else ()
    except RowRejected:
        if schema.format not in ("alpaca", "question-answer") or _looks_like_tools(row[column]):
            raise
        return inside, (column,) if holds_text(row[column]) else ()
    if tools and inside and tools != inside:
        return tools, (f"{schema.columns.get('messages', 'messages')}[].tools",)
    return tools or inside, ()


def _looks_like_tools(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip()[:2] in ("[{", "[]"))


def _message(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def _pair(row: dict, column: dict[str, str], unread: set[str]) -> list[dict]:
    """Earlier turns, the question, and the answer; question and answer may be lists of messages themselves."""
    prompt, completion = row[column["prompt"]], row[column["completion"]]
    messages: list[dict] = []
    if "history" in column and row.get(column["history"]) not in (None, ""):
        for turn in as_list(row[column["history"]], column["history"]):
            if not isinstance(turn, (list, tuple)) or len(turn) != 2:
                raise RowRejected(
                    "wrong-type",
                    msg("'{history}' must hold pairs of question and answer", history=column["history"]),
                    turn,
                )
            messages.append(_message("user", _filled(turn[0], column["history"], "empty-prompt", "a question")))
            messages.append(_message("assistant", _filled(turn[1], column["history"], "empty-answer", "an answer")))
    if _is_messages(prompt):
        messages += read_messages(prompt, column["prompt"], unread)
    else:
        question = _text(row, column["prompt"], "empty-prompt", "the question")
        if "\n" in question and (turns := read_transcript(question, column["prompt"])):
            *earlier, last = turns
            messages, question = messages + earlier, last["content"]
        more = row.get(column["input"]) if "input" in column else None
        if more is not None and (more := _flat(more, column["input"])).strip():
            question = f"{question}\n\n{more}"
        messages.append(_message("user", question))
    if _is_messages(completion):
        messages += read_messages(completion, column["completion"], unread)
    else:
        if isinstance(completion, dict):
            completion = _spans(completion, column["completion"])
        answer = _filled(completion, column["completion"], "empty-answer", "the assistant's answer")
        messages.append(_message("assistant", answer))
    thought = row.get(column["reasoning"]) if "reasoning" in column else None
    if thought is not None and (thought := _flat(thought, column["reasoning"])).strip():
        messages[-1].setdefault("reasoning_content", thought)
    return messages


def _is_messages(value: Any) -> bool:
    if isinstance(value, str) or not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    if "rank" in value[0] or "score" in value[0]:
        reason = "several ranked answers to one question (Nectar and the like): keep the best one as a text"
        raise RowRejected("preference", reason, value)
    return True


def _spans(value: dict, column: str) -> Any:
    """SQuAD's {"text": [...], "answer_start": [...]}: the one text, however many people marked it."""
    if "text" not in value or not value.keys() <= {"text", "answer_start", "answer_end"}:
        return value
    texts = value["text"] if isinstance(value["text"], (list, tuple)) else [value["text"]]
    distinct = list(dict.fromkeys(text for text in texts if isinstance(text, str)))
    if len(distinct) > 1:
        raise RowRejected(
            "wrong-type",
            msg(
                "'{column}' holds {answers:,} different answers (SQuAD); keep one",
                column=column,
                answers=len(distinct),
            ),
            value,
        )
    return distinct[0] if distinct else None


def _text(row: dict, column: str, code: str, what: str) -> str:
    return _filled(row[column], column, code, what)


def _filled(value: Any, column: str, code: str, what: str) -> str:
    text = "" if value is None else _flat(value, column)
    if not text.strip():
        raise RowRejected(code, msg("{what} is empty ('{column}')", what=what, column=column))
    return text


def _flat(value: Any, column: str) -> str:
    """A column's text; a whole number is kept as written, a list of one text is that text."""
    while isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, (list, tuple)):
        hint = " (answers from best to worst? keep the best)" if len(value) == 2 and isinstance(value[0], str) else ""
        raise RowRejected(
            "wrong-type",
            msg(
                "'{column}' is a list of {length}; it must be one text{hint}",
                column=column,
                length=len(value),
                hint=hint,
            ),
            value,
        )
    if not isinstance(value, str):
        raise RowRejected(
            "wrong-type", msg("'{column}' is {kind}; it must be a text", column=column, kind=kind(value)), value
        )
    return encodable(value, column)


def _label(row: dict, column: str) -> str:
    """A class by its name or number, shared between rows to save memory."""
    label = row[column]
    if isinstance(label, bool):
        label = str(label).lower()
    elif isinstance(label, float) and label.is_integer():
        label = str(int(label))
    return sys.intern(_filled(label, column, "empty-label", "the label").strip())
