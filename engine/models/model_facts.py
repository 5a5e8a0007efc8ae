"""What the checks want to know of a model: the modules an adapter can be put on, and how many positions it has.

Read from config.json and the names in its weights' files, or handed over by a worker that has the model in its hands:
the same functions judge both.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.models import weights
from engine.models.model_shape import ModelShape, cached_config, find_config, read_shape
from engine.settings.presets import STARTER_MODEL
from engine.settings.schema import ModelConfig

_TABLE = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings?|positions_embed|pos_embed|pos_emb)(\.weight)?$")
"""What learned positions are called: GPT-2's, OPT's and BART's, BERT's, GPT's."""
_FIXED_TABLE = ("gptj", "codegen", "ctrl")
"""Their sines are a table too, made once for so many positions."""
_TABLE_KINDS = ("gpt2", "gpt_bigcode", "gpt_neo", "openai-gpt", "opt", "biogpt", *_FIXED_TABLE)
"""Known to have a table, where there are no weights to look at."""
_PADDED_KINDS = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "roberta-prelayernorm", "data2vec-text")
"""Their first rows, up to that of the padding token, are no positions."""
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_ATTENTION = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "dense")
_LAYER = re.compile(r"(?<![^.])(\d+)(?=\.)")


@dataclass(frozen=True)
class ModelFacts:
    modules: tuple[str, ...] = ()
    """Every module an adapter can be put on, by its full name; empty: not known."""
    positions: int | None = None
    """How many tokens it was made for; None: not known, or no limit."""
    table: bool = False
    """Positions are rows of a table, and there is nothing beyond it."""
    tied: bool = False
    """The head is the embedding's matrix."""


def find_facts(model: ModelConfig) -> ModelFacts:
    """Of the model a run names, as far as this machine knows it. Reads no weights but their names."""
    config_and_source = find_config(model)
    if config_and_source is None:
        return ModelFacts()
    config, source = config_and_source
    folder = find_folder(model)
    shapes: dict[str, tuple[int, ...]] = {}
    if folder is not None:
        try:
            shapes = {tensor.name: tensor.shape for tensor in weights.tensors(folder)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            shapes = {}  # who loads them tells what is wrong
    shape = read_shape(config, source)
    # Experts and quantised weights are loaded under other names than they have in the file.
    renamed = any(_inner(config).get(key) for key in _EXPERTS) or config.get("quantization_config")
    modules: tuple[str, ...] = ()
    if shape is not None:
        modules = _modules_of(shape)
    elif not renamed:
        matrices = [name for name, size in shapes.items() if len(size) >= 2 and name.endswith(".weight")]
        modules = tuple(name.removesuffix(".weight") for name in matrices)
        if modules and not any(name.endswith("lm_head") for name in modules):
            modules += ("lm_head",)  # the embedding's matrix
    return facts_of(config, modules, shapes)


def facts_of(config: Mapping[str, Any], modules: Iterable[str], tensors: Iterable[str]) -> ModelFacts:
    """`config` as in config.json; `tensors`: names of the model's weights."""
    config = _inner(config)
    kind = config.get("model_type")
    limit = next((config[key] for key in ("max_position_embeddings", "n_positions", "n_ctx") if config.get(key)), None)
    table = any(map(_TABLE.search, tensors)) or kind in _TABLE_KINDS
    if kind in _PADDED_KINDS and isinstance(limit, int):
        table, limit = True, limit - 1 - (config.get("pad_token_id") or 0)
    is_limited = isinstance(limit, int) and limit > 0
    shape = read_shape(config, "")
    tied = shape.tied if shape else bool(config.get("tie_word_embeddings"))
    return ModelFacts(tuple(modules), limit if is_limited else None, table and is_limited, tied)


def find_folder(model: ModelConfig) -> Path | None:
    """Where a model's files lie on this machine: its folder, or its snapshot in the hub's cache."""
    if model.name == "starter":
        return STARTER_MODEL
    folder = Path(os.path.expanduser(model.name))
    if folder.is_dir():
        return folder
    cached = cached_config(model.name, model.revision)
    return cached.parent if cached else None


def without_match(targets: Iterable[str], modules: Iterable[str]) -> list[str]:
    """The entries of lora.targets that name no module. PEFT's rule: a whole name, or its last parts."""
    names = list(modules)
    return [target for target in targets if not any(_is(target, name) for name in names)]


def in_some_layers(targets: Iterable[str], modules: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Plain names that only some layers have: in how many, and of how many."""
    names = list(modules)
    layers = {layer for name in names if (layer := _layer(name)) is not None}
    partial = {}
    for target in targets:
        having = {layer for name in names if _is(target, name) and (layer := _layer(name)) is not None}
        if having and len(having) < len(layers) and not _layer(f"{target}."):
            partial[target] = len(having), len(layers)
    return partial


def short_names(modules: Iterable[str]) -> list[str]:
    """The last part of each name, once, as they come: what a user would write."""
    return list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in modules))


def _is(target: str, name: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _layer(name: str) -> str | None:
    match = _LAYER.search(name)
    return name[: match.end()] if match else None


def _inner(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) and inner else config


def _modules_of(shape: ModelShape) -> tuple[str, ...]:
    of_layer = [f"{'self_attn' if linear.name in _ATTENTION else 'mlp'}.{linear.name}" for linear in shape.linears]
    layers = [f"model.layers.{layer}.{name}" for layer in range(shape.layers) for name in of_layer]
    return (*layers, "model.embed_tokens", "lm_head")
