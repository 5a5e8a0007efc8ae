"""Bytes that one token leaves behind in a layer for the backward pass, as the worker's models really keep them.

Read off transformers' modules, PEFT's layers and autograd's rules, and compared with the trace in the tests. Autograd
keeps what a derivative needs: the input of a matrix that is trained, the input of a norm, what attention and the MLP's
product were made of. A frozen matrix keeps nothing, but the adapter beside it keeps its input: on a GPU as it is,
shared by all that read it (engine.worker.model.fast_layers); elsewhere a copy of its own, since PEFT hands it on in
float32 and autocast turns that into a new bfloat16 tensor.
"""

from dataclasses import dataclass

from engine.models.model_shape import Linear, ModelShape


@dataclass(frozen=True)
class Arithmetic:
    """In what types a run computes."""

    weights: int
    """Bytes of a number of the base model, where it is not packed in 4 bits: 2 or 4."""
    products: int
    """Bytes of a number that comes out of a matrix product: 2 under autocast, else as the weights."""
    full: bool
    """All weights are trained."""
    fused: bool
    """Attention by the variable-length kernel, which takes fewer key heads than query heads as they are."""
    mask: int
    """Bytes of a number of a dropout's mask: 1 in CUDA's kernel, those of the input on a CPU."""
    copied: bool
    """Each adapter keeps an input of its own: PEFT makes it float32, and autocast a new bfloat16 tensor of that."""
    fused_layers: bool = False
    """Norms, and LoRA beside matrices that are not packed, are the worker's own (engine.worker.model.fast_layers)."""

    @property
    def cast(self) -> bool:
        """Matrix products run in a narrower type than the weights that are trained are held in."""
        return self.products < 4


@dataclass(frozen=True)
class Adapter:
    """What is put beside the matrices."""

    rank: int
    dropout: bool
    dora: bool
    targets: frozenset[str] | None
    """Names of the adapted matrices; None: all."""

    def adapts(self, linear: Linear) -> bool:
        return self.targets is None or linear.name in self.targets


def kept_per_token(shape: ModelShape, how: Arithmetic, adapter: Adapter | None, longest: int) -> int:
    """Bytes per token and layer between forward and backward pass, with examples of `longest` tokens."""
    kept = _norms(shape, how) + _attention(shape, how, longest) + _mlp(shape, how)
    groups: dict[str, int] = {}
    for linear in shape.linears:
        group = _GROUP[linear.name]
        if adapter is None:
            input_bytes = how.products * linear.inputs if how.full else 0
            # float32 in, so that autocast makes a copy for each; what attention and MLP give out is narrow already.
            copied = how.cast and how.weights == 4 and group in ("attention", "mlp")
        elif adapter.adapts(linear):
            input_bytes = _own_input(linear, how, adapter)
            copied = (how.cast and how.copied and not _fused(how, adapter)) or adapter.dropout
            kept += how.products * adapter.rank + ((how.products + 4) * linear.outputs if adapter.dora else 0)
        else:
            continue
        if copied:
            kept += input_bytes
        elif group != "out":  # attention keeps its output itself
            groups[group] = input_bytes
    return kept + sum(groups.values())


def passing_per_token(shape: ModelShape, how: Arithmetic, adapter: Adapter | None) -> int:
    """Bytes per token that come and go inside the backward pass of one layer: the most of two moments in its MLP.

    At the product gate * up there are three gradients of the MLP's width. Where the last matrix has an adapter, what it
    kept of its input is gone by then; but just before, that input had a gradient of its own, in float32 where the input
    was a copy, beside those of what the adapter gave out.
    """
    at_product = 3 * how.products * shape.inner + (1 if how.fused_layers else 3) * how.weights * shape.hidden
    last = next(linear for linear in shape.linears if _GROUP[linear.name] == "down")
    if adapter is None or not adapter.adapts(last):
        return at_product
    if _fused(how, adapter):  # one gradient of that input, which both products add to
        at_last = (1 if how.copied else 2) * how.products * shape.inner + how.weights * shape.hidden
    else:
        input_bytes = 4 if how.copied else how.products
        at_last = (how.products + input_bytes) * shape.inner + (7 if how.copied else 3) * how.weights * shape.hidden
    return max(at_product - _own_input(last, how, adapter), at_last)


def _fused(how: Arithmetic, adapter: Adapter) -> bool:
    """The adapter's layers are the worker's own, not PEFT's."""
    return how.fused_layers and not adapter.dropout and not adapter.dora


def _own_input(linear: Linear, how: Arithmetic, adapter: Adapter) -> int:
    """What an adapter keeps of its input, and where it drops some of it out, of that."""
    return (how.products + (how.mask if adapter.dropout else 0)) * linear.inputs


def _norms(shape: ModelShape, how: Arithmetic) -> int:
    """The input of each: in float32, and where its weight is trained the normed input too; or, fused, as it is."""
    heads = shape.query + shape.key if shape.kind in ("qwen3", "gemma3_text") else 0  # queries and keys are normed
    apart = 4 + (how.weights if how.full else 0)
    fused = how.fused_layers and not shape.kind.startswith("gemma")
    of_stream = how.weights if fused else apart
    of_heads = how.products if fused and how.products == how.weights else apart
    return of_stream * shape.norms * shape.hidden + of_heads * heads


def _attention(shape: ModelShape, how: Arithmetic, longest: int) -> int:
    key = shape.key if how.fused else shape.query  # repeated for each query head where the kernel wants it so
    if shape.softcapped:
        # scores after tanh, and the weights in float32 and in the products' type, over the tokens of the example
        return how.products * (shape.query + 2 * key) + shape.heads * longest * (2 * how.products + 4 + 1)
    whole = shape.query + shape.key if shape.kind == "phi3" else 0  # the value is a slice of what one matrix gave
    return how.products * (2 * shape.query + 2 * key + whole) + 4 * shape.heads


def _mlp(shape: ModelShape, how: Arithmetic) -> int:
    """What the activation function and the product gate * up are made of. What goes into the last matrix is its own."""
    if shape.kind == "phi":
        return 4 * how.products * shape.inner  # GELU written out in its four factors
    return 3 * how.products * shape.inner


_GROUP = dict.fromkeys(("q_proj", "k_proj", "v_proj", "qkv_proj"), "attention")
_GROUP |= {"o_proj": "out", "dense": "out", "down_proj": "down", "fc2": "down"}
_GROUP |= dict.fromkeys(("gate_proj", "up_proj", "gate_up_proj", "fc1"), "mlp")
"""Matrices that read the same tensor."""
