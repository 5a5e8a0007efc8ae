"""How likely a prompt itself is, token by token: what `echo` with `logprobs` tells, and harnesses score choices by."""

import torch
from transformers import PreTrainedModel

from engine.worker.answer.sampling import TokenLogprob
from engine.worker.model.load import Precision

_MOST_LOGITS = 2**27
"""float32 values that are made at a time."""


@torch.no_grad()
def prompt_logprobs(model: PreTrainedModel, precision: Precision, prompt: list[int], top: int) -> list[TokenLogprob]:
    """Of every token but the first, with the `top` likeliest at its place."""
    if len(prompt) < 2:
        return []
    ids = torch.tensor([prompt], device=precision.device)
    vocabulary = model.get_input_embeddings().weight.shape[0]  # type: ignore[union-attr, index]
    width = max(1, _MOST_LOGITS // int(vocabulary))  # type: ignore[call-overload]
    entries: list[TokenLogprob] = []
    for start in range(0, len(prompt) - 1, width):
        places = torch.arange(start, min(start + width, len(prompt) - 1), device=precision.device)
        with precision.context():
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=places).logits[0]
        logprobs = logits.float().log_softmax(-1)
        following = ids[0, places + 1]
        chosen = logprobs.gather(1, following[:, None])[:, 0]
        best = logprobs.topk(max(top, 1))
        for token, value, tokens, values in zip(
            following.tolist(), chosen.tolist(), best.indices.tolist(), best.values.tolist(), strict=True
        ):
            entries.append(TokenLogprob(token, value, tuple(zip(tokens, values, strict=True))[:top]))
    return entries
