"""How each row of a batch draws its next token: temperature, nucleus, penalties, biases, and with a seed of its own."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RowSampling:
    """As OpenAI's API names and bounds them."""

    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    top_logprobs: int | None = None
    """How many of the likeliest tokens are told with each; None: no log probabilities at all."""

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> "RowSampling":
        bias = {int(token): float(value) for token, value in fields.get("logit_bias", {}).items()}
        return RowSampling(**{**fields, "logit_bias": bias})


@dataclass(frozen=True)
class TokenLogprob:
    """A token's log probability by the model itself, before temperature, and the likeliest beside it."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class RowSampler:
    """Draws the tokens of one answer; the draws depend on seed and index only, not on what else is in the batch."""

    def __init__(self, sampling: RowSampling, index: int) -> None:
        """`index`: of the answer among those to one request."""
        self.sampling = sampling
        self._written: Counter[int] = Counter()
        self._generator: torch.Generator | None = None
        self._seeds = [sampling.seed, index]

    def choose(self, logits: Tensor) -> tuple[int, TokenLogprob | None]:
        """The next token, by float32 logits of shape (vocabulary,)."""
        token = int(self._shaped(logits).argmax())
        self._written[token] += 1
        if self.sampling.top_logprobs is None:
            return token, None
        logprobs = logits.log_softmax(-1)
        best = logprobs.topk(self.sampling.top_logprobs)
        top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return token, TokenLogprob(token, float(logprobs[token]), top)

    def _shaped(self, logits: Tensor) -> Tensor:
        """Logits whose largest is the token drawn (Gumbel-max, see `generate.Writing.choose`)."""
        sampling = self.sampling
        if sampling.logit_bias or (self._written and (sampling.presence_penalty or sampling.frequency_penalty)):
            logits = logits.clone()
            for token, bias in sampling.logit_bias.items():
                logits[token] += bias
            for token, count in self._written.items():
                logits[token] -= sampling.presence_penalty + sampling.frequency_penalty * count
        if sampling.temperature == 0:
            return logits
        logits = logits / sampling.temperature
        if sampling.top_p < 1:
            logits = nucleus(logits, sampling.top_p)
        if self._generator is None:
            seed = int(np.random.SeedSequence(self._seeds).generate_state(1, np.uint64)[0])
            self._generator = torch.Generator().manual_seed(seed)
        noise = torch.empty(logits.shape[-1]).exponential_(generator=self._generator)
        return logits - noise.to(logits.device).log()


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Without the tokens beyond the smallest set of likeliest ones that holds `top_p` (Holtzman et al. 2020,
    arXiv 1904.09751); the likeliest always stays."""
    ordered, order = logits.sort(descending=True)
    probabilities = ordered.softmax(-1)
    beyond = probabilities.cumsum(-1) - probabilities >= top_p
    beyond[0] = False
    return logits.index_fill(0, order[beyond], float("-inf"))


def logprobs_json(tokenizer: Any, chosen: TokenLogprob) -> dict[str, Any]:
    """As chat completions have it: each token's text and bytes."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        text, raw = token_bytes(tokenizer, token)
        return {"token": text, "logprob": logprob if logprob > -9999 else -9999.0, "bytes": raw}

    return entry(chosen.token, chosen.logprob) | {"top_logprobs": [entry(*pair) for pair in chosen.top]}


def token_bytes(tokenizer: Any, token: int) -> tuple[str, list[int]]:
    """A token's text, where it is whole characters, and its bytes."""
    text = tokenizer.decode([token])
    if "\N{REPLACEMENT CHARACTER}" not in text:
        return text, list(text.encode())
    raw = _byte_level(tokenizer.convert_ids_to_tokens(token))
    return "".join(f"\\x{byte:02x}" for byte in raw) if raw else text, list(raw) or list(text.encode())


def _byte_level(token: str) -> bytes:
    """The bytes of a token of a byte-level vocabulary (GPT-2's table), or of one that is named <0xE4>; else empty."""
    if token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    table = _byte_table()
    return bytes(table[char] for char in token) if all(char in table for char in token) else b""


@cache
def _byte_table() -> dict[str, int]:
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + number): byte for number, byte in enumerate(others)}
