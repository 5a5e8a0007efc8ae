"""Chat completions that were made with `store: true`: read, listed, given metadata, deleted."""

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.serve.api_errors import invalid, not_found
from engine.serve.context import context_of, in_thread
from engine.serve.fields import read_fields
from engine.serve.pages import one_page, order, page, page_limit


async def list_completions(request: Request) -> Response:
    """GET /v1/chat/completions, the oldest first, filtered by `model` and `metadata[key]=value`."""
    query = request.query_params
    metadata = {
        match[1]: value for name, value in query.multi_items() if (match := re.fullmatch(r"metadata\[(.+)\]", name))
    }
    limit = page_limit(request, default=20, most=100)
    is_descending = order(request) == "desc"
    find = context_of(request).completions.page
    completions = await in_thread(find, limit + 1, query.get("after"), is_descending, query.get("model"), metadata)
    return one_page(completions[:limit], len(completions) > limit, ends=True)


async def _found(request: Request) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    completion_id = request.path_params["completion"]
    kept = await in_thread(context_of(request).completions.find, completion_id)
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
    await in_thread(context_of(request).completions.set_metadata, completion["id"], metadata)
    return JSONResponse((await _found(request))[0])


async def delete_completion(request: Request) -> Response:
    """DELETE /v1/chat/completions/{completion}."""
    completion, _ = await _found(request)
    await in_thread(context_of(request).completions.remove, completion["id"])
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
