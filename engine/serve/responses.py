"""`/v1/responses`: one text from instructions and items, whole and streamed, each able to go on from an earlier one.

Responses are kept in memory for a while, so that `previous_response_id` works; on disk nothing of them is kept.
"""

import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.formats.messages import read_messages
from engine.formats.row_errors import RowRejected
from engine.formats.tool_calls import read_tools
from engine.serve.answers import (
    Choice,
    Lines,
    ask,
    check_schema,
    event_stream,
    gather,
    may_call,
    model_for,
    sse,
    with_system,
)
from engine.serve.api_errors import ApiError, invalid, unsupported
from engine.serve.context import Context, context_of, in_thread
from engine.serve.fields import Fields, read_fields
from engine.serve.sampling_fields import read_sampling

_CHANGES_NOTHING = (
    "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier", "store", "reasoning",
    "include", "parallel_tool_calls", "max_tool_calls", "truncation", "metadata", "stream_options",
)  # fmt: skip


async def create_response(request: Request) -> Response:
    """POST /v1/responses."""
    context, fields = context_of(request), await read_fields(request)
    body, messages, question, is_streamed, name = await in_thread(_requested, context, fields)
    ref, headers = await in_thread(model_for, context, name, fields)
    question["messages"] = with_system(messages, ref)
    lines = ask(request, ref, name, question)
    begun = await anext(lines)
    if is_streamed:
        return event_stream(_stream(context, body, messages, begun, lines), headers)
    choice = Choice()
    await gather(request, lines, [choice])
    _complete(body, choice, begun["prompt_tokens"])
    context.responses.keep(body, [*messages, _answer(choice)])
    return JSONResponse(body, headers=headers)


def _requested(
    context: Context, fields: Fields
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any], bool, str]:
    name = fields.required_text("model", 256)
    instructions = fields.text("instructions")
    previous = fields.text("previous_response_id", longest=100)
    earlier = context.responses.find(previous, "previous_response_id")[1] if previous else []
    messages = [*(m for m in earlier if m["role"] != "system" or not instructions), *_input(fields)]
    if instructions:
        messages = [{"role": "system", "content": instructions}, *messages]
    if messages[-1]["role"] == "assistant":
        raise invalid("input", "The last item is the assistant's: there is nothing to answer.")
    tools = _tools(fields)
    if (text := fields.object("text")) is not None:
        form = text.object("format")
        if form is not None and form.text("type") != "text":
            raise unsupported("text.format", "Only plain text is supported yet.")
        text.ignore("verbosity")
        text.finish()
    if fields.flag("background"):
        raise unsupported("background", "Background responses are not supported.")
    if fields.has("conversation"):
        raise unsupported("conversation", "Conversations are not supported; previous_response_id is.")
    most = fields.integer("max_output_tokens", 1, 10**6)
    is_streamed = bool(fields.flag("stream"))
    sampling, _, _ = read_sampling(fields, most_logprobs=0)
    metadata = fields.metadata()
    fields.ignore(*_CHANGES_NOTHING)
    fields.finish()
    question = {"messages": messages, "tools": tools, "n": 1, "max_tokens": most, "stop": [], "sampling": sampling}
    body = {
        "id": f"resp_{secrets.token_hex(24)}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": instructions,
        "max_output_tokens": most,
        "metadata": metadata or {},
        "model": name,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": previous,
        "temperature": sampling["temperature"],
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [_own_tool(tool) for tool in tools],
        "top_p": sampling["top_p"],
        "truncation": "disabled",
        "usage": None,
    }
    return body, messages, question, is_streamed, name


def _input(fields: Fields) -> list[dict[str, Any]]:
    """A text, or items: messages, calls and their results."""
    input_value = fields.any("input")
    if input_value is None or input_value == "" or input_value == []:
        raise ApiError(400, "'input' is missing.", code="missing_required_parameter", param="input")
    items = [{"role": "user", "content": input_value}] if isinstance(input_value, str) else input_value
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items) or len(items) > 4096:
        raise invalid("input", "'input' must be a text or a list of items.", "invalid_type")
    try:
        return read_messages([_as_message(item, number) for number, item in enumerate(items)], "input")
    except RowRejected as rejected:
        raise invalid("input", rejected.message) from None


def _as_message(item: dict[str, Any], number: int) -> dict[str, Any]:
    kind = item.get("type", "message")
    if kind == "message":
        content = item.get("content")
        if isinstance(content, list):
            content = [
                {"type": "text", "text": part.get("text")}
                if isinstance(part, dict) and part.get("type") in ("input_text", "output_text", "text")
                else part
                for part in content
            ]
        return {"role": item.get("role"), "content": content}
    if kind == "function_call":
        call = {"name": item.get("name"), "arguments": item.get("arguments")}
        call_id = item.get("call_id")
        calls = [{"id": call_id, "type": "function", "function": call}]
        return {"role": "assistant", "content": None, "tool_calls": calls}
    if kind == "function_call_output":
        output = item.get("output")
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": output}
    raise unsupported(f"input[{number}].type", f"Items of type '{str(kind)[:40]}' are not supported.")


def _tools(fields: Fields) -> list[dict[str, Any]]:
    listed = fields.listed("tools", 128) or []
    is_offered = may_call(fields)
    for number, tool in enumerate(listed):
        if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("name"), str):
            raise unsupported(f"tools[{number}]", "Only tools of type 'function' are supported.")
        check_schema(tool.get("parameters"), f"tools[{number}].parameters")
    try:
        tools = list(
            read_tools([{k: v for k, v in tool.items() if k not in ("type", "strict")} for tool in listed], "tools")
        )
    except RowRejected as rejected:
        raise invalid("tools", rejected.message) from None
    return tools if is_offered else []


def _own_tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    return {
        "type": "function",
        "name": function["name"],
        "description": function.get("description"),
        "parameters": function.get("parameters"),
        "strict": False,
    }


def _answer(choice: Choice) -> dict[str, Any]:
    """What was answered, as a message of the conversation."""
    if not choice.calls:
        return {"role": "assistant", "content": choice.text or " "}
    message = {"role": "assistant", "content": choice.text or None, "tool_calls": choice.calls}
    return read_messages([message], "output")[0]


def _message_item(item_id: str, text: str, status: str = "completed") -> dict[str, Any]:
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": [_part(text)]}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _complete(body: dict[str, Any], choice: Choice, read: int, item_id: str = "") -> None:
    """Fill in what there is to say of a response that has ended."""
    is_cut = choice.finish_reason == "length"
    status = "incomplete" if is_cut else "completed"
    if choice.text or not choice.calls:
        body["output"].append(_message_item(item_id or f"msg_{secrets.token_hex(12)}", choice.text, status))
    for call in choice.calls:
        names = {"id": f"fc_{secrets.token_hex(12)}", "call_id": call["id"]}
        body["output"].append({"type": "function_call", "status": "completed", **names, **call["function"]})
    body["status"] = status
    body["incomplete_details"] = {"reason": "max_output_tokens"} if is_cut else None
    body["usage"] = {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": choice.tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + choice.tokens,
    }


async def _stream(
    context: Context,
    body: dict[str, Any],
    messages: list[dict[str, Any]],
    begun: dict[str, Any],
    lines: Lines,
) -> AsyncIterator[bytes]:
    number = -1

    def event(kind: str, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        return f"event: {kind}\n".encode() + sse({"type": kind, "sequence_number": number, **fields})

    item_id, choice = f"msg_{secrets.token_hex(12)}", Choice()
    at = {"item_id": item_id, "output_index": 0, "content_index": 0}
    yield event("response.created", response=body)
    yield event("response.in_progress", response=body)
    try:
        async with contextlib.aclosing(lines):
            async for line in lines:
                is_first = not choice.text
                choice.take(line)
                if line["kind"] == "text" and line["text"]:
                    if is_first:
                        item = _message_item(item_id, "", "in_progress") | {"content": []}
                        yield event("response.output_item.added", output_index=0, item=item)
                        yield event("response.content_part.added", **at, part=_part(""))
                    yield event("response.output_text.delta", **at, delta=line["text"], logprobs=[])
    except ApiError as error:
        failed = body | {"status": "failed", "error": {"code": "server_error", "message": error.message}}
        yield event("response.failed", response=failed)
        return
    _complete(body, choice, begun["prompt_tokens"], item_id)
    if choice.text:
        yield event("response.output_text.done", **at, text=choice.text, logprobs=[])
        yield event("response.content_part.done", **at, part=_part(choice.text))
    for index, item in enumerate(body["output"]):
        if item["type"] == "function_call":
            opened = item | {"arguments": "", "status": "in_progress"}
            yield event("response.output_item.added", output_index=index, item=opened)
            item_place = {"item_id": item["id"], "output_index": index}
            yield event("response.function_call_arguments.delta", **item_place, delta=item["arguments"])
            yield event(
                "response.function_call_arguments.done", **item_place, name=item["name"], arguments=item["arguments"]
            )
        if choice.text or item["type"] == "function_call":
            yield event("response.output_item.done", output_index=index, item=item)
    context.responses.keep(body, [*messages, _answer(choice)])
    kind = "response.incomplete" if body["status"] == "incomplete" else "response.completed"
    yield event(kind, response=body)


async def retrieve_response(request: Request) -> Response:
    """GET /v1/responses/{response}."""
    return JSONResponse(context_of(request).responses.find(request.path_params["response"])[0])


async def delete_response(request: Request) -> Response:
    """DELETE /v1/responses/{response}."""
    response_id = request.path_params["response"]
    context_of(request).responses.forget(response_id)
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


async def cancel_response(request: Request) -> Response:
    """POST /v1/responses/{response}/cancel: an error always, since that is for responses in the background."""
    context_of(request).responses.find(request.path_params["response"])
    raise invalid("response_id", "Only background responses can be cancelled, and this server makes none.")
