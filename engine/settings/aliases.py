"""What other trainers call our settings, and the nearest name to a mistyped one."""

import difflib
import functools

from engine.base.messages import msg
from engine.settings.coerce import quoted_name
from engine.settings.schema import SETTINGS

_ELSEWHERE = {
    "lr": "optim.learning_rate",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "per_device_train_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.batch_size",
    "gradient_checkpointing": "train.activation_checkpointing",
    "max_seq_length": "data.max_length",
    "max_seq_len": "data.max_length",
    "cutoff_len": "data.max_length",
    "warmup_ratio": "optim.warmup",
    "warmup_steps": "optim.warmup",
    "lr_scheduler_type": "optim.schedule",
    "max_grad_norm": "optim.grad_clip",
    "model_name_or_path": "model.name",
    "finetuning_type": "method.kind",
    "lora_rank": "lora.r",
    "rank": "lora.r",
    "lora_target": "lora.targets",
    "target_modules": "lora.targets",
    "save_steps": "save.every",
    "eval_steps": "eval.every",
    "save_total_limit": "save.keep_last",
}
"""What other trainers call our settings; people bring these names with them."""


def settings_called(text: str) -> list[str]:
    """The settings whose name holds a text, then those that are called so elsewhere, then those whose help has it."""
    text = text.strip().lower()
    if not text:
        return []
    named = [path for path in SETTINGS if text in path]
    named += [path for name, path in _ELSEWHERE.items() if text in name]
    return list(dict.fromkeys([*named, *(path for path in SETTINGS if text in SETTINGS[path].doc.lower())]))


@functools.lru_cache
def nearest_setting(path: str) -> str:
    """The settings that may have been meant by a name that is none, as the end of a message."""
    last = path.split(".")[-1]
    by_name: dict[str, list[str]] = {}
    for setting in SETTINGS:
        by_name.setdefault(setting.split(".")[1], []).append(setting)
        by_name.setdefault(setting.replace(".", "_"), []).append(setting)
    if last in _ELSEWHERE:
        near = [_ELSEWHERE[last]]
    elif last in by_name:
        near = by_name[last]
    elif not (near := difflib.get_close_matches(path, SETTINGS, 1, 0.6)):
        near = [setting for name in difflib.get_close_matches(last, by_name, 1, 0.7) for setting in by_name[name]]
    return msg("; did you mean {near}?", near=" or ".join(map(quoted_name, near))) if near else ""
