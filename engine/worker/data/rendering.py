"""Conversations as a chat template renders them.

The template runs in transformers' own environment, compiled once. Only its clock is finetop's: a run renders by the
time it began, so that two renderings agree to the second, and a resumed run renders what it did before.
"""

import functools
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import jinja2
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import new_context
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from engine.base.errors import DataError
from engine.base.messages import msg
from engine.worker.data.prompt_cuts import TRAIL, Trail, with_trail

Messages = Sequence[dict[str, Any]]

_MARK = re.compile(r"\{%[-+]?\s*generation\b")
_NULL = re.compile("None|null")
_REASONING = ("reasoning_content", "thinking", "reasoning")
_OF_DICTS = frozenset(dir(dict))


@dataclass(frozen=True)
class _Compiled:
    text: str
    template: jinja2.Template
    marked: jinja2.Template
    """The same with its `{% generation %}` blocks, which take longer."""
    named: dict[str, Any]
    """The global names of every rendering: the environment's functions, special tokens, the clock."""
    has_marks: bool


class Whole(NamedTuple):
    """A conversation as it is rendered, and its prompts where they are known from that."""

    text: str
    cuts: Mapping[int, int] = {}
    """By message, the number of blocks that its prompt has before `header`; others have to be rendered."""
    ends: Sequence[int] = ()
    """Where in the text so many blocks end."""
    header: str = ""
    """What ends each of these prompts."""

    def prompt(self, message: int) -> str | None:
        """The prompt for this message; None where it is not known."""
        blocks = self.cuts.get(message)
        return None if blocks is None else self.text[: self.ends[blocks]] + self.header

    def prompt_end(self, message: int) -> int | None:
        """Where in the text that prompt ends; None where it is not known, or the text does not begin with it."""
        blocks = self.cuts.get(message)
        if blocks is None or not self.text.startswith(self.header, self.ends[blocks]):
            return None
        return self.ends[blocks] + len(self.header)


class Rendering:
    """One tokenizer's templates, rendered. Raises ValueError when none of several is the default."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, now: datetime) -> None:
        self._tokenizer = tokenizer
        named = {"documents": None, "strftime_now": lambda form: now.strftime(form), **tokenizer.special_tokens_map}
        self._compiled = {tools: self._compile(tools, named) for tools in (False, True)}
        self._forms: dict[tuple, Callable[[Messages], Messages]] = {}
        self._trailed: dict[bool, tuple[jinja2.Template, str] | None] = {}

    def _compile(self, tools: bool, named: dict[str, Any]) -> _Compiled:
        text = self._tokenizer.get_chat_template(tools=[{}] if tools else None)
        marked = chat_template_utils._compile_jinja_template(text)
        environment = marked.environment
        if "getattr" not in vars(environment):
            environment.getattr = functools.partial(_attribute, environment.getattr)
        has_marks = bool(_MARK.search(text))
        template = environment.overlay(extensions=[_Unmarked]).from_string(text) if has_marks else marked
        return _Compiled(text, template, marked, {**marked.globals, **named}, has_marks)

    def has_marks(self, tools: Sequence[dict]) -> bool:
        """Whether the template says with `{% generation %}` what the assistant writes."""
        return self._compiled[bool(tools)].has_marks

    def text(self, messages: Messages, tools: Sequence[dict] = (), prompt: bool = False) -> str:
        """The conversation, with `prompt` up to where the assistant is to answer. Raises DataError where the template
        refuses it."""
        return "".join(self._rendered(messages, tools, prompt))

    def marked(self, messages: Messages, tools: Sequence[dict] = ()) -> tuple[str, list[tuple[int, int]]]:
        """The conversation, and where in it `{% generation %}` blocks stand."""
        marks: list[tuple[int, int]] = []
        return "".join(self._rendered(messages, tools, False, marks)), marks

    def whole(self, messages: Messages, tools: Sequence[dict] = ()) -> Whole:
        """The conversation, and its prompts as far as this one rendering tells them. Raises DataError where the
        template refuses it."""
        trailed = self._trailed_for(tools) if all(map(_is_plain, messages)) else None
        if trailed is None:
            return Whole(self.text(messages, tools))
        template, header = trailed
        trail = Trail(messages)
        try:
            blocks = self._blocks(messages, tools, False, template=template, trail=trail)
        except DataError:
            text = self.text(messages, tools)  # else refused, in words that may tell of the list
            self._trailed[bool(tools)] = None
            return Whole(text)
        ends = list(itertools.accumulate(map(len, blocks), initial=0))
        return Whole("".join(blocks), trail.cuts, ends, header)

    def _trailed_for(self, tools: Sequence[dict]) -> tuple[jinja2.Template, str] | None:
        """The template for renderings with a `Trail`, and what ends its prompts; None where it cannot be followed."""
        key = bool(tools)
        if key not in self._trailed:
            compiled = self._compiled[key]
            made = with_trail(compiled.template.environment, compiled.text)
            try:
                self._trailed[key] = made and (made[0], "".join(self._blocks((), tools, True, template=made[1])))
            except DataError:
                self._trailed[key] = None
        return self._trailed[key]

    def _rendered(
        self, messages: Messages, tools: Sequence[dict], prompt: bool, marks: list | None = None
    ) -> list[str]:
        messages = list(messages)
        if not all(map(_is_plain, messages)):
            messages = [_with_reasoning(message) for message in messages]
            calls = [call["function"] for message in messages for call in message.get("tool_calls") or ()]
            if calls or any(message.get("content", "") is None for message in messages):
                messages = self._form(messages, calls, tools, prompt)(messages)
        return self._blocks(messages, tools, prompt, marks)

    def _blocks(
        self,
        messages: Messages,
        tools: Sequence[dict],
        prompt: bool,
        marks: list | None = None,
        template: jinja2.Template | None = None,
        trail: Trail | None = None,
    ) -> list[str]:
        compiled = self._compiled[bool(tools)]
        template = template or (compiled.template if marks is None else compiled.marked)
        environment: Any = template.environment  # transformers adds the tracker of `{% generation %}` blocks to it
        values: dict[str, Any] = {"messages": messages, "tools": list(tools) or None, "add_generation_prompt": prompt}
        blocks: list[str] = []
        if trail is not None:
            values["messages"], values[TRAIL], blocks = trail.messages, trail, trail.blocks
        try:
            # Not `template.new_context`, which makes a set of all global names for templates that import others.
            context = new_context(environment, template.name, template.blocks, compiled.named | values, True)
            written = template.root_render_func(context)
            if marks is not None:
                with environment.activate_tracker(blocks, marks):
                    for block in written:
                        blocks.append(block)
            elif trail is not None:
                for block in written:
                    blocks.append(block)
            else:
                blocks.extend(written)
        except Exception as error:  # a template may raise anything, jinja2.TemplateError above all
            raise DataError(msg("the chat template refuses this conversation: {error}", error=error)) from None
        return blocks

    def _form(self, messages: Messages, calls: list[dict], tools: Sequence[dict], prompt: bool) -> Callable:
        """Beside calls some templates need a content of null, some a text or none at all, and some need arguments as a
        JSON text. This is the first form in which the calls are rendered and no text stands for null, for a dict as
        only Python writes it, or, as the shortest text shows, for an empty answer beside them; it is searched for once
        for conversations of one shape."""
        parts = ((m["role"], m.get("content") and 1, bool(m.get("tool_calls"))) for m in messages)
        shape = (bool(tools), prompt, *parts)
        if shape not in self._forms:
            values = [
                repr(call["arguments"]) for call in calls if call["arguments"] and type(call["arguments"]) is dict
            ]
            names = {call["name"] for call in calls}
            scores = []
            for number, form in enumerate(_FORMS):
                try:
                    text = "".join(self._blocks(form(messages), tools, prompt))
                except DataError:
                    continue
                called = sum(map(text.count, names))
                nulls = len(_NULL.findall(text))
                arguments_as_text = number >= _FIRST_OF_TEXTS  # other forms of arguments may be shorter, and wrong
                scores.append((-called, sum(map(text.count, values)), nulls, arguments_as_text, len(text), number))
            # Where none works, null would be blamed for another fault.
            self._forms[shape] = _FORMS[min(scores)[-1]] if scores else _content_empty
        return self._forms[shape]


class _Unmarked(Extension):
    """`{% generation %}` blocks as nothing but a scope of their own."""

    tags = {"generation"}
    priority = 200  # above transformers' own, whose tag this is too

    def parse(self, parser: Parser) -> jinja2.nodes.Scope:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def _attribute(usual: Callable, receiver: Any, name: str) -> Any:
    """`message.role` of a dict, without first asking for an attribute of that name, which takes most of the time of a
    rendering. What the sandbox forbids are attributes; these are keys."""
    if type(receiver) is dict and name not in _OF_DICTS and name in receiver:
        return receiver[name]
    return usual(receiver, name)


def _is_plain(message: dict[str, Any]) -> bool:
    """Whether it has a role and a content only, as most have: it is rendered for each answer behind it."""
    return len(message) == 2 and message.get("content") is not None


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """With its thought under every name that templates read it by, as transformers does it."""
    thought = next((message[key] for key in _REASONING if message.get(key) is not None), None)
    return message if thought is None else {"thinking": thought, **message, "reasoning_content": thought}


def _as_given(messages: Messages) -> Messages:
    return messages


def _content_empty(messages: Messages) -> Messages:
    return [message | {"content": message.get("content") or ""} for message in messages]


def _content_null(messages: Messages) -> Messages:
    return [m | {"content": None} if m.get("tool_calls") and not m.get("content") else m for m in messages]


def _content_absent(messages: Messages) -> Messages:
    return [
        {k: v for k, v in m.items() if k != "content"} if m.get("tool_calls") and not m.get("content") else m
        for m in messages
    ]


def _arguments_as_text(messages: Messages) -> Messages:
    return [_with_text_arguments(message) if message.get("tool_calls") else message for message in messages]


def _with_text_arguments(message: dict[str, Any]) -> dict[str, Any]:
    calls = []
    for call in message["tool_calls"]:
        arguments = call["function"]["arguments"]
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        calls.append(call | {"function": call["function"] | {"arguments": written}})
    return message | {"tool_calls": calls}


_FORMS = (
    _as_given,
    _content_null,
    _content_empty,
    _content_absent,
    _arguments_as_text,
    lambda messages: _arguments_as_text(_content_empty(messages)),
)
_FIRST_OF_TEXTS = _FORMS.index(_arguments_as_text)
