"""Memory of an engine, which answers for the server: the same arithmetic as of a run, without what training takes."""

from engine.models.device_limits import ANSWER_CACHE_BYTES, ANSWER_ROWS, MOST_ADAPTERS, PREFILL_TOKENS
from engine.models.model_shape import find_shape
from engine.plan.activations import passing_per_token
from engine.plan.memory import (
    CUDA_CONTEXT_BYTES,
    EstimateInputs,
    adapter_numbers,
    adapter_of,
    arithmetic,
    host_context,
    logits_bytes,
    weights_bytes,
)
from engine.settings.schema import RunConfig


def answering_bytes(config: RunConfig, inputs: EstimateInputs) -> dict[str, int] | None:
    """Bytes by part of an engine of this model; None for a model whose shape is not known.

    The cache is what the engine may take at most, or what all its rows need where that is less; adapters are those of
    this run's form, as many as stay loaded.
    """
    shape = find_shape(config.model)
    if shape is None:
        return None
    how, adapter = arithmetic(config, inputs), adapter_of(config)
    cache_width = 2 if how.cast or how.weights == 2 else 4
    row = 2 * shape.layers * shape.key * cache_width * config.data.max_length
    parts = weights_bytes(config, shape, how)
    parts["cache"] = min(ANSWER_CACHE_BYTES[inputs.device], 2 * ANSWER_ROWS * row)
    read = 2 * shape.layers * shape.key * cache_width + passing_per_token(shape, how, None)
    parts["pass"] = PREFILL_TOKENS * read + logits_bytes(shape, how, ANSWER_ROWS)
    if adapter:
        parts["adapters"] = MOST_ADAPTERS * how.weights * adapter_numbers(shape, adapter)
    parts["context"] = CUDA_CONTEXT_BYTES if inputs.device == "cuda" else host_context(how)
    return parts
