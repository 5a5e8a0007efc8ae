"""Loaded models by reference, ready to be evaluated: a base is loaded once and its adapters are switched."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, PreTrainedModel

from engine.base.errors import ModelError
from engine.base.messages import msg
from engine.models.device_limits import MOST_ADAPTERS
from engine.runs.model_refs import ModelRef
from engine.settings.schema import RunConfig
from engine.worker.data.chat_template import ChatTemplate, clock_of
from engine.worker.data.packing import TokenSet, make_pack
from engine.worker.evaluate.measure import LoadedModel
from engine.worker.model.base_weights import BaseWeights
from engine.worker.model.fast_layers import use_fast_layers
from engine.worker.model.load import (
    Precision,
    causal_lm,
    check_positions,
    check_vocabulary,
    choose_precision,
    generation_ends,
    load_base,
    load_tokenizer,
    pick_device,
)
from engine.worker.model.loss import LOSS_TOLERANCE, choose_loss
from engine.worker.runtime.checkpoint import read_manifest, verify_weights
from engine.worker.runtime.memory_fit import give_back_memory
from engine.worker.runtime.resume_checks import probe_indices


class ModelCache:
    """Holds one base model at a time, with every adapter that was put on it."""

    def __init__(self) -> None:
        self.device = pick_device()
        self._key: tuple | None = None
        self._model: Any = None
        """The base, or the PeftModel around it."""
        self._adapters: dict[str, str] = {}
        """By folder its name in the PeftModel, the one used last at the end."""
        self._loaded = 0
        self._verified: set[str] = set()
        """Folders of checkpoints whose weights are as they were written."""
        self.warnings: dict[str, str] = {}
        """By the reference's name: what could not be verified."""

    def template(self, ref: ModelRef) -> ChatTemplate:
        """The checkpoint's own tokenizer and chat template; for a base model, what a run on it would use."""
        folder, clock = Path(ref.tokenizer), clock_of(ref.config.data)
        if ref.step is None and not ref.adapter:
            model = _named(ref)
            return ChatTemplate(load_tokenizer(model), ref.config.data.template, generation_ends(model), clock)
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=ref.config.model.trust_remote_code)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(
                msg("the tokenizer in {folder} cannot be loaded: {error}", folder=folder, error=error)
            ) from error
        return ChatTemplate(tokenizer, ends=generation_ends(ref.config.model), now=clock)

    def precision(self, ref: ModelRef) -> Precision:
        """In which the reference's model computes on this device."""
        return choose_precision(ref.config, self.device)

    @contextlib.contextmanager
    def acquire(
        self, ref: ModelRef, template: ChatTemplate, tokens: TokenSet, too_long: str = ""
    ) -> Iterator[LoadedModel]:
        """The reference's model in evaluation mode. `tokens` are tried for whether they may be packed (`choose_loss`).
        `too_long`: the hint on examples that the model has no positions for, see `check_positions`.

        Raises ModelError or CheckpointError when the weights cannot be loaded or are not as they were written.
        """
        with self.activate(ref) as (lm, precision):
            check_vocabulary(lm, int(tokens.ids.max()))
            check_positions(lm, int(tokens.lengths.max()), too_long)
            probe = make_pack(tokens, probe_indices(tokens)).to(self.device)
            with precision.context():
                loss_fn, _ = choose_loss(lm, probe, ref.config.model.attention, LOSS_TOLERANCE[precision.autocast])
            yield LoadedModel(loss_fn, template, precision)

    @contextlib.contextmanager
    def activate(self, ref: ModelRef) -> Iterator[tuple[PreTrainedModel, Precision]]:
        """The reference's model in evaluation mode, its adapter in force. Raises as `acquire` does."""
        precision = self.precision(ref)
        weights = ref.adapter or ref.base
        if ref.step is not None and weights not in self._verified:
            verify_weights(Path(weights))
            self._verified.add(weights)
        base = BaseWeights(ref.config, ref.base) if ref.step is not None and ref.adapter else None
        key = (ref.base, ref.config.model.revision, precision, ref.config.method.kind == "qlora")
        if key != self._key:
            self._release()
            self._model, self._key = self._load(ref, precision), key
        is_new = base is not None and ref.adapter not in self._adapters
        if is_new and base and (warning := base.refuse_other(read_manifest(Path(ref.adapter)))):
            self.warnings[ref.name] = warning
        with self._adapted(ref):
            self._model.eval()
            yield causal_lm(self._model), precision

    def _load(self, ref: ModelRef, precision: Precision) -> PreTrainedModel:
        config = ref.config
        if ref.base != config.model.name:
            config = config.replace({"model.name": ref.base, "model.revision": ""})
        if ref.step is not None and not ref.adapter:  # a full fine-tune: never quantised
            config = config.replace({"method.kind": "full"})
        model = load_base(config, precision)
        model.requires_grad_(False)
        use_fast_layers(model)
        return model

    @contextlib.contextmanager
    def _adapted(self, ref: ModelRef) -> Iterator[None]:
        if not ref.adapter:
            bare = self._model.disable_adapter() if self._adapters else contextlib.nullcontext()
            with bare:
                yield
            return
        name = self._adapters.pop(ref.adapter, None)
        if name is None:
            from peft import PeftModel

            name, self._loaded = f"adapter{self._loaded}", self._loaded + 1
            try:
                if self._adapters:
                    self._model.load_adapter(ref.adapter, name)
                else:
                    self._model = PeftModel.from_pretrained(self._model, ref.adapter, name)
            except (OSError, ValueError, KeyError, RuntimeError) as error:
                raise ModelError(
                    msg(
                        "the adapter {adapter} does not fit {base}: {error}",
                        adapter=ref.adapter,
                        base=ref.base,
                        error=error,
                    )
                ) from error
            use_fast_layers(self._model)
        self._adapters[ref.adapter] = name
        self._model.set_adapter(name)
        self._make_room()  # now that another is in force
        yield

    def _make_room(self) -> None:
        """Of many checkpoints that are asked one after the other, those asked longest ago leave."""
        while len(self._adapters) > MOST_ADAPTERS:
            folder = next(iter(self._adapters))
            self._model.delete_adapter(self._adapters.pop(folder))

    def _release(self) -> None:
        self._model, self._key = None, None
        self._adapters.clear()
        give_back_memory()


def _named(ref: ModelRef) -> Any:
    """The model settings with the tokenizer's own path in them."""
    config: RunConfig = ref.config
    if ref.tokenizer == config.model.name:
        return config.model
    return config.replace({"model.name": ref.tokenizer, "model.revision": ""}).model


def prompt_tokens(prompts: list[list[int]]) -> TokenSet:
    """Prompts as a token set on which the packed path can be tried; a prompt of one token is repeated in it."""
    pairs = [(ids if len(ids) > 1 else ids * 2) for ids in prompts]
    return TokenSet.join([(np.array(ids, dtype=np.int32), np.ones(len(ids), dtype=bool)) for ids in pairs])
