"""Where an answer ends, written for those who load the model: transformers and vLLM read generation_config.json."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.base.errors import DataError
from engine.formats.examples import Example
from engine.worker.data.chat_template import ChatTemplate

GENERATION_CONFIG = "generation_config.json"


def answer_ends(template: ChatTemplate, model: Any) -> tuple[int, ...]:
    """The tokens at which answers stop: first the end of turn that was trained, then all others of the template, the
    tokenizer and the model's generation config."""
    configured = model.generation_config.eos_token_id
    eos_ids = {*template.stop_token_ids, *(configured if isinstance(configured, list) else [configured])} - {None}
    question, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    encoded = template.encode_chats([Example(messages=(question, answer))])[0]
    if isinstance(encoded, DataError) or not encoded.loss_mask.any():
        return tuple(sorted(eos_ids))
    end = int(encoded.ids[encoded.loss_mask][-1])
    return (end, *sorted(eos_ids - {end})) if end in eos_ids else tuple(sorted(eos_ids))


def stop_at(config: Any, ends: Sequence[int]) -> Any:
    """A copy of a model's config or generation config with these ends; as it is where there are none."""
    config = copy.deepcopy(config)
    if ends:
        config.eos_token_id = list(ends) if len(ends) > 1 else ends[0]
    return config


def end_turns(tokenizer: Any, ends: Sequence[int]) -> None:
    """Make the end of turn the tokenizer's end token, which some programs stop at, unless its template writes that."""
    if not ends or ends[0] == tokenizer.eos_token_id:
        return
    rendered, original_eos = _rendered(tokenizer), tokenizer.eos_token
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    if _rendered(tokenizer) != rendered:
        tokenizer.eos_token = original_eos


def _rendered(tokenizer: Any) -> list[str]:
    """What the template makes of conversations; of those it refuses, the refusal."""
    system, user, assistant = ({"role": role, "content": role} for role in ("system", "user", "assistant"))
    texts = []
    for chat in ([user], [user, assistant], [system, user], [system, user, assistant, user]):
        try:
            texts.append(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=chat[-1] is user))
        except Exception as error:  # a template may raise anything
            texts.append(f"{error}")
    return texts


def write_generation_config(model: Any, ends: Sequence[int], folder: Path) -> None:
    """generation_config.json with these ends in `folder`, also beside an adapter; what else the model's says stays."""
    # Not save_pretrained, which refuses what some models ship with, such as a temperature without sampling.
    stop_at(model.generation_config, ends).to_json_file(folder / GENERATION_CONFIG)
