"""Is an export the same model: both are loaded as any program would, and their logits of a few texts compared."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.base.errors import CheckpointError, EngineError
from engine.base.messages import msg
from engine.settings.schema import RunConfig

EXACT = 1e-3
"""Largest difference of a logit, in standard deviations of the checkpoint's logits, that the order of sums explains.
Measured: under 1e-4. Merging and reading back must stay below it."""
ROUNDING = 2.0
"""The same for weights rounded to 16 bits, which has no exact bound: measured on the starter model 0.001 for float16
and 0.025 for bfloat16, and it grows with depth. Beyond this the model is another one: a float16 that overflowed."""
_PROBES = (
    "The quick brown fox jumps over the lazy dog. 0123456789",
    "高血压患者应当注意饮食，少吃盐，按时服药。",
    "def add(a: int, b: int) -> int:\n    return a + b\n",
    "I am still waiting on my card?",
)
PROBE_TOKENS = 64
"""The most of a text that is compared."""


def refuse_difference(expected: Sequence[Any], logits: Sequence[Any], problem: str) -> None:
    """CheckpointError, which begins with `problem`, unless both are the logits of one model."""
    difference, spread, _ = compare_logits(expected, logits)
    if not difference <= EXACT * spread:  # nor where it is NaN
        raise CheckpointError(
            msg(
                "{problem}: a logit differs by {difference:.3g}, where they scatter by {spread:.3g}",
                problem=problem,
                difference=difference,
                spread=spread,
            ),
            "Nothing was kept. Please report it with the model's name and the versions of transformers and peft.",
        )


def load_plain_model(folder: Path | str, revision: str | None = None, **options: Any) -> Any:
    """The model of a folder or hub name in float32, by transformers alone."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = options.get("config") or AutoConfig.from_pretrained(str(folder), revision=revision, **options)
    if getattr(shape.get_text_config(), "attn_logit_softcapping", None):
        # Gemma 2: transformers 5.17 takes SDPA by default, which leaves the softcap out.
        options["attn_implementation"] = "eager"
    return AutoModelForCausalLM.from_pretrained(str(folder), revision=revision, dtype=torch.float32, **options).eval()


def load_plain_adapter(folder: Path, config: RunConfig) -> Any:
    """The adapter of a folder on the base it names, by peft alone."""
    from peft import PeftModel

    base = json.loads((folder / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]
    model = load_plain_model(base, config.model.revision or None, **trust_options(config))
    return PeftModel.from_pretrained(model, str(folder)).eval()


def trust_options(config: RunConfig) -> dict[str, Any]:
    """For `from_pretrained`, where the model's own code is trusted."""
    return {"trust_remote_code": True} if config.model.trust_remote_code else {}


def probe_ids(tokenizer: Any, limit: int) -> list[list[int]]:
    """Short texts in several scripts, and a question as the chat template writes it."""
    texts = list(_PROBES)
    if tokenizer.chat_template:
        with contextlib.suppress(Exception):  # some templates insist on more than one message
            question = [{"role": "user", "content": _PROBES[-1]}]
            texts.append(tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True))
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"][:limit] for text in texts]
    return [ids for ids in encoded if ids]


def logits_of(model: Any, probes: Sequence[list[int]]) -> list[Any]:
    """Of each text (tokens, vocabulary), float32 on the CPU."""
    import torch

    with torch.no_grad():
        inputs = (torch.tensor([ids], device=model.device) for ids in probes)
        return [model(input_ids=batch, use_cache=False).logits[0].float().cpu() for batch in inputs]


def compare_logits(reference: Sequence[Any], logits: Sequence[Any]) -> tuple[float, float, float]:
    """Largest difference of a logit, standard deviation of the reference, share of positions with the same first."""
    import torch

    a, b = torch.cat(list(reference)), torch.cat(list(logits))
    width = min(a.shape[1], b.shape[1])
    a, b = a[:, :width], b[:, :width]
    return float((a - b).abs().max()), float(a.std()), float((a.argmax(-1) == b.argmax(-1)).float().mean())


def difference_as_trained(
    saved: Any, config: RunConfig, source: str, probes: Sequence[list[int]], exported_logits: list[Any]
) -> float | None:
    """For QLoRA: against the model on its 4-bit base. None where that cannot be run here."""
    if config.method.kind != "qlora":
        return None
    from engine.worker.model.load import choose_precision, load_base, make_trainable, pick_device
    from engine.worker.runtime.resume_checks import load_adapter

    try:
        precision = choose_precision(config, pick_device())
        with quiet_libraries():
            model = make_trainable(load_base(config, precision, source), config)
            load_adapter(model, saved)
            model.eval()
            logits = logits_of(model, probes)
        return compare_logits(logits, exported_logits)[0]
    except (EngineError, RuntimeError):  # no bitsandbytes, no room on the GPU
        return None


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Without the libraries' progress bars and their warnings about what is done here on purpose."""
    import warnings

    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
