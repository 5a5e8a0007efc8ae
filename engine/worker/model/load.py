"""Loading the tokenizer and the model, and making it trainable: full, LoRA or QLoRA."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from engine.base.errors import ModelError, first_line
from engine.base.messages import msg
from engine.models.device_limits import cpu_is_good_at_bfloat16
from engine.models.model_facts import ModelFacts, facts_of, find_folder
from engine.models.model_name import check_model_name
from engine.models.model_shape import cached_config, hub_cache
from engine.models.weights import check_weights
from engine.runs.model_checks import position_refusal
from engine.runs.settings_checks import check
from engine.runs.settings_findings import refuse
from engine.settings.presets import STARTER_MODEL
from engine.settings.schema import ModelConfig, RunConfig
from engine.worker.model import attention
from engine.worker.model.out_of_memory import is_out_of_memory

_HUB_SECONDS = 10.0


@dataclass(frozen=True)
class Precision:
    """Where and how the arithmetic is done."""

    device: torch.device
    autocast: torch.dtype | None
    """Matrix products run in this type; None: in the type of the weights."""
    base_dtype: torch.dtype
    """Type the weights are held in. An adapter's weights are always float32."""

    @property
    def devices(self) -> list[torch.device]:
        """Whose random state is in use, beside the CPU's."""
        return [self.device] if self.device.type == "cuda" else []

    def context(self) -> contextlib.AbstractContextManager:
        """In which the model is run: autocast, or nothing."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.autocast)


def pick_device(rank: int = 0) -> torch.device:
    """The GPU of a rank, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", rank % torch.cuda.device_count())
    return torch.device("cpu")


def choose_precision(config: RunConfig, device: torch.device) -> Precision:
    """The precision for a device of this machine."""
    on_gpu = device.type == "cuda"
    fast_bf16 = torch.cuda.get_device_capability(device) >= (8, 0) if on_gpu else cpu_is_good_at_bfloat16()
    return precision_for(config, device, on_gpu, fast_bf16)


def precision_for(config: RunConfig, device: torch.device, on_gpu: bool, fast_bf16: bool) -> Precision:
    """bfloat16 arithmetic where the hardware is good at it; weights that are trained stay float32 unless asked.

    A frozen base is held in bfloat16 on a GPU. Asked for bfloat16 outright, a full fine-tune holds its weights in it.
    """
    dtype = config.model.dtype
    if dtype == "float32" or (dtype == "auto" and not fast_bf16):
        return Precision(device, None, torch.float32)
    frozen_base = config.method.kind != "full" and on_gpu
    base = torch.bfloat16 if frozen_base or dtype == "bfloat16" else torch.float32
    return Precision(device, torch.bfloat16, base)


def model_source(config: ModelConfig) -> str:
    """The folder or hub name to load from. Raises InputError for a folder that is no model's."""
    if config.name == "starter":
        return str(STARTER_MODEL)
    check_model_name(config.name, config.revision)
    if cached := find_folder(config):
        check_weights(cached)
    folder = os.path.expanduser(config.name)
    return folder if os.path.isdir(folder) else config.name


def _look_for_hub(config: ModelConfig) -> None:
    """Ask once whether the hub can be reached, where libraries would try for a minute and print each failure.

    Where it cannot, the copy in its cache serves; without one there is a ModelError.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    source = model_source(config)
    if os.path.isdir(source) or constants.is_offline_mode():
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_SECONDS)
    except Exception as error:  # the network's, the proxy's or the certificate's, by whichever client is inside
        if cached_config(config.name, config.revision):
            constants.HF_HUB_OFFLINE = True
            print(
                msg(
                    "{endpoint} cannot be reached; taking {model} from the hub's cache",
                    endpoint=constants.ENDPOINT,
                    model=config.name,
                ),
                file=sys.stderr,
            )
            return
        raise ModelError(
            msg(
                "'{model}' is no folder here and not in the hub's cache ({hub_cache}), and {endpoint} "
                "cannot be reached: {error}",
                model=config.name,
                hub_cache=hub_cache(),
                endpoint=constants.ENDPOINT,
                error=first_line(error),
            ),
            "Give its folder instead of the name. Or: HF_ENDPOINT names a mirror of the hub, HF_HOME another cache; "
            "`hf download NAME --local-dir FOLDER` makes a copy on a machine with a network.",
        ) from None


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raises ModelError where it cannot be loaded."""
    _look_for_hub(config)
    with _loading(config, "tokenizer"):
        return AutoTokenizer.from_pretrained(
            model_source(config), revision=config.revision or None, trust_remote_code=config.trust_remote_code
        )


def generation_ends(config: ModelConfig) -> list[int]:
    """The tokens that the model's generation config stops at; without one, those of its config."""
    options: dict[str, Any] = {"revision": config.revision or None}
    try:
        eos = GenerationConfig.from_pretrained(model_source(config), **options).eos_token_id
    except (OSError, ValueError):
        try:
            eos = PreTrainedConfig.get_config_dict(model_source(config), **options)[0].get("eos_token_id")
        except (OSError, ValueError):
            return []  # loading the model reports it
    return [token for token in (eos if isinstance(eos, list) else [eos]) if isinstance(token, int)]


def load_base(config: RunConfig, precision: Precision, source: str | None = None) -> PreTrainedModel:
    """The causal language model, on its device, frozen or not yet: `make_trainable` decides."""
    attention.register()
    options = {}
    if config.method.kind == "qlora":
        options["quantization_config"] = _four_bit(precision)
        options["device_map"] = {"": precision.device}
    transformers_logging.disable_progress_bar()
    arguments = {
        "revision": config.model.revision or None,
        "trust_remote_code": config.model.trust_remote_code,
        "dtype": precision.base_dtype,
        **options,
    }
    name = source or model_source(config.model)
    with _loading(config.model, "model"):
        try:
            model = AutoModelForCausalLM.from_pretrained(name, attn_implementation=attention.NAME, **arguments)
        except KeyError as error:
            if error.args != (attention.NAME,):
                raise
            # Falcon and GPT-J look their attention up in a table of their own; `choose_loss` then finds the plain path.
            model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="eager", **arguments)
    model.config.use_cache = False
    layer: Any
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            # bitsandbytes would repack the weights for inference at the first evaluation, for good, and gradients
            # no longer pass through them.
            layer.support_avx512bf16_for_cpu = False
    if not options:
        nn.Module.to(model, precision.device)  # transformers' own `to` is annotated without its arguments
    return model


def vocabulary_size(model: PreTrainedModel) -> int:
    """How many tokens the model has an embedding for."""
    embedding: Any = model.get_input_embeddings()  # annotated as any module
    return embedding.weight.shape[0]


def check_vocabulary(model: PreTrainedModel, largest_id: int) -> None:
    """ModelError when the tokenizer makes ids the model has no embedding for: on a GPU that would be a bare assert."""
    size = vocabulary_size(model)
    if largest_id >= size:
        raise ModelError(
            msg(
                "the tokenizer makes token {largest_id:,}, but the model knows {size:,} tokens",
                largest_id=largest_id,
                size=size,
            ),
            "The tokenizer belongs to another model, or tokens were added to it after the model was saved.",
        )


def model_facts(model: PreTrainedModel) -> ModelFacts:
    """Of a model that has been loaded, what the plan reads from its files."""
    adaptable = (nn.Linear, nn.Embedding, Conv1D, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # as PEFT has it
    modules = [name for name, module in model.named_modules() if isinstance(module, adaptable)]
    return facts_of(model.config.to_dict(), modules, [name for name, _ in model.named_parameters()])


def check_positions(model: PreTrainedModel, longest: int, hint: str = "") -> None:
    """ModelError where positions are looked up in a table that ends before `longest` tokens: on a GPU that would be a
    bare assert, too. `hint`: what to do, where it is no example of a data file that is too long.
    """
    limit = table_positions(model)
    if limit is not None and longest > limit:
        refusal = position_refusal(longest, limit)
        raise ModelError(refusal.message, hint or refusal.hint)


def table_positions(model: PreTrainedModel) -> int | None:
    """How many tokens a model can read whose positions are looked up in a table; None where they are computed."""
    facts = model_facts(model)
    return facts.positions if facts.table else None


def make_trainable(model: PreTrainedModel, config: RunConfig) -> nn.Module:
    """The model with its trainable weights: the model itself, or a PeftModel around it."""
    if config.method.kind == "full":
        return model.requires_grad_(True)
    return _with_adapter(model, config)


def enable_activation_checkpointing(model: PreTrainedModel) -> None:
    """Compute activations again in the backward pass instead of keeping them (Chen et al. 2016, arXiv 1604.06174)."""
    model.gradient_checkpointing_enable({"use_reentrant": False})


def causal_lm(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a PeftModel, or the model itself."""
    unwrap = getattr(model, "get_base_model", None)
    lm: Any = unwrap() if unwrap else model
    return lm


def _with_adapter(model: PreTrainedModel, config: RunConfig) -> nn.Module:
    from peft import LoraConfig, TaskType, get_peft_model

    lora = config.lora
    refuse([finding for finding in check(config, (), model_facts(model)) if finding.setting == "lora.targets"])
    model.requires_grad_(False)
    try:
        return get_peft_model(
            model,
            LoraConfig(
                task_type=TaskType.CAUSAL_LM,
                r=lora.r,
                lora_alpha=lora.alpha,  # type: ignore[arg-type] # annotated int; PEFT only divides it
                lora_dropout=lora.dropout,
                target_modules=lora.targets,
                use_dora=lora.dora,
                use_rslora=lora.rslora,
            ),
        )
    except ValueError as error:
        names = sorted({name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise ModelError(
            f"lora.targets {lora.targets}: {error}", msg("This model has {names}.", names=", ".join(names))
        ) from None


def _four_bit(precision: Precision) -> object:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ModelError(msg("method qlora needs bitsandbytes, which does not load: {error}", error=error)) from None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=precision.autocast or precision.base_dtype,
    )


@contextlib.contextmanager
def _loading(config: ModelConfig, part: str) -> Iterator[None]:
    """Turns what transformers raises into a ModelError with the next step to take."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        hint = "Give a folder with the model, or a name the hub knows."
        if "trust_remote_code" in str(error):
            hint = "The model brings its own code. If you trust it: --set model.trust_remote_code=true"
        elif not Path(config.name).exists() and os.environ.get("HF_HUB_OFFLINE"):
            hint = "HF_HUB_OFFLINE is set: only models already in the hub's cache can be loaded by name."
        raise ModelError(
            msg(
                "the {part} of '{model}' cannot be loaded: {error}",
                part=part,
                model=config.name,
                error=first_line(error),
            ),
            hint,
        ) from error
