"""What llama.cpp makes of a GGUF file: which tensors its loader takes, and which model it runs with them.

A file knows less than a config does. Whatever a config says beyond it, llama.cpp assumes: SiLU, a whole rotation, no
other norm. So a model is written only where the config that llama.cpp ends up with (`as_read`) is the model's own.
The tensors are those of llama.cpp's src/models/{llama,qwen2,qwen3}.cpp; more or fewer, and it refuses the file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import torch
from transformers import LlamaConfig, PreTrainedConfig

from engine.base.errors import InputError
from engine.base.messages import msg

HINT = (
    "Export it with --to merged, then run llama.cpp's converter on that folder: python convert_hf_to_gguf.py DIR "
    "--outfile model.gguf"
)
_OTHER_HINT = "Export it with --to merged, for transformers, vLLM or SGLang."
_FAMILIES = {
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "MistralForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
}
_WEIGHTS = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
_QKV_BIASES = ("attn_q.bias", "attn_k.bias", "attn_v.bias")


@dataclass(frozen=True)
class _Tensors:
    """Names of tensors; those of a layer without their `blk.N.`."""

    required: frozenset[str]
    optional: frozenset[str]


def _tensors(required: Iterable[str] = (), optional: Iterable[str] = ()) -> _Tensors:
    common = {"token_embd.weight", "output_norm.weight", *(f"{name}.weight" for name in _WEIGHTS)}
    return _Tensors(frozenset(common | set(required)), frozenset({"output.weight", *optional}))


_LOADED = {
    gguf.MODEL_ARCH.LLAMA: _tensors(
        optional=(
            *_QKV_BIASES,
            "attn_output.bias",
            "ffn_gate.bias",
            "ffn_up.bias",
            "ffn_down.bias",
            "rope_freqs.weight",
        )
    ),
    gguf.MODEL_ARCH.QWEN2: _tensors(required=_QKV_BIASES),
    gguf.MODEL_ARCH.QWEN3: _tensors(required=("attn_q_norm.weight", "attn_k_norm.weight"), optional=_QKV_BIASES),
}
_WRITTEN = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",  # by the output matrix, which is there or not
    "attention_bias",  # these two by their tensors, which `refuse_tensors` looks at
    "mlp_bias",
)
"""Settings of a config that a file holds, beside the rotation."""
_ROTATION = {
    "default": (),
    "linear": ("factor",),
    "yarn": ("factor", "original_max_position_embeddings"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""What a file holds of each kind of scaled rotation, beside the base of its frequencies."""
_NOT_IN_THE_FORWARD_PASS = {
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "initializer_range",
    "pretraining_tp",
    "rope_parameters",  # compared by the frequencies that come of it
    "use_cache",
    # Written as full attention, with a note to the user: see gguf_file.
    "layer_types",
    "max_window_layers",
    "sliding_window",
    "use_sliding_window",
}


def architecture(model: Any) -> gguf.MODEL_ARCH:
    """InputError for a family that finetop does not write."""
    name = type(model).__name__
    if name not in _FAMILIES:
        families = ", ".join(sorted(family.removesuffix("ForCausalLM") for family in _FAMILIES))
        raise InputError(
            msg("finetop writes GGUF for {families}; this is a {name}", families=families, name=name), HINT
        )
    return _FAMILIES[name]


def refuse_tensors(arch: gguf.MODEL_ARCH, names: Iterable[str], layers: int) -> None:
    """InputError unless these are, for every layer, the tensors that llama.cpp's loader asks for."""
    loaded, arch_name = _LOADED[arch], gguf.MODEL_ARCH_NAMES[arch]
    present = set(names)
    for name in sorted(present):
        kind = _without_layer(name)
        if kind not in loaded.required | loaded.optional:
            tensor, _, part = kind.partition(".")
            raise InputError(
                msg(
                    "llama.cpp's {arch} has no {part} on {tensor} ({name})",
                    arch=arch_name,
                    part=part,
                    tensor=tensor,
                    name=name,
                ),
                _OTHER_HINT,
            )
    for kind in sorted(loaded.required):
        if kind.startswith(("token_embd", "output")):
            needed = [kind]
        else:
            needed = [f"blk.{layer}.{kind}" for layer in range(layers)]
        if missing := [name for name in needed if name not in present]:
            raise InputError(
                msg(
                    "llama.cpp's {arch} needs the tensor {missing}, which this model lacks",
                    arch=arch_name,
                    missing=missing[0],
                ),
                _OTHER_HINT,
            )


def _without_layer(name: str) -> str:
    return name.split(".", 2)[2] if name.startswith("blk.") else name


def rotation(config: Any) -> tuple[dict[str, Any], float, int]:
    """(what the config says of its rotary embedding, the base of its frequencies, the size of a head)."""
    rope = dict(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {})
    base = float(rope.get("rope_theta") or getattr(config, "rope_theta", None) or 10000.0)
    return rope, base, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def scaling(rope: Mapping[str, Any]) -> str:
    """The kind of the rotation's scaling, `default` for none."""
    return rope.get("rope_type", rope.get("type")) or "default"


def as_read(config: Any) -> PreTrainedConfig:
    """The config of the model that llama.cpp runs: what a file holds of `config`, and defaults for all else.

    InputError for a rotation that cannot be written.
    """
    return _read(config, type(config))


def as_read_by_transformers(config: Any, arch: gguf.MODEL_ARCH) -> PreTrainedConfig:
    """The same, where Mistral's files say they are Llama's."""
    return _read(config, LlamaConfig if arch == gguf.MODEL_ARCH.LLAMA else type(config))


def _read(config: Any, kind: type) -> PreTrainedConfig:
    rope, base, head_size = rotation(config)
    if (name := scaling(rope)) not in _ROTATION:
        raise InputError(
            msg("this model scales its rotation by '{name}', which finetop does not write to GGUF", name=name), HINT
        )
    held = {key: getattr(config, key) for key in _WRITTEN if hasattr(config, key)} | {"head_dim": head_size}
    held["rope_parameters"] = {"rope_type": name, "rope_theta": base} | {key: rope.get(key) for key in _ROTATION[name]}
    return kind(**held, dtype=config.dtype)


def refuse_config(model: Any) -> None:
    """InputError where llama.cpp would run another model than this one with its weights."""
    config, arch = model.config, architecture(model)
    arch_name = gguf.MODEL_ARCH_NAMES[arch]
    read = as_read(config)
    settings, assumed = config.to_dict(), read.to_dict()
    ignored = {*_NOT_IN_THE_FORWARD_PASS, *_WRITTEN, *PreTrainedConfig().to_dict()}
    for key in sorted(assumed.keys() - ignored):
        if settings.get(key) != assumed[key]:
            raise InputError(
                msg(
                    "llama.cpp's {arch} takes {setting} to be {assumed!r}; this model's is {actual!r}",
                    arch=arch_name,
                    setting=key,
                    assumed=assumed[key],
                    actual=settings.get(key),
                ),
                _OTHER_HINT,
            )
    rope, _, head_size = rotation(config)
    if arch == gguf.MODEL_ARCH.QWEN2 and head_size * config.num_attention_heads != config.hidden_size:
        raise InputError(
            msg(
                "llama.cpp's {arch} has heads of hidden_size / num_attention_heads = "
                "{assumed}; this model's head_dim is {head_size}",
                arch=arch_name,
                assumed=config.hidden_size // config.num_attention_heads,
                head_size=head_size,
            ),
            _OTHER_HINT,
        )
    if scaling(rope) == "llama3" and arch != gguf.MODEL_ARCH.LLAMA:
        raise InputError(
            msg("llama.cpp's {arch_name} knows no rotation scaled by 'llama3'", arch_name=arch_name), _OTHER_HINT
        )
    rotary = model.model.rotary_emb
    same = type(rotary)(config=read)
    if (
        rotary.inv_freq.shape != same.inv_freq.shape
        or not torch.allclose(rotary.inv_freq.float().cpu(), same.inv_freq.float(), rtol=1e-5, atol=0)
        or abs(rotary.attention_scaling - same.attention_scaling) > 1e-6
    ):
        beyond = sorted(rope.keys() - {"rope_type", "type", "rope_theta", *_ROTATION[scaling(rope)]})
        raise InputError(
            msg(
                "the rotation of this model ('{scaling}') depends on {settings}, which finetop does not write to GGUF",
                scaling=scaling(rope),
                settings=", ".join(beyond) or "more",
            ),
            HINT,
        )
