"""Calls are read in the form in which the template of each family writes them, however the text is cut into pieces."""

import json
from typing import Any

import pytest

from engine.base.errors import DataError
from engine.formats.examples import Example
from engine.worker.answer.call_reader import CallForm, CallReader
from engine.worker.data.chat_template import ChatTemplate
from engine.worker.data.token_text import token_text
from tests.engine.worker.data.template_recipes import plain
from tests.engine.worker.data.template_shapes import SHAPES
from tests.engine.worker.data.tokenizer_kit import tokenizer

NAMES = sorted(name for name, shape in SHAPES.items() if shape.tools)


def tool(name: str) -> dict[str, Any]:
    properties = {"at": {"type": "string", "description": "x"}, "count": {"type": "integer", "description": "y"}}
    parameters = {"type": "object", "properties": properties, "required": ["at"]}
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}}


TOOLS = [tool("look_up"), tool("look"), tool("b.c-d")]


def written(template: ChatTemplate, calls: list[tuple[str, dict]]) -> str | None:
    """A turn of these calls as the template writes it, without its end; None where it refuses them."""
    listed = [
        {"id": f"abcdefgh{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(calls)
    ]
    talk = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": listed})
    encoded = template.encode_chats([Example(messages=talk, tools=tuple(TOOLS))])[0]
    if isinstance(encoded, DataError):
        return None
    ids = encoded.ids[encoded.turns[-1].start : encoded.turns[-1].end].tolist()
    while ids and ids[-1] in template.stop_token_ids:
        ids.pop()
    return token_text(template.tokenizer, ids)


def template_of(name: str) -> ChatTemplate:
    tokens = tokenizer(SHAPES[name].family)
    tokens.chat_template = plain(SHAPES[name].source)
    return ChatTemplate(tokens)


def read(form: CallForm, text: str, size: int) -> tuple[str, list[tuple[str, dict]]]:
    reader = CallReader(form, TOOLS)
    out = "".join(reader.push(text[at : at + size]) for at in range(0, len(text), size))
    rest, calls = reader.finish()
    return out + rest, [(call["name"], json.loads(call["arguments"])) for call in calls]


@pytest.mark.parametrize("name", NAMES)
def test_calls_are_read_as_the_template_writes_them(name: str):
    template = template_of(name)
    form = CallForm.seen(template)
    assert form.known
    one = [("look_up", {"at": '中文 "quoted" {x}', "count": 3})]
    text = written(template, one)
    assert text is not None
    for size in (1, 3, len(text)):
        assert read(form, text, size)[1] == one, text
    two = [("look", {"at": "a\nb", "count": -1}), ("look_up", {"at": "2", "count": 0})]
    if (text := written(template, two)) is not None:
        assert read(form, text, 2)[1] == two, text


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_call_stays_text(name: str):
    template = template_of(name)
    form = CallForm.seen(template)
    text = written(template, [("look_up", {"at": "x", "count": 3})])
    assert text is not None
    unknown = text.replace("look_up", "nobody")
    for answer in ("Hello, look here.", "1 < 2 and {3: 4}", "[TOOL", unknown, text[: len(text) // 2]):
        out, calls = read(form, answer, 1)
        assert (out, calls) == (answer, [])
