"""GGUF, the file format of llama.cpp and Ollama, for the families whose conversion is simple.

Names of tensors come from gguf's own table. What else llama.cpp's convert_hf_to_gguf.py does to these families is
done here too: Llama and Mistral have the rows of each head's q and k in another order, norms and biases stay float32,
Llama 3's scaled rotation becomes a tensor of factors. The vocabulary is written from the fast tokenizer
(`gguf_vocab`). What llama.cpp would refuse, or run as another model, is refused before anything is written
(`gguf_loader`): a file that loads and writes nonsense is worse than none.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from engine.base.errors import CheckpointError, InputError
from engine.base.messages import msg
from engine.worker.export.gguf_loader import (
    HINT,
    architecture,
    as_read_by_transformers,
    refuse_config,
    refuse_tensors,
    rotation,
    scaling,
)
from engine.worker.export.gguf_vocab import add_vocabulary

_FILE_TYPES = {
    "float32": gguf.LlamaFileType.ALL_F32,
    "float16": gguf.LlamaFileType.MOSTLY_F16,
    "bfloat16": gguf.LlamaFileType.MOSTLY_BF16,
}


def write(model: Any, tokenizer: Any, file: Path, dtype: str, stops: Sequence[int] = ()) -> list[str]:
    """Write a merged model, held in float32 on the CPU; matrices in `dtype`, all else in float32.

    `stops` are the tokens that end an answer, the end of turn first. Returns notes for the user. Raises InputError,
    with what to run instead, for what llama.cpp would not load or would run as another model.
    """
    config = model.config
    arch = refuse(model)
    writer = gguf.GGUFWriter(str(file), gguf.MODEL_ARCH_NAMES[arch])
    writer.add_name(file.stem)
    notes = _add_shape(writer, config, arch)
    writer.add_file_type(_FILE_TYPES[dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    notes += add_vocabulary(writer, tokenizer, model.get_input_embeddings().weight.shape[0], stops)
    for name, tensor, kind in _tensors(model, arch, dtype):
        shape, nbytes = _stored_shape(tensor, kind)
        writer.add_tensor_info(name, shape, np.dtype(np.uint8), nbytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, tensor, kind in _tensors(model, arch, dtype):
        writer.write_tensor_data(_stored(tensor, kind))
    writer.close()
    return notes


def verify(model: Any, file: Path) -> None:
    """Read the file with gguf's own reader. CheckpointError for the first tensor that is not the model's."""
    reader = gguf.GGUFReader(str(file))
    arch = architecture(model)
    dtype = {file_type: name for name, file_type in _FILE_TYPES.items()}[reader.fields["general.file_type"].contents()]
    written = {tensor.name: tensor for tensor in reader.tensors}
    expected = 0
    for name, tensor, kind in _tensors(model, arch, dtype):
        expected += 1
        stored = written.get(name)
        if stored is None or stored.tensor_type != kind or list(stored.shape) != list(tensor.shape)[::-1]:
            raise CheckpointError(
                msg("{file}: tensor {name} was not written as it should be", file=file.name, name=name)
            )
        if not np.array_equal(
            np.ascontiguousarray(stored.data).view(np.uint8).reshape(-1), _stored(tensor, kind).reshape(-1)
        ):
            raise CheckpointError(msg("{file}: tensor {name} reads back with other values", file=file.name, name=name))
    if expected != len(written):
        raise CheckpointError(
            msg(
                "{file}: {read} tensors read back, {written} were written",
                file=file.name,
                read=len(written),
                written=expected,
            )
        )


def round_matrices(model: Any, dtype: str) -> None:
    """Round the model's matrices, in float32, to what the file holds."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(parameter.to(getattr(torch, dtype)))


def reading_config(model: Any) -> Any:
    """The config to read such a file back with in transformers: what llama.cpp knows of the model, and no more."""
    return as_read_by_transformers(model.config, architecture(model))


def refuse(model: Any) -> gguf.MODEL_ARCH:
    """The architecture to write. InputError for what llama.cpp would not load, or would run as another model."""
    arch = architecture(model)
    refuse_config(model)
    refuse_tensors(arch, (name for name, _, _ in _tensors(model, arch, "float32")), model.config.num_hidden_layers)
    return arch


def _add_shape(writer: gguf.GGUFWriter, config: Any, arch: gguf.MODEL_ARCH) -> list[str]:
    notes = []
    rope, base, head_size = rotation(config)
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
    if arch == gguf.MODEL_ARCH.LLAMA:
        writer.add_rope_dimension_count(head_size)
    kind = scaling(rope)
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    # Llama 3's goes in as a tensor: see `_rope_factors`.
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True) and window < config.max_position_embeddings:
        notes.append(
            msg(
                "This model attends to the last {window:,} tokens only; llama.cpp lets it attend to all, which is the "
                "same up to {window:,} tokens of text.",
                window=window,
            )
        )
    return notes


# the tensors


def _tensors(
    model: Any, arch: gguf.MODEL_ARCH, dtype: str
) -> Iterator[tuple[str, torch.Tensor, gguf.GGMLQuantizationType]]:
    """(name in GGUF, tensor in float32 in GGUF's order of rows, type to store it as)."""
    config = model.config
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
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
            raise InputError(msg("GGUF has no name for the tensor {name} of this model", name=name), HINT)
        if arch == gguf.MODEL_ARCH.LLAMA and name.rsplit(".", 2)[-2] in ("q_proj", "k_proj"):
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
    rope, base, size = rotation(config)
    if scaling(rope) != "llama3":
        return None
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    original = rope["original_max_position_embeddings"]
    factors = []
    for index in range(0, size, 2):
        wavelength = 2 * math.pi * base ** (index / size)
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(float(factor))
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return torch.tensor(factors, dtype=torch.float32)


def _stored_shape(tensor: torch.Tensor, kind: gguf.GGMLQuantizationType) -> tuple[tuple[int, ...], int]:
    """The shape in bytes, as gguf's writer wants it, and their number."""
    bytes_per_number = 4 if kind == gguf.GGMLQuantizationType.F32 else 2
    return (*tensor.shape[:-1], tensor.shape[-1] * bytes_per_number), tensor.numel() * bytes_per_number


def _stored(tensor: torch.Tensor, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """The tensor's bytes, shape (..., bytes of a row)."""
    types = {
        gguf.GGMLQuantizationType.F32: torch.float32,
        gguf.GGMLQuantizationType.F16: torch.float16,
        gguf.GGMLQuantizationType.BF16: torch.bfloat16,
    }
    return tensor.to(types[kind]).contiguous().view(torch.uint8).numpy()
