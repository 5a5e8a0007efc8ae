"""Conversations as a chat template writes them.

The template runs in transformers' own environment, compiled once. Only its clock is finetop's: a run renders by the
time it began, so that two renderings agree to the second, and a resumed run reads what it read before.
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from engine.errors import DataError

Messages = Sequence[dict[str, Any]]

_MARK = re.compile(r"\{%-?\+?\s*generation\b")
_NULL = re.compile("None|null")
_REASONING = ("reasoning_content", "thinking", "reasoning")


class Rendering:
    """One tokenizer's templates, rendered. Raises ValueError when none of several is the default."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, now: datetime) -> None:
        self._tokenizer = tokenizer
        self._named = {
            **tokenizer.special_tokens_map,
            "documents": None,
            "strftime_now": lambda form: now.strftime(form),
        }
        self._forms: dict[tuple, Callable[[Messages], Messages]] = {}
        self._compiled = {tools: self._compile(tools) for tools in (False, True)}

    def _compile(self, tools: bool) -> tuple[Any, bool]:
        text = self._tokenizer.get_chat_template(tools=[{}] if tools else None)
        return chat_template_utils._compile_jinja_template(text), bool(_MARK.search(text))

    def has_marks(self, tools: Sequence[dict]) -> bool:
        """Whether the template says with `{% generation %}` what the assistant writes."""
        return self._compiled[bool(tools)][1]

    def text(self, messages: Messages, tools: Sequence[dict] = (), prompt: bool = False) -> str:
        """The conversation, with `prompt` up to where the assistant is to answer. Raises DataError where the template
        refuses it."""
        return self._render(lambda *given: self._plain(*given, prompt), messages, tools)[0]

    def marked(self, messages: Messages, tools: Sequence[dict] = ()) -> tuple[str, list[tuple[int, int]]]:
        """The conversation, and where in it `{% generation %}` blocks stand."""
        return self._render(self._with_marks, messages, tools)

    def _plain(self, messages: Messages, tools: Sequence[dict], prompt: bool) -> tuple[str, list]:
        template, _ = self._compiled[bool(tools)]
        return template.render(
            messages=messages, tools=list(tools) or None, add_generation_prompt=prompt, **self._named
        ), []

    def _with_marks(self, messages: Messages, tools: Sequence[dict]) -> tuple[str, list[tuple[int, int]]]:
        template, _ = self._compiled[bool(tools)]
        return chat_template_utils._render_with_assistant_indices(
            compiled_template=template,
            messages=messages,
            tools=list(tools) or None,
            add_generation_prompt=False,
            **self._named,
        )

    def _render(self, render: Callable, messages: Messages, tools: Sequence[dict]) -> tuple[str, list]:
        messages = [_with_reasoning(message) for message in messages]
        calls = [call["function"] for message in messages for call in message.get("tool_calls") or ()]
        if not calls and not any(message.get("content", "") is None for message in messages):
            return _tried(render, messages, tools)
        shape = (
            bool(tools),
            *(
                (message["role"], message.get("content") is None, bool(message.get("tool_calls")))
                for message in messages
            ),
        )
        form = self._forms.get(shape)
        if form is None:
            form = self._forms[shape] = self._best_form(render, messages, tools, calls)
        return _tried(render, form(messages), tools)

    def _best_form(self, render: Callable, messages: Messages, tools: Sequence[dict], calls: list[dict]) -> Callable:
        """Beside calls some templates want a content of null, some a text or none at all, and some want arguments as a
        JSON text. The first form is taken in which the calls are there and nothing stands for null or for a dict that
        only Python writes so."""
        values = [repr(call["arguments"]) for call in calls if not isinstance(call["arguments"], str)]
        values = [value for value in values if value not in ("{}", "[]")]
        scores = []
        for number, form in enumerate(_FORMS):
            try:
                text = _tried(render, form(messages), tools)[0]
            except DataError:
                continue
            lost = sum(name not in text for name in {call["name"] for call in calls})
            scores.append((lost, sum(text.count(value) for value in values), len(_NULL.findall(text)), number))
        return _FORMS[min(scores)[-1]] if scores else _FORMS[0]


def _tried(render: Callable, messages: Messages, tools: Sequence[dict]) -> tuple[str, list]:
    try:
        return render(messages, tools)
    except Exception as error:  # a template may raise anything, jinja2.TemplateError above all
        raise DataError(f"the chat template refuses this conversation: {error}") from None


def _as_given(messages: Messages) -> Messages:
    return messages


def _content_empty(messages: Messages) -> Messages:
    return [message | {"content": message.get("content") or ""} for message in messages]


def _content_absent(messages: Messages) -> Messages:
    return [{k: v for k, v in message.items() if (k, v) != ("content", None)} for message in messages]


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
    _content_empty,
    _content_absent,
    _arguments_as_text,
    lambda messages: _arguments_as_text(_content_empty(messages)),
)


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Under every name that templates read it, as transformers does it."""
    thought = next((message[key] for key in _REASONING if message.get(key) is not None), None)
    return message if thought is None else {"thinking": thought, **message, "reasoning_content": thought}
