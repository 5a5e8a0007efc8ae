"""Which column of a file serves as what: the names people give to questions, answers, labels and texts.

`find_schema` looks at column names only. The order of `_FINDERS` is the order of preference: a row with `messages` is a
chat whatever else it holds, and a lone `text` is plain text only when nothing better fits.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

PROMPTS = (
    "prompt", "instruction", "question", "questions", "query", "ask", "input", "inputs", "user", "q",
    "问题", "提问", "问", "指令", "输入",
)  # fmt: skip
ANSWERS = (
    "completion", "response", "answer", "answers", "output", "outputs", "reply", "assistant", "a", "target", "targets",
    "回答", "答案", "回复", "答", "输出",
)  # fmt: skip
LABELED_TEXTS = (
    "text", "sentence", "utterance", "query", "question", "content", "message", "review", "comment", "input",
    "文本", "内容", "句子", "问题", "评论",
)  # fmt: skip
# A column with the name of the class comes before one with its number.
LABELS = (
    "label_text", "label_name", "category", "intent", "class", "label", "topic", "sentiment", "emotion",
    "标签", "类别", "分类", "意图",
)  # fmt: skip
TEXTS = ("text", "content", "document", "文本", "内容", "正文")
SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction", "systeminstruction", "系统")
REASONING = ("reasoning_content", "complex_cot")
"""Columns with the thought before an answer; `reasoning` and `thinking` may as well say on or off."""
CONTEXTS = ("context",)
_ANSWER_ENDINGS = ("answer", "answers", "response", "responses", "completion", "solution", "output")
MESSAGES = ("messages",)
CONVERSATIONS = ("conversations", "conversation", "contents")
TOOLS = ("tools", "functions")

FORMATS = ("openai", "sharegpt", "alpaca", "prompt-completion", "question-answer", "classification", "text")
ROLES = ("prompt", "completion", "reasoning", "input", "history", "system", "text", "label", "messages", "tools")
"""What a column can be mapped to with --map."""

KNOWN_NAMES = frozenset(
    (*PROMPTS, *ANSWERS, *LABELED_TEXTS, *LABELS, *TEXTS, *SYSTEMS, *CONTEXTS, *MESSAGES, *CONVERSATIONS)
) | {"tools", "functions", "history", "chosen", "rejected", *REASONING}

Find = Callable[..., str | None]


@dataclass(frozen=True, slots=True)
class Schema:
    """How a row with certain columns becomes an example."""

    format: str
    kind: str
    """How it is built: 'chat', 'pair', 'classification' or 'text'."""
    columns: dict[str, str]
    """Role -> column, as the file spells it."""
    required: tuple[str, ...]
    """Roles every row needs; the others may be missing."""


@functools.lru_cache(4096)  # the keys of every message of every row are asked for, and are the same few
def normalise(name: str) -> str:
    """A column name as it is compared: letter case, spaces and hyphens do not matter."""
    return name.strip(" \t\ufeff").casefold().replace(" ", "_").replace("-", "_")


def find_schema(columns: Iterable[str], format: str = "auto") -> Schema | None:
    """The schema of rows with these columns, of one format when it is named; None when nothing fits."""
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(normalise(column), column)

    if "b" in by_name:
        by_name.pop("a", None)  # the first of several choices, and no answer

    def find(*names: str, but: str | None = None) -> str | None:
        return next((by_name[name] for name in names if name in by_name and by_name[name] != but), None)

    for name, finder in _FINDERS.items():
        if format in ("auto", name):
            schema = finder(find)
            if schema and not (format == "auto" and _asks_more(schema, by_name)):
                return schema
    return None


def _asks_more(schema: Schema, names: Iterable[str]) -> bool:
    """Whether what looks like the class of a question is a column beside its answer, whose name is not known."""
    is_question = schema.kind == "classification" and normalise(schema.columns["text"]) in PROMPTS
    return is_question and any(name.rpartition("_")[2] in _ANSWER_ENDINGS for name in names)


def mapped_schema(columns: Iterable[str], mapping: dict[str, str]) -> Schema | None:
    """The schema a mapping asks for; what it leaves open is found by name; None when these columns do not have it."""
    columns = list(columns)
    if any(column not in columns for column in mapping.values()):
        return None
    taken = set(mapping.values())
    by_name = {normalise(column): column for column in columns if column not in taken}

    def find(*names: str) -> str | None:
        return next((by_name[name] for name in names if name in by_name), None)

    by_role = mapping.get
    extra = {"system": by_role("system") or find(*SYSTEMS), "tools": by_role("tools") or find(*TOOLS)}
    if "messages" in mapping:
        return _schema("mapped", "chat", ("messages",), {"messages": mapping["messages"], **extra})
    if "label" in mapping:
        text = by_role("text") or by_role("prompt") or find(*LABELED_TEXTS)
        return _schema(
            "mapped", "classification", ("text", "label"), {"text": text, "label": mapping["label"], **extra}
        )
    if "prompt" in mapping or "completion" in mapping:
        prompt, completion = by_role("prompt") or find(*PROMPTS), by_role("completion") or find(*ANSWERS)
        roles = {
            "prompt": prompt,
            "completion": completion,
            "input": by_role("input"),
            "history": by_role("history"),
        }
        roles["reasoning"] = by_role("reasoning") or find(*REASONING)
        return _schema("mapped", "pair", ("prompt", "completion"), {**roles, **extra})
    if "text" in mapping:
        return _schema("mapped", "text", ("text",), {"text": mapping["text"]})
    schema = find_schema(columns)
    return _schema("mapped", schema.kind, schema.required, {**schema.columns, **mapping}) if schema else None


def _schema(format: str, kind: str, required: Sequence[str], columns: dict[str, str | None]) -> Schema | None:
    present = {role: column for role, column in columns.items() if column}
    return Schema(format, kind, present, tuple(required)) if all(role in present for role in required) else None


def _openai(find: Find) -> Schema | None:
    columns = {"messages": find(*MESSAGES), "system": find(*SYSTEMS), "tools": find(*TOOLS)}
    return _schema("openai", "chat", ("messages",), columns)


def _sharegpt(find: Find) -> Schema | None:
    # UltraChat and HuatuoGPT: {"id": …, "data": ["question", "answer", …]}; a lone `data` may be anything.
    turns = find(*CONVERSATIONS) or (find("data") if find("id") and not find("annotations") else None)
    columns = {"messages": turns, "system": find(*SYSTEMS), "tools": find(*TOOLS)}
    return _schema("sharegpt", "chat", ("messages",), columns)


def _alpaca(find: Find) -> Schema | None:
    more = find("input", *CONTEXTS)
    answer = find("output") or (find("response") if more else None)
    columns = {"prompt": find("instruction"), "input": more, "completion": answer}
    columns |= {"history": find("history"), **_beside_pairs(find)}
    return _schema("alpaca", "pair", ("prompt", "completion"), columns)


def _prompt_completion(find: Find) -> Schema | None:
    columns = {"prompt": find("prompt"), "completion": find("completion"), **_beside_pairs(find)}
    return _schema("prompt-completion", "pair", ("prompt", "completion"), columns)


def _question_answer(find: Find) -> Schema | None:
    beside = _beside_pairs(find)
    # What an API answers is a content beside a thought.
    answer = find(*ANSWERS) or (find("content") if beside["reasoning"] else None)
    columns = {"prompt": find(*PROMPTS), "completion": answer, "input": find(*CONTEXTS), "history": find("history")}
    return _schema("question-answer", "pair", ("prompt", "completion"), columns | beside)


def _beside_pairs(find: Find) -> dict[str, str | None]:
    return {"reasoning": find(*REASONING), "system": find(*SYSTEMS), "tools": find(*TOOLS)}


def _classification(find: Find) -> Schema | None:
    label = find(*LABELS)
    columns = {"text": find(*LABELED_TEXTS, but=label), "label": label, "system": find(*SYSTEMS)}
    return _schema("classification", "classification", ("text", "label"), columns)


def _text(find: Find) -> Schema | None:
    return _schema("text", "text", ("text",), {"text": find(*TEXTS)})


_FINDERS = {
    "openai": _openai,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt-completion": _prompt_completion,
    "question-answer": _question_answer,
    "classification": _classification,
    "text": _text,
}
