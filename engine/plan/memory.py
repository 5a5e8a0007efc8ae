"""Peak memory of a run by arithmetic: at once, without torch, weights or data.

The parts are those of the worker as it stands: a frozen base in bfloat16 or 4 bits, adapters and fully trained weights
in float32 with Adam's two moments beside them, bfloat16 copies of trained weights while a pass runs (autocast), what
the layers keep for the backward pass, and logits at supervised positions only, in chunks of 1 GiB.
"""

import math
from dataclasses import dataclass, field

from engine.models.device_limits import CPU_TOKENS, ENOUGH_TOKENS, HOST_SHARE, LOGITS_BUDGET_BYTES
from engine.models.model_shape import Linear, ModelShape, find_shape
from engine.plan.activations import Adapter, Arithmetic, kept_per_token, passing_per_token
from engine.settings.schema import RunConfig

CUDA_CONTEXT_BYTES = 600 * 2**20
"""CUDA's context and the kernels loaded into it. Assumed: since CUDA 11.7, which loads kernels when they are first
used, it begins at some 300 MB (pytorch issue 107667) and grows with each kind of kernel."""
_CPU_LIBRARIES_BYTES = 500 * 2**20
"""Python with torch, transformers and PEFT loaded, resident."""
_CPU_KERNELS_BYTES = 810 * 2**20
"""What oneDNN comes to hold on a CPU that is good at bfloat16: it makes a kernel for each shape of a product, and the
tokens of a pass are part of it. Measured on the starter model, after passes of fifty to sixty different lengths; next
to nothing in float32."""
UNKNOWN_SUPERVISED = 0.5
"""Share of the tokens that are trained on, while the data has not been read."""
_BLOCK_4BIT, _BLOCK_ABSMAX, _CODES = 64, 256, 4 * (16 + 256 + 1)
"""NF4: one 8-bit constant for 64 weights, one float32 for 256 of those, and the two code tables of each matrix
(Dettmers et al. 2023, QLoRA, section 3)."""
_BLOCK_8BIT, _LEAST_8BIT = 256, 4096
"""8-bit Adam: two float32 constants for 256 numbers; tensors under 4,096 keep float32 moments (bitsandbytes)."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of one run on one device, in bytes."""

    low: int
    expected: int
    high: int
    parts: dict[str, int]
    """Bytes by part; together they are `expected`."""
    parameters: int
    trainable: int
    micro_tokens: int
    """Tokens in one forward pass."""
    activation_checkpointing: bool
    device: str
    """'cuda' or 'cpu'."""
    shape: ModelShape = field(repr=False)
    source: str = "arithmetic"
    """'arithmetic', 'trace', or either of them corrected by this machine's own runs, in words."""


@dataclass(frozen=True)
class EstimateInputs:
    """What is known beside the settings. What is None is taken from them, on the safe side."""

    device: str = "cuda"
    bfloat16: bool = True
    """The device is good at bfloat16: GPUs since Ampere, CPUs with AMX or AVX512-BF16."""
    longest: int | None = None
    """Tokens of the longest example; None: data.max_length."""
    step_tokens: int | None = None
    """Tokens of the largest optimizer step; None: more than one pass."""
    supervised: float | None = None
    """Share of the tokens that are trained on."""
    correction: float = 1.0
    """Measured peak over estimate of this machine's own runs by the same method."""

    def longest_of(self, config: RunConfig) -> int:
        """Tokens of the longest example as it is trained on."""
        return min(self.longest or config.data.max_length, config.data.max_length)


def memory_estimate(
    config: RunConfig,
    *,
    shape: ModelShape | None = None,
    micro_tokens: int | None = None,
    checkpointing: bool | None = None,
    inputs: EstimateInputs | None = None,
) -> MemoryEstimate | None:
    """Peak memory of the run; None for a model whose shape is not known, where none is given. See `shape_estimate`."""
    shape = shape or find_shape(config.model)
    if shape is None:
        return None
    return shape_estimate(config, shape, micro_tokens=micro_tokens, checkpointing=checkpointing, inputs=inputs)


def shape_estimate(
    config: RunConfig,
    shape: ModelShape,
    *,
    micro_tokens: int | None = None,
    checkpointing: bool | None = None,
    inputs: EstimateInputs | None = None,
) -> MemoryEstimate:
    """Peak memory of the run with a model of this shape.

    Where `train.micro_tokens` is auto the worker takes what the card allows; the estimate is for the passes it would be
    content with. Where `train.activation_checkpointing` is auto it is for recomputed activations, which is what the
    worker falls back to before it gives up.
    """
    inputs = inputs or EstimateInputs()
    how, adapter = arithmetic(config, inputs), adapter_of(config)
    if checkpointing is None:
        setting = config.train.activation_checkpointing
        checkpointing = setting if isinstance(setting, bool) else inputs.device == "cuda"
    longest = inputs.longest_of(config)
    tokens = micro_tokens or pass_tokens(config, inputs)
    trainable = adapter_numbers(shape, adapter) if adapter else shape.parameters
    if config.model.attention == "plain":
        tokens = min(tokens, longest)
    supervised = max(1, round(tokens * (UNKNOWN_SUPERVISED if inputs.supervised is None else inputs.supervised)))
    held = _resident_bytes(config, shape, how, adapter, trainable, checkpointing)
    one_layer = tokens * kept_per_token(shape, how, adapter, longest)
    embedded = tokens * 6 * shape.hidden
    of_layers = tokens * how.weights * shape.hidden * shape.layers if checkpointing else shape.layers * one_layer
    kept = of_layers + embedded
    again = one_layer if checkpointing else 0
    passing = tokens * passing_per_token(shape, how, adapter)
    unpacked = how.full or config.method.kind == "qlora"
    largest = how.products * max(linear.weights for linear in shape.linears) if unpacked else 0
    # A step in one pass has no gradients yet when its activations are all there.
    one_pass = inputs.step_tokens is not None and inputs.step_tokens <= tokens
    held_at_forward = held | {"gradients": 0} if one_pass else held
    logits = logits_bytes(shape, how, supervised)
    moments = [held_at_forward | {"activations": kept, "logits": logits}]
    if how.full:
        # The gradient of the head, beside the one it is added to.
        workspace = (6 if how.cast else 4) * shape.embedding
        moments.append(held_at_forward | {"activations": kept, "logits": 2 * logits // 3, "workspace": workspace})
    after_forward = {}
    if how.full and "casts" in held and checkpointing and inputs.device == "cuda":
        # Recomputing in autograd's own thread drops the copies autocast had kept (engine.worker.trace.trace).
        after_forward = {"casts": held["casts"] // (shape.layers + 1)}
    moments += [
        held_at_forward | after_forward | {"activations": of_layers + again + passing, "workspace": largest},
        held | after_forward | {"activations": embedded + one_layer + passing, "workspace": largest},
    ]
    if how.full:
        # The gradient of the embedding; that of a tied head has waited for it, and their sum is a third.
        lookups = (2 if shape.tied else 0) + (0 if one_pass else 1)
        workspace = lookups * how.weights * shape.embedding
        moments.append(held | after_forward | {"activations": embedded, "workspace": workspace})
    parts = max(moments, key=lambda sizes: sum(sizes.values()))
    kernels = host_context(how) - _CPU_LIBRARIES_BYTES if inputs.device == "cpu" else 0
    if inputs.device == "cpu":  # resident as all the rest is, and measured with it
        parts = parts | {"context": host_context(how)}
    parts = {name: round(inputs.correction * value) for name, value in parts.items()}
    if inputs.device == "cuda":
        parts["context"] = CUDA_CONTEXT_BYTES
    expected = sum(parts.values())
    loose = expected - sum(held.values())
    return MemoryEstimate(
        low=round(expected - 0.1 * loose) - kernels,
        expected=expected,
        high=round(expected + 0.15 * loose + 0.03 * expected),
        parts=parts,
        parameters=shape.parameters + (trainable if adapter else 0),
        trainable=trainable,
        micro_tokens=tokens,
        activation_checkpointing=checkpointing,
        device=inputs.device,
        shape=shape,
    )


def host_pass_tokens(config: RunConfig, shape: ModelShape, inputs: EstimateInputs, memory_bytes: int) -> int:
    """Tokens of a pass on the CPU of a machine or container with so much memory in all: fewer than elsewhere only where
    those would not fit. What is free just now does not count: a run repeats to the bit.
    """
    tokens, longest = pass_tokens(config, inputs), inputs.longest_of(config)
    while tokens > longest and config.train.micro_tokens == "auto":
        estimate = shape_estimate(config, shape, micro_tokens=tokens, inputs=inputs)
        if estimate.expected <= HOST_SHARE * memory_bytes:
            break
        tokens = max(longest, tokens // 2)
    return tokens


def arithmetic(config: RunConfig, inputs: EstimateInputs) -> Arithmetic:
    """In what types the worker computes; the same decisions as engine.worker.model.load.choose_precision."""
    full = config.method.kind == "full"
    dtype = config.model.dtype
    on_gpu = inputs.device == "cuda"
    if dtype == "float32" or (dtype == "auto" and not inputs.bfloat16):
        return Arithmetic(4, 4, full, fused=False, mask=1 if on_gpu else 4, copied=False, fused_layers=on_gpu)
    frozen = not full and on_gpu
    weights = 2 if frozen or dtype == "bfloat16" else 4
    # Rotary embeddings are float32 in a float32 stream, and the fused kernel takes half precision only.
    fused = on_gpu and weights == 2
    copied = config.method.kind != "qlora" or not on_gpu
    return Arithmetic(weights, 2, full, fused, mask=1 if on_gpu else 4, copied=copied, fused_layers=on_gpu)


def adapter_of(config: RunConfig) -> Adapter | None:
    if config.method.kind == "full":
        return None
    lora = config.lora
    targets = None if lora.targets == "all-linear" else frozenset(name.rsplit(".", 1)[-1] for name in lora.targets)
    return Adapter(lora.r, lora.dropout > 0, lora.dora, targets)


def adapter_numbers(shape: ModelShape, adapter: Adapter) -> int:
    """Trained numbers of a LoRA adapter: rank times inputs and outputs of each matrix (Hu et al. 2021)."""
    adapted = [linear for linear in shape.linears if adapter.adapts(linear)]
    of_layer = sum(adapter.rank * (linear.inputs + linear.outputs) for linear in adapted)
    if adapter.dora:
        of_layer += sum(linear.outputs for linear in adapted)
    return shape.layers * of_layer


def pass_tokens(config: RunConfig, inputs: EstimateInputs) -> int:
    """Tokens of the largest forward pass the estimate is for."""
    if config.train.micro_tokens != "auto":
        tokens = config.train.micro_tokens
    else:
        tokens = CPU_TOKENS if inputs.device == "cpu" else ENOUGH_TOKENS
    return max(inputs.longest_of(config), min(tokens, inputs.step_tokens or tokens))


def logits_bytes(shape: ModelShape, how: Arithmetic, supervised: int) -> int:
    """Logits in float32, which become their own gradient, and once more in the type of the products."""
    rows = min(supervised, max(1, LOGITS_BUDGET_BYTES // (4 * shape.vocabulary)))
    logit_bytes = 6 if how.cast else 4
    if shape.kind == "gemma2":
        logit_bytes += 8  # before and after tanh
    return rows * shape.vocabulary * logit_bytes


def packed_bytes(linear: Linear) -> tuple[int, int]:
    """A matrix in NF4 with double quantisation: bytes of the weights, and of the constants."""
    blocks = math.ceil(linear.weights / _BLOCK_4BIT)
    return math.ceil(linear.weights / 2), blocks + 4 * math.ceil(blocks / _BLOCK_ABSMAX) + _CODES


def host_context(how: Arithmetic) -> int:
    """What a process holds on the CPU beside its tensors."""
    return _CPU_LIBRARIES_BYTES + (_CPU_KERNELS_BYTES if how.cast else 0)


def weights_bytes(config: RunConfig, shape: ModelShape, how: Arithmetic) -> dict[str, int]:
    """The base model by part, as it is held."""
    if config.method.kind != "qlora":
        return {"weights": how.weights * shape.parameters}
    packed, constants = (sum(sizes) for sizes in zip(*map(packed_bytes, shape.linears), strict=True))
    weights = shape.layers * packed + how.weights * (shape.parameters - shape.matrices)
    return {"weights": weights, "quantisation": shape.layers * constants}


def _resident_bytes(
    config: RunConfig, shape: ModelShape, how: Arithmetic, adapter: Adapter | None, trainable: int, checkpointing: bool
) -> dict[str, int]:
    """What is there from the first optimizer step on."""
    parts = weights_bytes(config, shape, how)
    width = how.weights if how.full else 4
    if adapter:
        parts["adapter"] = width * trainable
    if how.cast and width == 4:
        parts["casts"] = how.products * (trainable if adapter else _cast_numbers(shape))
        if adapter and how.weights == 4:
            parts["casts"] += how.products * _kept_casts(config, shape, checkpointing)
    parts["gradients"] = width * trainable
    parts["optimizer"] = _optimizer(config, width, trainable)
    return parts


def _cast_numbers(shape: ModelShape) -> int:
    """Autocast keeps a copy in bfloat16 of every trained matrix and bias it has met, until the pass is over."""
    return shape.matrices + shape.biases + (shape.head or shape.embedding)


def _kept_casts(config: RunConfig, shape: ModelShape, checkpointing: bool) -> int:
    """A frozen float32 matrix is cast again in each pass, and the backward pass keeps the copy."""
    head = shape.head or shape.embedding
    if config.method.kind == "qlora":
        return head
    return head + (shape.matrices // shape.layers if checkpointing else shape.matrices)


def _optimizer(config: RunConfig, width: int, trainable: int) -> int:
    if config.optim.name == "adamw":
        return 2 * width * trainable
    if config.optim.name == "paged_adamw8bit":
        return 0  # in memory the driver moves to the host when the card is full
    return 2 * trainable + 2 * 4 * math.ceil(trainable / _BLOCK_8BIT)
