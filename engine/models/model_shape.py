"""The shape of a model, from its config.json: every matrix it has, without loading anything.

Dense decoder-only models of the Llama kind and their relatives are known. A mixture of experts, a state space, or a
model type not listed here has no shape; only a trace of its real code can tell what it needs.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.models.builtin_configs import known_config
from engine.settings.presets import STARTER_MODEL
from engine.settings.schema import ModelConfig


@dataclass(frozen=True)
class Linear:
    """One matrix of a layer."""

    name: str
    inputs: int
    outputs: int
    bias: bool

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs


@dataclass(frozen=True)
class ModelShape:
    """What a model is made of. All counts are of numbers, not bytes."""

    kind: str
    """transformers' model_type."""
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    """Width of the MLP."""
    vocabulary: int
    tied: bool
    """The head shares the embedding's matrix."""
    linears: tuple[Linear, ...]
    """The matrices of one layer."""
    layer_norms: int
    """Numbers in the norms of one layer."""
    norms: int
    """How many norms of the hidden width one layer has."""
    final_norm: int
    head_bias: int
    softcapped: bool
    """Attention scores pass through tanh, so that no fused kernel serves them."""
    window: int | None
    source: str
    """Where the shape came from, in words."""

    @property
    def query(self) -> int:
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def head(self) -> int:
        """Numbers of a head of its own; 0 where it is the embedding."""
        return (0 if self.tied else self.embedding) + self.head_bias

    @property
    def matrices(self) -> int:
        """Numbers in the matrices of all layers: what 4 bits can hold."""
        return self.layers * sum(linear.weights for linear in self.linears)

    @property
    def biases(self) -> int:
        return self.layers * sum(linear.outputs for linear in self.linears if linear.bias)

    @property
    def parameters(self) -> int:
        small = self.biases + self.layers * self.layer_norms + self.final_norm
        return self.embedding + self.head + self.matrices + small


def read_shape(config: Mapping[str, Any], source: str) -> ModelShape | None:
    """The shape a config.json describes; None where it is of a kind not known here, or makes no sense."""
    config = _Defaults(config.get("text_config") or config)
    build = _KINDS.get(str(config.get("model_type")))
    if build is None or config.get("quantization_config"):
        return None
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        kv_heads = int(config.get("num_key_value_heads") or heads)
        head_dim = int(config.get("head_dim") or config.default("head_dim") or hidden // heads)
        inner = int(config["intermediate_size"])
        linears, layer_norms, norms, final_norm, head_bias = build(config, hidden, heads, kv_heads, head_dim, inner)
        tied = config.get("tie_word_embeddings")
        return ModelShape(
            kind=config["model_type"],
            hidden=hidden,
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            inner=inner,
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.default("tied") if tied is None else tied),
            linears=tuple(linears),
            layer_norms=layer_norms,
            norms=norms,
            final_norm=final_norm,
            head_bias=head_bias,
            softcapped=config["model_type"] == "gemma2" and config.get("attn_logit_softcapping", 50.0) is not None,
            window=config.get("sliding_window") if config.get("use_sliding_window", True) else None,
            source=source,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def find_shape(model: ModelConfig) -> ModelShape | None:
    """The shape of a run's model. None: it is not there to be read, and not known."""
    config_and_source = find_config(model)
    return read_shape(*config_and_source) if config_and_source else None


def find_config(model: ModelConfig) -> tuple[dict[str, Any], str] | None:
    """The content of the model's config.json, and in words where it is from: the model's folder, else the hub's cache,
    else the shapes known here."""
    if model.name == "starter":
        return _read(STARTER_MODEL / "config.json", "the starter model")
    folder = Path(os.path.expanduser(model.name))
    if folder.is_dir():
        return _read(folder / "config.json", "its config.json")
    if cached := cached_config(model.name, model.revision):
        return _read(cached, "its config.json in the hub's cache")
    builtin = known_config(model.name)
    return (builtin, "the shapes finetop knows") if builtin else None


def cached_config(name: str, revision: str = "") -> Path | None:
    """config.json of a hub model in the local cache, as huggingface_hub lays it out; None where it is not there."""
    repository = hub_cache() / f"models--{name.replace('/', '--')}"
    branch = revision or "main"
    try:
        commit = (repository / "refs" / branch).read_text("utf-8").strip()
    except (OSError, ValueError):
        commit = branch
    path = repository / "snapshots" / commit / "config.json"
    return path if commit and path.is_file() else None


def hub_cache() -> Path:
    """Where huggingface_hub keeps its downloads: HF_HUB_CACHE, HF_HOME/hub, or the XDG cache folder."""
    if cache_folder := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expanduser(cache_folder))
    home = os.environ.get("HF_HOME")
    if not home:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.path.expanduser(home)) / "hub"


def _read(path: Path, source: str) -> tuple[dict[str, Any], str] | None:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return (content, source) if isinstance(content, dict) else None


class _Defaults(dict):
    """A config.json, which leaves out what equals the default of transformers' class for it."""

    _OF = {
        "qwen3": {"head_dim": 128},
        "glm": {"head_dim": 128},
        "glm4": {"head_dim": 128},
        "gemma": {"head_dim": 256, "tied": True},
        "gemma2": {"head_dim": 256, "tied": True},
        "gemma3_text": {"head_dim": 256, "tied": True},
    }

    def default(self, key: str) -> Any:
        return self._OF.get(str(self.get("model_type")), {}).get(key)


_Parts = tuple[list[Linear], int, int, int, int]
"""The matrices of a layer, the numbers in its norms, how many norms, the final norm, the bias of the head."""


def _llama(c: Mapping[str, Any], hidden: int, heads: int, kv_heads: int, head_dim: int, inner: int) -> _Parts:
    kind = c["model_type"]
    query, key = heads * head_dim, kv_heads * head_dim
    qkv_bias = kind == "qwen2" or bool(c.get("attention_bias", False))
    out_bias = kind not in ("qwen2", "glm", "glm4") and bool(c.get("attention_bias", False))
    mlp_bias = kind == "llama" and bool(c.get("mlp_bias", False))
    linears = [
        Linear("q_proj", hidden, query, qkv_bias),
        Linear("k_proj", hidden, key, qkv_bias),
        Linear("v_proj", hidden, key, qkv_bias),
        Linear("o_proj", query, hidden, out_bias),
    ]
    if kind in ("glm", "glm4"):
        linears += [Linear("gate_up_proj", hidden, 2 * inner, False)]
    else:
        linears += [Linear("gate_proj", hidden, inner, mlp_bias), Linear("up_proj", hidden, inner, mlp_bias)]
    linears += [Linear("down_proj", inner, hidden, mlp_bias)]
    norms = 4 if kind in ("glm4", "gemma2", "gemma3_text") else 2
    of_heads = 2 * head_dim if kind in ("qwen3", "gemma3_text") else 0
    return linears, norms * hidden + of_heads, norms, hidden, 0


def _phi3(c: Mapping[str, Any], hidden: int, heads: int, kv_heads: int, head_dim: int, inner: int) -> _Parts:
    linears = [
        Linear("qkv_proj", hidden, (heads + 2 * kv_heads) * head_dim, False),
        Linear("o_proj", heads * head_dim, hidden, False),
        Linear("gate_up_proj", hidden, 2 * inner, False),
        Linear("down_proj", inner, hidden, False),
    ]
    return linears, 2 * hidden, 2, hidden, 0


def _phi(c: Mapping[str, Any], hidden: int, heads: int, kv_heads: int, head_dim: int, inner: int) -> _Parts:
    query, key = heads * head_dim, kv_heads * head_dim
    linears = [
        Linear("q_proj", hidden, query, True),
        Linear("k_proj", hidden, key, True),
        Linear("v_proj", hidden, key, True),
        Linear("dense", query, hidden, True),
        Linear("fc1", hidden, inner, True),
        Linear("fc2", inner, hidden, True),
    ]
    return linears, 2 * hidden, 1, 2 * hidden, int(c["vocab_size"])


_KINDS = dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "glm", "glm4", "gemma", "gemma2", "gemma3_text"), _llama)
_KINDS |= {"phi3": _phi3, "phi": _phi}
