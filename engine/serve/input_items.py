"""What a kept response was asked, as items."""

import json
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from engine.serve.context import context_of
from engine.serve.pages import page


async def list_input_items(request: Request) -> Response:
    """GET /v1/responses/{response}/input_items: all that led to it, the latest first; not its instructions."""
    response, messages = context_of(request).responses.find(request.path_params["response"])
    leading = messages[1 if response["instructions"] else 0 : -1]
    items = [item | {"status": "completed"} for message in leading for item in _items(message)]
    unique = response["id"].removeprefix("resp_")
    listed = [{"id": f"item_{unique}_{number}", **item} for number, item in enumerate(items)]
    return page(request, listed[::-1], default=20, most=100, ends=True, ordered=True)


def _items(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    role, content = message["role"], message.get("content")
    if role == "tool":
        yield {"type": "function_call_output", "call_id": message.get("tool_call_id", ""), "output": content}
        return
    if role != "assistant":
        yield {"type": "message", "role": role, "content": [{"type": "input_text", "text": content}]}
    elif content:
        part = {"type": "output_text", "text": content, "annotations": [], "logprobs": []}
        yield {"type": "message", "role": role, "content": [part]}
    for call in message.get("tool_calls") or ():
        function = call["function"]
        arguments = json.dumps(function["arguments"], ensure_ascii=False)
        yield {
            "type": "function_call",
            "call_id": call.get("id", ""),
            "name": function["name"],
            "arguments": arguments,
        }
