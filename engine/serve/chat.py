"""`POST /v1/chat/completions`, whole and streamed."""

import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.formats.messages import read_messages
from engine.formats.row_errors import RowRejected
from engine.formats.tool_calls import read_tools
from engine.runs.model_refs import ModelRef
from engine.serve.answers import (
    DONE,
    Choice,
    Lines,
    ask,
    check_schema,
    event_stream,
    gather,
    may_call,
    model_for,
    sse,
    token_counts,
    wants_usage,
    with_system,
)
from engine.serve.api_errors import ApiError, invalid, unsupported
from engine.serve.context import Context, context_of, in_thread
from engine.serve.fields import Fields, read_fields
from engine.serve.sampling_fields import read_sampling

_MOST_MESSAGES, _MOST_TOOLS, _MOST_CHOICES = 4096, 128, 128
_CHANGES_NOTHING = (
    "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier", "parallel_tool_calls",
    "reasoning_effort", "verbosity",
)  # fmt: skip
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


@dataclass(frozen=True)
class ChatRequest:
    """A chat completion to be made."""

    model: str
    """As the client named it, and will read it again."""
    ref: ModelRef
    engine: dict[str, Any]
    """What the engine is asked."""
    choices: int
    has_logprobs: bool
    is_streamed: bool
    include_usage: bool
    headers: dict[str, str]
    kept: dict[str, Any] | None
    """What of the request is kept with the completion; None: nothing."""


async def create_chat_completion(request: Request) -> Response:
    """POST /v1/chat/completions."""
    fields = await read_fields(request)
    chat = await in_thread(_requested, request, fields)
    lines = ask(request, chat.ref, chat.model, chat.engine)
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": chat.model}
    first = await anext(lines)  # `begun`: what is refused is refused before a stream begins
    if chat.is_streamed:
        return event_stream(_stream(context_of(request), chat, head, first, lines), chat.headers)
    choices = [Choice() for _ in range(chat.choices)]
    await gather(request, lines, choices)
    return JSONResponse(await _completed(context_of(request), chat, head, first, choices), headers=chat.headers)


async def _completed(
    context: Context, chat: ChatRequest, head: dict[str, Any], begun: dict[str, Any], choices: list[Choice]
) -> dict[str, Any]:
    """The completion, kept where the request asks for that."""
    shown = [_whole(number, choice, chat.has_logprobs) for number, choice in enumerate(choices)]
    body = {**head, "object": "chat.completion", "system_fingerprint": None}
    body |= {"choices": shown, "usage": _usage(begun["prompt_tokens"], choices)}
    if chat.kept is not None:
        await in_thread(context.completions.keep, body | chat.kept, chat.engine["messages"])
    return body


def _requested(request: Request, fields: Fields) -> ChatRequest:
    name = fields.required_text("model", 256)
    messages = _messages(fields)
    tools = _tools(fields)
    sampling, most, stop = read_sampling(fields, most_logprobs=20)
    is_streamed = bool(fields.flag("stream"))
    if fields.has("stream_options") and not is_streamed:
        raise invalid("stream_options", "'stream_options' is for streams only.")
    include_usage = wants_usage(fields)
    choices = fields.integer("n", 1, _MOST_CHOICES) or 1
    if (form := fields.object("response_format")) is not None:
        kind = form.text("type")
        if kind != "text":
            raise unsupported("response_format", f"'response_format' of type '{str(kind)[:40]}' is not supported yet.")
    store, metadata = fields.flag("store"), fields.metadata()
    if store is None:
        store = context_of(request).config.store == "always"
    if metadata is not None and not store:
        fields.ignored.append("metadata")  # it is kept with what is stored
    modalities = fields.listed("modalities", 4)
    if modalities not in (None, ["text"]):
        raise unsupported("modalities", "This server answers in text.")
    fields.ignore(*_CHANGES_NOTHING)
    fields.finish()
    ref, headers = model_for(context_of(request), name, fields)
    engine = {
        "messages": with_system(messages, ref),
        "tools": tools,
        "n": choices,
        "max_tokens": most,
        "stop": stop,
        "sampling": sampling,
    }
    has_logprobs = sampling["top_logprobs"] is not None
    kept = {"metadata": metadata or {}} if store else None
    return ChatRequest(name, ref, engine, choices, has_logprobs, is_streamed, include_usage, headers, kept)


def _messages(fields: Fields) -> list[dict[str, Any]]:
    """In the engine's form."""
    listed = fields.listed("messages", _MOST_MESSAGES)
    if not listed:
        raise ApiError(400, "'messages' is missing or empty.", code="missing_required_parameter", param="messages")
    for number, message in enumerate(listed):
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in _ROLES:
            raise invalid(
                f"messages[{number}].role", f"'messages[{number}].role' must be one of {', '.join(sorted(_ROLES))}."
            )
    try:
        messages = read_messages(listed, "messages")
    except RowRejected as rejected:
        raise invalid("messages", rejected.message) from None
    if messages[-1]["role"] == "assistant":
        raise invalid("messages", "The last message is the assistant's: there is nothing to answer.")
    return messages


def _tools(fields: Fields) -> list[dict[str, Any]]:
    listed = fields.listed("tools", _MOST_TOOLS) or []
    try:
        tools = list(read_tools(listed, "tools"))
    except RowRejected as rejected:
        raise invalid("tools", rejected.message) from None
    for number, tool in enumerate(tools):
        if not isinstance(tool["function"].get("name"), str) or not tool["function"]["name"]:
            raise invalid(f"tools[{number}]", f"'tools[{number}].function.name' is missing.")
        check_schema(tool["function"].get("parameters"), f"tools[{number}].function.parameters")
    return tools if may_call(fields) else []


def _usage(prompt_tokens: int, choices: list[Choice]) -> dict[str, Any]:
    return {
        **token_counts(prompt_tokens, choices),
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _whole(number: int, choice: Choice, has_logprobs: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []}
    if choice.calls:
        message |= {"content": choice.text or None, "tool_calls": choice.calls}
    logprobs = {"content": choice.logprobs, "refusal": None} if has_logprobs else None
    return {"index": number, "message": message, "logprobs": logprobs, "finish_reason": choice.finish_reason}


async def _stream(
    context: Context,
    chat: ChatRequest,
    head: dict[str, Any],
    begun: dict[str, Any],
    lines: Lines,
) -> AsyncIterator[bytes]:
    """Server-sent events. An error under way is one, too, and the last."""
    shared = {**head, "object": "chat.completion.chunk", "system_fingerprint": None}
    if chat.include_usage:
        shared["usage"] = None

    def chunk(number: int, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> bytes:
        choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return sse(shared | {"choices": [choice]})

    choices = [Choice() for _ in range(chat.choices)]
    try:
        async with contextlib.aclosing(lines):
            for number in range(chat.choices):  # clients make their choices in the order of these
                yield chunk(number, {"role": "assistant", "content": "", "refusal": None})
            async for line in lines:
                number = line["index"]
                choices[number].take(line)
                if line["kind"] == "text":
                    logprobs = {"content": line["logprobs"], "refusal": None} if line.get("logprobs") else None
                    if line["text"] or logprobs:
                        yield chunk(number, {"content": line["text"]}, logprobs=logprobs)
                elif line["kind"] == "end":
                    for at, call in enumerate(choices[number].calls):
                        yield chunk(number, {"tool_calls": [{"index": at, **call}]})
                    yield chunk(number, {}, line["finish_reason"])
        completion = await _completed(context, chat, head, begun, choices)
        if chat.include_usage:
            yield sse(shared | {"choices": [], "usage": completion["usage"]})
    except ApiError as error:
        yield sse(error.body)
    yield DONE
