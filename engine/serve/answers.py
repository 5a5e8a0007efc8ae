"""Answers on their way from an engine to a client: what every route that has them written shares."""

import asyncio
import contextlib
import json
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from engine.runs.model_refs import ModelRef
from engine.serve.api_errors import invalid, unsupported
from engine.serve.context import Context, context_of
from engine.serve.fields import Fields
from engine.serve.keys import caller_of
from engine.serve.models import find_model

Lines = AsyncGenerator[dict[str, Any]]
"""What an engine says of one request, see `engine.worker.answer`."""
_MOST_SCHEMA_BYTES, _DEEPEST_SCHEMA = 64 * 1024, 32
DONE = b"data: [DONE]\n\n"


@dataclass
class Choice:
    """One answer, as far as it is written."""

    text: str = ""
    finish_reason: str | None = None
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    """As chat completions have them."""
    tokens: int = 0

    def take(self, line: dict[str, Any]) -> None:
        """Put down what the engine says of it."""
        if line["kind"] == "text":
            self.text += line["text"]
            self.logprobs += line.get("logprobs") or []
        elif line["kind"] == "end":
            self.finish_reason, self.tokens = line["finish_reason"], line["tokens"]
            self.calls = [
                {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": call}
                for call in line.get("tool_calls") or ()
            ]


async def ask(request: Request, ref: ModelRef, name: str, question: dict[str, Any]) -> Lines:
    """What the engine says to it, counted for the key that asks. `name`: of the model, as the client has it."""
    context, read, written = context_of(request), 0, Counter[int]()
    try:
        async with contextlib.aclosing(context.engines.ask(ref, question)) as lines:
            async for line in lines:
                if line["kind"] == "begun":
                    read = line["prompt_tokens"]
                elif line["kind"] == "text":
                    written[line["index"]] += 1  # pieces of one token or more, should it not come to an end
                elif line["kind"] == "end":
                    written[line["index"]] = line["tokens"]
                yield line
    finally:
        if read:
            context.usage.count(caller_of(request).name, name, ref, read, written.total())


async def gather(request: Request, lines: Lines, choices: Sequence[Choice]) -> None:
    """Take all that is written. A client that leaves ends the work."""
    async with contextlib.aclosing(lines), _cancelled_with(request):
        async for line in lines:
            choices[line["index"]].take(line)


@contextlib.asynccontextmanager
async def _cancelled_with(request: Request) -> AsyncIterator[None]:
    task = asyncio.current_task()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        assert task is not None
        task.cancel()

    watching = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


def token_counts(prompt_tokens: int, choices: Sequence[Choice]) -> dict[str, Any]:
    """The three figures that every usage has."""
    written = sum(choice.tokens for choice in choices)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": written,
        "total_tokens": prompt_tokens + written,
    }


def model_for(context: Context, name: str, fields: Fields) -> tuple[ModelRef, dict[str, str]]:
    """The model that a request names, and the headers of its answer. Raises ApiError."""
    ref, remark = find_model(context, name)
    said = {"x-finetop-model": remark.encode("ascii", "replace").decode()} if remark else {}
    return ref, fields.headers | said


def with_system(messages: list[dict[str, Any]], ref: ModelRef) -> list[dict[str, Any]]:
    """With the system prompt that the model was trained with, where they have none."""
    system = ref.config.data.system
    has_none = system and messages[0]["role"] != "system"
    return [{"role": "system", "content": system}, *messages] if has_none else messages


def wants_usage(fields: Fields) -> bool:
    """What `stream_options` asks for."""
    options = fields.object("stream_options")
    if options is None:
        return False
    include_usage = bool(options.flag("include_usage"))
    options.ignore("include_obfuscation")
    options.finish()
    return include_usage


def check_schema(schema: Any, param: str) -> None:
    """Raises ApiError for one that is larger or deeper than any schema of a person's."""
    if len(json.dumps(schema)) > _MOST_SCHEMA_BYTES or _depth(schema) > _DEEPEST_SCHEMA:
        raise invalid(
            param,
            f"'{param}' may have {_MOST_SCHEMA_BYTES // 1024} KiB and {_DEEPEST_SCHEMA} levels.",
            "schema_too_large",
        )


def _depth(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, children), default=0)


def may_call(fields: Fields) -> bool:
    """Whether `tool_choice` leaves the tools to the model."""
    choice = fields.any("tool_choice")
    if choice not in (None, "auto", "none"):
        raise unsupported("tool_choice", "'tool_choice' may be auto or none here, so far.")
    return choice != "none"


def sse(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def event_stream(events: AsyncIterator[bytes], headers: dict[str, str]) -> StreamingResponse:
    """Server-sent events that nothing on the way keeps back."""
    unbuffered = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=unbuffered | headers)
