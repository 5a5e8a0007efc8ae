"""How an answer is drawn, read from a request: the same fields in every route that has answers written."""

import secrets
from typing import Any

from engine.serve.api_errors import ApiError, invalid
from engine.serve.fields import Fields

_MOST_TOKENS = 10**6
_MOST_STOPS, _LONGEST_STOP = 4, 1024
_MOST_BIASES = 1024


def read_sampling(fields: Fields, most_logprobs: int) -> tuple[dict[str, Any], int | None, list[str]]:
    """(what the engine draws by, tokens at most or None, stop strings). Raises ApiError."""
    most = fields.integer("max_completion_tokens", 1, _MOST_TOKENS)
    older = fields.integer("max_tokens", 1, _MOST_TOKENS)
    stop = fields.texts("stop", _MOST_STOPS) or []
    if any(not text or len(text) > _LONGEST_STOP for text in stop):
        raise invalid("stop", f"'stop' must hold texts of 1 to {_LONGEST_STOP} characters.")
    seed = fields.integer("seed", -(2**63), 2**63 - 1)
    temperature, top_p = fields.number("temperature", 0, 2), fields.number("top_p", 0, 1)
    sampling = {
        "temperature": 1.0 if temperature is None else temperature,
        "top_p": 1.0 if top_p is None else top_p,
        "presence_penalty": fields.number("presence_penalty", -2, 2) or 0.0,
        "frequency_penalty": fields.number("frequency_penalty", -2, 2) or 0.0,
        "logit_bias": _biases(fields),
        "seed": secrets.randbits(63) if seed is None else seed % 2**64,
        "top_logprobs": _logprobs(fields, most_logprobs),
    }
    return sampling, older if most is None else most, stop


def _logprobs(fields: Fields, most: int) -> int | None:
    """How many of the likeliest tokens are told with each; None: nothing of the kind."""
    has_logprobs, top = fields.flag("logprobs"), fields.integer("top_logprobs", 0, most)
    if top is not None and not has_logprobs:
        raise ApiError(400, "'top_logprobs' needs 'logprobs' to be true.", code="invalid_value", param="top_logprobs")
    return (top or 0) if has_logprobs else None


def _biases(fields: Fields) -> dict[str, float]:
    biases = fields.object("logit_bias")
    items = biases.items() if biases is not None else []
    if len(items) > _MOST_BIASES:
        raise invalid("logit_bias", f"'logit_bias' has {len(items)} entries; {_MOST_BIASES} are the most.")
    for token, bias in items:
        is_token = token.isascii() and token.isdecimal() and len(token) < 10
        if not is_token or isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise invalid("logit_bias", "'logit_bias' must map token ids to numbers between -100 and 100.")
    return {token: float(bias) for token, bias in items}
