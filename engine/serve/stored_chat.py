"""Chat completions that were made with `store: true`: read, listed, given metadata, deleted."""

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.serve.api_errors import invalid, not_found
from engine.serve.context import context_of, in_thread
from engine.serve.fields import read_fields
from engine.serve.pages import page


async def list_completions(request: Request) -> Response:
    """GET /v1/chat/completions, the oldest first, filtered by `model` and `metadata[key]=value`."""
    completions = await in_thread(context_of(request).store.completions)
    for name, value in request.query_params.multi_items():
        if name == "model":
            completions = [completion for completion in completions if completion["model"] == value]
        elif match := re.fullmatch(r"metadata\[(.+)\]", name):
            key = match[1]
            completions = [completion for completion in completions if completion["metadata"].get(key) == value]
    if request.query_params.get("order") == "desc":
        completions.reverse()
    return page(request, completions, default=20, most=100, ends=True)


async def _found(request: Request) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    completion_id = request.path_params["completion"]
    kept = await in_thread(context_of(request).store.completion, completion_id)
    if kept is None:
        raise not_found("chat completion", completion_id, "completion_id")
    return kept


async def retrieve_completion(request: Request) -> Response:
    """GET /v1/chat/completions/{completion}."""
    return JSONResponse((await _found(request))[0])


async def update_completion(request: Request) -> Response:
    """POST /v1/chat/completions/{completion}: its metadata."""
    fields = await read_fields(request)
    metadata = fields.metadata()
    fields.finish()
    if metadata is None:
        raise invalid("metadata", "'metadata' is missing.", "missing_required_parameter")
    completion, _ = await _found(request)
    await in_thread(context_of(request).store.set_metadata, completion["id"], metadata)
    return JSONResponse((await _found(request))[0])


async def delete_completion(request: Request) -> Response:
    """DELETE /v1/chat/completions/{completion}."""
    completion, _ = await _found(request)
    await in_thread(context_of(request).store.remove_completion, completion["id"])
    return JSONResponse({"id": completion["id"], "object": "chat.completion.deleted", "deleted": True})


async def list_messages(request: Request) -> Response:
    """GET /v1/chat/completions/{completion}/messages: what was asked, in its order."""
    completion, messages = await _found(request)
    listed = [
        {"id": f"{completion['id']}-{number}", "content_parts": None, "refusal": None, **_text_of(message)}
        for number, message in enumerate(messages)
    ]
    if request.query_params.get("order") == "desc":
        listed.reverse()
    return page(request, listed, default=20, most=100, ends=True)


def _text_of(message: dict[str, Any]) -> dict[str, Any]:
    return {"role": message["role"], "content": message.get("content")}
