"""GGUF, the file format of llama.cpp and Ollama, for the families whose conversion is plain.

Names of tensors come from gguf's own table. What llama.cpp's convert_hf_to_gguf.py does to these families besides is
done here too: Llama and Mistral have the rows of each head's q and k in another order, norms and biases stay float32,
Llama 3's scaled rotation goes in as a tensor of factors. The vocabulary is written from the fast tokenizer. For every
other family the converter is named, since a file that loads and talks nonsense is worse than none.
"""

import copy
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import LlamaConfig

from engine.errors import CheckpointError, InputError

_FAMILIES = {
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "MistralForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
}
_FILE_TYPES = {
    "float32": gguf.LlamaFileType.ALL_F32,
    "float16": gguf.LlamaFileType.MOSTLY_F16,
    "bfloat16": gguf.LlamaFileType.MOSTLY_BF16,
}
_SPLITS = {
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?": "qwen2",
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?": "llama-bpe",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|": "tekken",
}
"""What a pre-tokenizer's expression holds, and the name llama.cpp knows it by."""
_GENERATION = re.compile(r"(\{%-?)\s*(end)?generation\s*(-?%\})")
_HINT = (
    "Export it with --to merged, then run llama.cpp's converter on that folder: python convert_hf_to_gguf.py DIR "
    "--outfile model.gguf"
)


def write(model: Any, tokenizer: Any, file: Path, dtype: str) -> list[str]:
    """Write a merged model, held in float32 on the CPU; matrices in `dtype`, all else in float32.

    Returns what the user should know. Raises InputError, with the converter to run instead, for what cannot be written
    faithfully.
    """
    config = model.config
    architecture = _architecture(model)
    writer = gguf.GGUFWriter(str(file), gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_name(file.stem)
    notes = _add_shape(writer, config, architecture)
    writer.add_file_type(_FILE_TYPES[dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_vocabulary(writer, tokenizer, model.get_input_embeddings().weight.shape[0])
    for name, tensor, kind in _tensors(model, architecture, dtype):
        shape, nbytes = _stored_shape(tensor, kind)
        writer.add_tensor_info(name, shape, np.dtype(np.uint8), nbytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, tensor, kind in _tensors(model, architecture, dtype):
        writer.write_tensor_data(_stored(tensor, kind))
    writer.close()
    return notes


def verify(model: Any, file: Path) -> None:
    """Read the file with gguf's own reader. CheckpointError for the first tensor that is not the model's."""
    reader = gguf.GGUFReader(str(file))
    architecture = _architecture(model)
    dtype = {value: name for name, value in _FILE_TYPES.items()}[reader.fields["general.file_type"].contents()]
    written = {tensor.name: tensor for tensor in reader.tensors}
    expected = 0
    for name, tensor, kind in _tensors(model, architecture, dtype):
        expected += 1
        there = written.get(name)
        if there is None or there.tensor_type != kind or list(there.shape) != list(tensor.shape)[::-1]:
            raise CheckpointError(f"{file.name}: tensor {name} was not written as it should be")
        if not np.array_equal(
            np.ascontiguousarray(there.data).view(np.uint8).reshape(-1), _stored(tensor, kind).reshape(-1)
        ):
            raise CheckpointError(f"{file.name}: tensor {name} reads back with other values")
    if expected != len(written):
        raise CheckpointError(f"{file.name}: {len(written)} tensors read back, {expected} were written")


def round_matrices(model: Any, dtype: str) -> None:
    """Make the model, in float32, what the file holds."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(parameter.to(getattr(torch, dtype)))


def reading_config(model: Any) -> Any:
    """The config to read such a file back with in transformers: Mistral's files say they are Llama's."""
    if _architecture(model) != gguf.MODEL_ARCH.LLAMA:
        return copy.deepcopy(model.config)
    said = model.config.to_dict()
    for name in ("model_type", "architectures", "sliding_window", "layer_types"):
        said.pop(name, None)
    return LlamaConfig(**said)


def _architecture(model: Any) -> gguf.MODEL_ARCH:
    name = type(model).__name__
    if name not in _FAMILIES:
        known = ", ".join(sorted(family.removesuffix("ForCausalLM") for family in _FAMILIES))
        raise InputError(f"finetop writes GGUF for {known}; this is a {name}", _HINT)
    return _FAMILIES[name]


def _add_shape(writer: gguf.GGUFWriter, config: Any, architecture: gguf.MODEL_ARCH) -> list[str]:
    notes = []
    rope, base, head_size = _rotation(config)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_freq_base(base)
    if architecture == gguf.MODEL_ARCH.LLAMA:
        writer.add_rope_dimension_count(head_size)
    kind = _scaling(rope)
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    elif kind == "llama3" and architecture == gguf.MODEL_ARCH.LLAMA:
        pass  # as a tensor: see `_rope_factors`
    elif kind != "default":
        raise InputError(f"this model scales its rotation by '{kind}', which finetop does not write to GGUF", _HINT)
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True) and window < config.max_position_embeddings:
        notes.append(
            f"This model attends to the last {window:,} tokens only; llama.cpp lets it attend to all, which is the "
            f"same up to {window:,} tokens of text."
        )
    return notes


def _rotation(config: Any) -> tuple[dict[str, Any], float, int]:
    """(what the config says of its rotary embedding, the base of its frequencies, the size of a head)."""
    rope = dict(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {})
    base = float(rope.get("rope_theta") or getattr(config, "rope_theta", None) or 10000.0)
    return rope, base, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _scaling(rope: dict[str, Any]) -> str:
    return rope.get("rope_type", rope.get("type")) or "default"


# the vocabulary


def _add_vocabulary(writer: gguf.GGUFWriter, tokenizer: Any, rows: int) -> None:
    if not tokenizer.is_fast:
        raise InputError("this tokenizer has no fast version, from which a GGUF vocabulary is written", _HINT)
    said = json.loads(tokenizer.backend_tokenizer.to_str())
    model = said["model"]
    if model["type"] != "BPE":
        raise InputError(f"this tokenizer is of the type {model['type']}, not BPE", _HINT)
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    pieces = bool(model.get("byte_fallback"))
    tokens, kinds, scores = [], [], []
    ranks = _ranks(model["merges"]) if pieces else {}
    for number in range(rows):
        token = by_id.get(number)
        if token is None:  # more rows than tokens: models round their embeddings up
            token, kind = f"[PAD{number}]", gguf.TokenType.UNUSED
        elif number in added:
            special = added[number].special or number in tokenizer.all_special_ids
            kind = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED
            if pieces and number == tokenizer.unk_token_id:
                kind = gguf.TokenType.UNKNOWN
        elif pieces and len(token) == 6 and token.startswith("<0x"):
            kind = gguf.TokenType.BYTE
        else:
            kind = gguf.TokenType.NORMAL
        tokens.append(token.encode("utf-8"))
        kinds.append(kind)
        # llama.cpp joins the pair whose token has the highest score: the merge that comes first.
        scores.append(float(-ranks.get(token, len(ranks) + number)) if kind == gguf.TokenType.NORMAL else 0.0)
    writer.add_tokenizer_model("llama" if pieces else "gpt2")
    writer.add_tokenizer_pre("default" if pieces else _pre_tokenizer(said.get("pre_tokenizer")))
    writer.add_token_list(tokens)
    if pieces:
        writer.add_token_scores(scores)
        writer.add_add_space_prefix(_prefixes_space(said))
    else:
        writer.add_token_merges([_merge(pair) for pair in model["merges"]])
    writer.add_token_types(kinds)
    for name in ("bos", "eos", "unk", "pad"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    plain, special = (tokenizer("a", add_special_tokens=flag)["input_ids"] for flag in (False, True))
    writer.add_add_bos_token(len(special) > len(plain) and special[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(len(special) > len(plain) and special[-1] == tokenizer.eos_token_id)
    if tokenizer.chat_template:
        # llama.cpp's Jinja knows no `generation` blocks; they only mark which tokens are trained.
        template = _GENERATION.sub(_neutral, tokenizer.get_chat_template())
        writer.add_chat_template(template)


def _neutral(mark: re.Match) -> str:
    """A block that does nothing, with the same control of white space."""
    return f"{mark[1]} {'endif' if mark[2] else 'if true'} {mark[3]}"


def _pre_tokenizer(said: dict[str, Any] | None) -> str:
    """llama.cpp's name for how the text is cut before merging. InputError where it is none that we know for sure."""
    steps = said.get("pretokenizers", [said]) if said else []
    for step in steps:
        if step["type"] == "Split":
            expression = step["pattern"].get("Regex", "")
            for part, name in _SPLITS.items():
                if part in expression:
                    return name
            break
        if step["type"] == "ByteLevel" and step.get("use_regex", True):
            return "gpt-2"
    raise InputError("this tokenizer cuts text in a way that finetop cannot name to llama.cpp", _HINT)


def _ranks(merges: list[Any]) -> dict[str, int]:
    """For each token that merging makes, the place of the first merge that makes it."""
    found: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        found.setdefault(left + right, rank)
    return found


def _merge(pair: Any) -> str:
    """`left right`; a space inside a part is written as the byte-level alphabet has it."""
    return pair if isinstance(pair, str) else " ".join(part.replace(" ", chr(ord(" ") + 256)) for part in pair)


def _prefixes_space(said: dict[str, Any]) -> bool:
    normalizer, pre = said.get("normalizer") or {}, said.get("pre_tokenizer") or {}
    steps = [*normalizer.get("normalizers", [normalizer]), *pre.get("pretokenizers", [pre])]
    return any(
        step.get("type") == "Prepend" or (step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never")
        for step in steps
    )


# the tensors


def _tensors(
    model: Any, architecture: gguf.MODEL_ARCH, dtype: str
) -> Iterator[tuple[str, torch.Tensor, gguf.GGMLQuantizationType]]:
    """(name in GGUF, tensor in float32 in GGUF's order of rows, type to store it as)."""
    config = model.config
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    matrix = {
        "float32": gguf.GGMLQuantizationType.F32,
        "float16": gguf.GGMLQuantizationType.F16,
        "bfloat16": gguf.GGMLQuantizationType.BF16,
    }[dtype]
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    tied = head.data_ptr() == embeddings.data_ptr()
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise InputError(f"GGUF has no name for the tensor {name} of this model", _HINT)
        if architecture == gguf.MODEL_ARCH.LLAMA and name.rsplit(".", 2)[-2] in ("q_proj", "k_proj"):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            tensor = _halves_to_pairs(tensor, heads)
        yield new, tensor.float(), matrix if tensor.dim() > 1 else gguf.GGMLQuantizationType.F32
    if (factors := _rope_factors(config)) is not None:
        yield "rope_freqs.weight", factors, gguf.GGMLQuantizationType.F32


def _halves_to_pairs(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """transformers rotates the first half of a head against the second, llama.cpp each row against its neighbour."""
    return (
        tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
    )


def _rope_factors(config: Any) -> torch.Tensor | None:
    """By how much Llama 3.1 slows each frequency down (transformers' modeling_rope_utils, 'llama3')."""
    rope, base, size = _rotation(config)
    if _scaling(rope) != "llama3":
        return None
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    original = rope["original_max_position_embeddings"]
    found = []
    for index in range(0, size, 2):
        wavelength = 2 * math.pi * base ** (index / size)
        if wavelength < original / high:
            found.append(1.0)
        elif wavelength > original / low:
            found.append(float(factor))
        else:
            smooth = (original / wavelength - low) / (high - low)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return torch.tensor(found, dtype=torch.float32)


def _stored_shape(tensor: torch.Tensor, kind: gguf.GGMLQuantizationType) -> tuple[tuple[int, ...], int]:
    """The shape in bytes, as gguf's writer wants it, and their number."""
    each = 4 if kind == gguf.GGMLQuantizationType.F32 else 2
    return (*tensor.shape[:-1], tensor.shape[-1] * each), tensor.numel() * each


def _stored(tensor: torch.Tensor, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """The tensor's bytes, shape (..., bytes of a row)."""
    types = {
        gguf.GGMLQuantizationType.F32: torch.float32,
        gguf.GGMLQuantizationType.F16: torch.float16,
        gguf.GGMLQuantizationType.BF16: torch.bfloat16,
    }
    return tensor.to(types[kind]).contiguous().view(torch.uint8).numpy()
