"""Shapes of the common models, for when neither a folder nor the hub's cache has their config.json.

The values are those of the models' public config.json files; tests compare the parameters they make with the counts
published on the model cards.
"""

import re
from typing import Any


def _dense(kind: str, hidden: int, layers: int, heads: int, kv: int, inner: int, vocab: int, **more: Any) -> dict:
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": inner,
        "vocab_size": vocab,
        "tie_word_embeddings": False,
        **more,
    }


_TIED = {"tie_word_embeddings": True}
_GEMMA = {"tie_word_embeddings": True, "head_dim": 256}
_QWEN3 = {"head_dim": 128}
_GLM = {"head_dim": 128, "attention_bias": True}

KNOWN: dict[str, dict[str, Any]] = {
    "qwen2.5-0.5b": _dense("qwen2", 896, 24, 14, 2, 4864, 151936, **_TIED),
    "qwen2.5-1.5b": _dense("qwen2", 1536, 28, 12, 2, 8960, 151936, **_TIED),
    "qwen2.5-3b": _dense("qwen2", 2048, 36, 16, 2, 11008, 151936, **_TIED),
    "qwen2.5-7b": _dense("qwen2", 3584, 28, 28, 4, 18944, 152064),
    "qwen2.5-14b": _dense("qwen2", 5120, 48, 40, 8, 13824, 152064),
    "qwen2.5-32b": _dense("qwen2", 5120, 64, 40, 8, 27648, 152064),
    "qwen2.5-72b": _dense("qwen2", 8192, 80, 64, 8, 29568, 152064),
    "qwen3-0.6b": _dense("qwen3", 1024, 28, 16, 8, 3072, 151936, **_QWEN3, **_TIED),
    "qwen3-1.7b": _dense("qwen3", 2048, 28, 16, 8, 6144, 151936, **_QWEN3, **_TIED),
    "qwen3-4b": _dense("qwen3", 2560, 36, 32, 8, 9728, 151936, **_QWEN3, **_TIED),
    "qwen3-8b": _dense("qwen3", 4096, 36, 32, 8, 12288, 151936, **_QWEN3),
    "qwen3-14b": _dense("qwen3", 5120, 40, 40, 8, 17408, 151936, **_QWEN3),
    "qwen3-32b": _dense("qwen3", 5120, 64, 64, 8, 25600, 151936, **_QWEN3),
    "llama-2-7b": _dense("llama", 4096, 32, 32, 32, 11008, 32000),
    "llama-2-13b": _dense("llama", 5120, 40, 40, 40, 13824, 32000),
    "llama-3-8b": _dense("llama", 4096, 32, 32, 8, 14336, 128256),
    "llama-3-70b": _dense("llama", 8192, 80, 64, 8, 28672, 128256),
    "llama-3.1-8b": _dense("llama", 4096, 32, 32, 8, 14336, 128256),
    "llama-3.1-70b": _dense("llama", 8192, 80, 64, 8, 28672, 128256),
    "llama-3.2-1b": _dense("llama", 2048, 16, 32, 8, 8192, 128256, **_TIED),
    "llama-3.2-3b": _dense("llama", 3072, 28, 24, 8, 8192, 128256, **_TIED),
    "llama-3.3-70b": _dense("llama", 8192, 80, 64, 8, 28672, 128256),
    "tinyllama-1.1b": _dense("llama", 2048, 22, 32, 4, 5632, 32000),
    "smollm2-135m": _dense("llama", 576, 30, 9, 3, 1536, 49152, **_TIED),
    "smollm2-360m": _dense("llama", 960, 32, 15, 5, 2560, 49152, **_TIED),
    "smollm2-1.7b": _dense("llama", 2048, 24, 32, 32, 8192, 49152, **_TIED),
    "mistral-7b": _dense("mistral", 4096, 32, 32, 8, 14336, 32768),
    "mistral-7b-v0.1": _dense("mistral", 4096, 32, 32, 8, 14336, 32000, sliding_window=4096),
    "mistral-7b-v0.2": _dense("mistral", 4096, 32, 32, 8, 14336, 32000),
    "mistral-nemo": _dense("mistral", 5120, 40, 32, 8, 14336, 131072, head_dim=128),
    "glm-4-9b": _dense("glm", 4096, 40, 32, 2, 13696, 151552, **_GLM),
    "glm-4-9b-0414": _dense("glm4", 4096, 40, 32, 2, 13696, 151552, **_GLM),
    "glm-4-32b-0414": _dense("glm4", 6144, 61, 48, 2, 23040, 151552, head_dim=128),
    "gemma-2b": _dense("gemma", 2048, 18, 8, 1, 16384, 256000, **_GEMMA),
    "gemma-7b": _dense("gemma", 3072, 28, 16, 16, 24576, 256000, **_GEMMA),
    "gemma-2-2b": _dense("gemma2", 2304, 26, 8, 4, 9216, 256000, **_GEMMA),
    "gemma-2-9b": _dense("gemma2", 3584, 42, 16, 8, 14336, 256000, **_GEMMA),
    "gemma-2-27b": _dense("gemma2", 4608, 46, 32, 16, 36864, 256000, head_dim=128, **_TIED),
    "gemma-3-270m": _dense("gemma3_text", 640, 18, 4, 1, 2048, 262144, **_GEMMA),
    "gemma-3-1b": _dense("gemma3_text", 1152, 26, 4, 1, 6912, 262144, **_GEMMA),
    "phi-2": _dense("phi", 2560, 32, 32, 32, 10240, 51200),
    "phi-3-mini": _dense("phi3", 3072, 32, 32, 32, 8192, 32064),
    "phi-3.5-mini": _dense("phi3", 3072, 32, 32, 32, 8192, 32064),
    "phi-3-medium": _dense("phi3", 5120, 40, 40, 10, 17920, 32064),
    "phi-4": _dense("phi3", 5120, 40, 40, 10, 17920, 100352),
    "phi-4-mini": _dense("phi3", 3072, 32, 24, 8, 8192, 200064, **_TIED),
}

_QUANTISED = re.compile(r"(^|[-_.])(awq|gptq|gguf|bnb|4bit|8bit|int4|int8|fp8|exl2|mlx|w4a16)([-_.]|$)")
_VARIANT = re.compile(r"(meta-)|(?<=qwen2\.5-)(coder|math)-")


def known_config(name: str) -> dict[str, Any] | None:
    """The config of the model a hub name means, by its size and family: `Qwen/Qwen2.5-7B-Instruct` is Qwen2.5 7B.

    None for what is not known, and for repositories that hold already quantised weights.
    """
    last = name.rstrip("/").rsplit("/", 1)[-1].lower()
    if _QUANTISED.search(last):
        return None
    plain = _VARIANT.sub("", last)
    plain = re.sub(r"^llama-?(?=[23])", "llama-", plain)
    if plain.startswith("glm-4-9b") and not plain.endswith(("-hf", "-0414")):
        return None  # the repositories with code of their own
    if plain.startswith("mistral-7b") and (version := re.search(r"v0\.[123]", plain)):
        plain = "mistral-7b" if version[0] == "v0.3" else f"mistral-7b-{version[0]}"
    if plain.startswith("glm-4-") and plain.endswith("-0414"):
        plain = re.sub(r"^(glm-4-\d+b).*", r"\1-0414", plain)
    fitting = [key for key in KNOWN if plain == key or plain.startswith(f"{key}-")]
    return KNOWN[max(fitting, key=len)] if fitting else None
