"""`POST /v1/completions`: text that goes on from a prompt, whole and streamed; `echo` with `logprobs` scores a text."""

import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.base.errors import is_utf8
from engine.serve.answers import (
    DONE,
    Choice,
    Lines,
    ask,
    event_stream,
    gather,
    model_for,
    sse,
    token_counts,
    wants_usage,
)
from engine.serve.api_errors import ApiError, invalid, unsupported
from engine.serve.context import context_of, in_thread
from engine.serve.fields import Fields, read_fields
from engine.serve.sampling_fields import read_sampling

_MOST_PROMPTS, _MOST_PROMPT_TOKENS = 2048, 2**20
_DEFAULT_TOKENS = 16


async def create_completion(request: Request) -> Response:
    """POST /v1/completions."""
    fields = await read_fields(request)
    name = fields.required_text("model", 256)
    prompts = _prompts(fields)
    choices = fields.integer("n", 1, 128) or 1
    best_of = fields.integer("best_of", 1, 20)
    if best_of is not None and best_of != choices:
        raise unsupported("best_of", "'best_of' must equal 'n' here.")
    if fields.text("suffix"):
        raise unsupported("suffix", "'suffix' is not supported: the models here do not fill in.")
    if len(prompts) * choices > _MOST_PROMPTS:
        raise invalid("n", f"'prompt' and 'n' ask for {len(prompts) * choices} texts; {_MOST_PROMPTS} are the most.")
    echo, is_streamed = bool(fields.flag("echo")), bool(fields.flag("stream"))
    top = fields.integer("logprobs", 0, 5)
    most = fields.integer("max_tokens", 0, 10**6)
    include_usage = wants_usage(fields)
    sampling, _, stop = read_sampling(
        fields.without("max_tokens", "logprobs", "max_completion_tokens"), most_logprobs=5
    )
    sampling["top_logprobs"] = top
    fields.ignore("user")
    fields.finish()
    ref, headers = await in_thread(model_for, context_of(request), name, fields)
    question: dict[str, Any] = {"prompts": prompts, "n": choices, "stop": stop, "sampling": sampling, "echo": echo}
    question["max_tokens"] = _DEFAULT_TOKENS if most is None else most
    lines = ask(request, ref, name, question)
    head = {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": name,
        "system_fingerprint": None,
    }
    begun = await anext(lines)
    made = [_begun_choice(begun, number // choices, echo) for number in range(len(prompts) * choices)]
    if is_streamed:
        return event_stream(_stream(head, made, begun, lines, top is not None, include_usage), headers)
    await gather(request, lines, made)
    shown = [
        {
            "text": choice.text,
            "index": number,
            "logprobs": _logprobs(choice.logprobs) if top is not None else None,
            "finish_reason": choice.finish_reason,
        }
        for number, choice in enumerate(made)
    ]
    return JSONResponse(
        {**head, "choices": shown, "usage": token_counts(begun["prompt_tokens"], made)}, headers=headers
    )


def _prompts(fields: Fields) -> list[str | list[int]]:
    """A text, texts, token ids, or lists of them."""
    prompt = fields.any("prompt")
    if prompt is None:
        raise ApiError(400, "'prompt' is missing.", code="missing_required_parameter", param="prompt")
    prompts = prompt if isinstance(prompt, list) and not _are_ids(prompt) else [prompt]
    if not prompts or len(prompts) > _MOST_PROMPTS:
        raise invalid("prompt", f"'prompt' must hold 1 to {_MOST_PROMPTS} prompts.")
    for text in prompts:
        if isinstance(text, str):
            if not text or not is_utf8(text):
                raise invalid("prompt", "'prompt' must be a text of at least one character.")
        elif not _are_ids(text) or len(text) > _MOST_PROMPT_TOKENS:
            raise invalid("prompt", "'prompt' must be texts or lists of token ids.", "invalid_type")
    return prompts


def _are_ids(value: Any) -> bool:
    is_list = isinstance(value, list) and bool(value)
    return is_list and all(type(token) is int and 0 <= token < 2**31 for token in value)


def _begun_choice(begun: dict[str, Any], prompt: int, echo: bool) -> Choice:
    if not echo:
        return Choice()
    scored = begun.get("prompt_logprobs")
    choice = Choice(begun["prompts"][prompt])
    if scored is not None:
        text = "".join(entry["token"] for entry in scored[prompt])
        first = choice.text.removesuffix(text) if text else choice.text
        # Nothing says how likely the first token is; null would be true, and the official client's types refuse it.
        choice.logprobs = [{"token": first, "logprob": 0.0, "top_logprobs": []}, *scored[prompt]]
    return choice


def _logprobs(entries: list[dict[str, Any]], offset: int = 0) -> dict[str, Any]:
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry["token"])
    tops = [{best["token"]: best["logprob"] for best in reversed(entry["top_logprobs"])} for entry in entries]
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": tops,
        "text_offset": offsets,
    }


async def _stream(
    head: dict[str, Any],
    choices: list[Choice],
    begun: dict[str, Any],
    lines: Lines,
    has_logprobs: bool,
    include_usage: bool,
) -> AsyncIterator[bytes]:
    shared = {**head, "usage": None} if include_usage else head

    def chunk(number: int, text: str, finish: str | None = None, entries: Any = None, offset: int = 0) -> bytes:
        logprobs = _logprobs(entries, offset) if has_logprobs and entries else None
        choice = {"text": text, "index": number, "logprobs": logprobs, "finish_reason": finish}
        return sse(shared | {"choices": [choice]})

    try:
        async with contextlib.aclosing(lines):
            for number, choice in enumerate(choices):
                if choice.text:
                    yield chunk(number, choice.text, None, choice.logprobs)
            async for line in lines:
                choice = choices[line["index"]]
                offset = len(choice.text)
                choice.take(line)
                if line["kind"] == "text" and (line["text"] or line.get("logprobs")):
                    yield chunk(line["index"], line["text"], None, line.get("logprobs"), offset)
                elif line["kind"] == "end":
                    yield chunk(line["index"], "", line["finish_reason"])
        if include_usage:
            yield sse(shared | {"choices": [], "usage": token_counts(begun["prompt_tokens"], choices)})
    except ApiError as error:
        yield sse(error.body)
    yield DONE
