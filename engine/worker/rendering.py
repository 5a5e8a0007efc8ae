"""Conversations as a chat template writes them.

The template runs in transformers' own environment, compiled once. Only its clock is finetop's: a run renders by the
time it began, so that two renderings agree to the second, and a resumed run reads what it read before.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from engine.errors import DataError

Messages = Sequence[dict[str, Any]]

_MARK = re.compile(r"\{%-?\+?\s*generation\b")
_NULL = re.compile(r"\b(?:None|null)\b")
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
        if not any(message.get("content", "") is None for message in messages):
            return _tried(render, messages, tools)
        # Beside tool calls some templates want null, some a text; what the one writes for null is not the model's word.
        empty = [message | {"content": message["content"] or ""} for message in messages]
        absent = [{k: v for k, v in message.items() if (k, v) != ("content", None)} for message in messages]
        outcomes, refusal = [], None
        for written in (messages, empty, absent):
            try:
                outcome = _tried(render, written, tools)
            except DataError as error:
                refusal = refusal or error
                continue
            outcomes.append((_lost_calls(outcome[0], messages), len(_NULL.findall(outcome[0])), len(outcomes), outcome))
        if not outcomes:
            assert refusal is not None
            raise refusal
        return min(outcomes, key=lambda one: one[:3])[3]


def _tried(render: Callable, messages: Messages, tools: Sequence[dict]) -> tuple[str, list]:
    try:
        return render(messages, tools)
    except Exception as error:  # a template may raise anything, jinja2.TemplateError above all
        raise DataError(f"the chat template refuses this conversation: {error}") from None


def _lost_calls(text: str, messages: Messages) -> int:
    names = [call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()]
    return sum(name not in text for name in set(names))


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Under every name that templates read it, as transformers does it."""
    thought = next((message[key] for key in _REASONING if message.get(key) is not None), None)
    return message if thought is None else {"thinking": thought, **message, "reasoning_content": thought}
