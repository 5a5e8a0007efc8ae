"""What every engine's script hands back, and how it is seen from inside a transformers Trainer.

The three peers are all built on `transformers.Trainer`, so one tap at its `training_step` sees them alike: the batch as
it reaches the model, and the loss as it is differentiated (a Trainer's own log rounds it). Nothing is looked at until
training is over; during a step the tap only keeps references, which costs about a microsecond.

Rows are recognised in the batches by their token ids, whatever was padded, packed or reordered. So the count of real
tokens, the rows of the first step and the check of the labels rest on what was trained on, not on what an engine says.

These modules are imported in the peers' own environments: nothing but the standard library and what is there anyway.
"""

import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

PREFIX = 24
"""Tokens by which a row is looked up before it is compared whole."""


def read_job() -> dict[str, Any]:
    """The job this script was started for; its path is the only argument."""
    return json.loads(Path(sys.argv[1]).read_text())


def write_result(job: dict[str, Any], steps: list[dict[str, Any]], **more: Any) -> None:
    """`steps`: for each optimizer step its end `t` (epoch seconds), `loss`, `rows` and `positions` computed."""
    Path(job["result"]).write_text(json.dumps({"steps": steps, **more}))


def read_rows(job: dict[str, Any]) -> list[dict[str, list[int]]]:
    return json.loads((Path(job["fixture"]) / "rows.json").read_text())


def read_chats(job: dict[str, Any]) -> list[list[dict[str, str]]]:
    with open(Path(job["fixture"]) / "messages.jsonl") as file:
        return [json.loads(line)["messages"] for line in file]


def versions(*packages: str) -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in packages}


def set_up_torch(job: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(job["threads"])


def observe(job: dict[str, Any], *packages: str):
    """Taps the Trainer; returns the callback to hand to it, which writes the result when training ends."""
    import torch
    import transformers

    set_up_torch(job)
    batches: list[tuple[Any, Any]] = []
    losses: list[Any] = []
    ends: list[float] = []
    training_step = transformers.Trainer.training_step

    def tapped(self, model, inputs, *args, **kwargs):
        batches.append((inputs["input_ids"], inputs["labels"]))
        loss = training_step(self, model, inputs, *args, **kwargs)
        losses.append(loss.detach())
        return loss

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            ends.append(time.time())

        def on_train_end(self, args, state, control, model=None, **kwargs):
            finder = RowFinder(read_rows(job))
            steps = [
                {"t": t, "loss": float(loss), **finder.find(ids, labels)}
                for t, loss, (ids, labels) in zip(ends, losses, batches, strict=True)
            ]
            facts = {
                "attention": getattr(model.config, "_attn_implementation", None),
                "weights": sorted({str(parameter.dtype) for parameter in model.parameters()}),
                "threads": torch.get_num_threads(),
            }
            peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
            found = versions("torch", "transformers", "peft", "accelerate", *packages)
            write_result(job, steps, versions=found, facts=facts, peak_cuda_bytes=peak)

    transformers.Trainer.training_step = tapped
    return Clock()


class RowFinder:
    """Finds the fixture's rows in batches of token ids."""

    def __init__(self, rows: list[dict[str, list[int]]]) -> None:
        self._rows = rows
        self._by_prefix: dict[tuple[int, ...], list[int]] = {}
        for index, row in enumerate(rows):
            self._by_prefix.setdefault(tuple(row["ids"][:PREFIX]), []).append(index)

    def find(self, input_ids: Any, labels: Any) -> dict[str, Any]:
        """Which rows a batch holds in which order; tokens that belong to none; labels that differ from the truth."""
        rows: list[int] = []
        strange = wrong_labels = 0
        for ids, marks in zip(input_ids.tolist(), labels.tolist(), strict=True):
            position = 0
            while position < len(ids):
                index = self._at(ids, position)
                if index is None:
                    strange += ids[position] != 0  # 0 is the padding token, which occurs in no row
                    wrong_labels += marks[position] != -100
                    position += 1
                    continue
                row = self._rows[index]
                expected = [t if s else -100 for t, s in zip(row["ids"], row["supervised"], strict=True)]
                end = position + len(expected)
                wrong_labels += sum(a != b for a, b in zip(expected, marks[position:end], strict=True))
                rows.append(index)
                position = end
        return {"rows": rows, "positions": input_ids.numel(), "strange": strange, "wrong_labels": wrong_labels}

    def _at(self, ids: list[int], position: int) -> int | None:
        for index in self._by_prefix.get(tuple(ids[position : position + PREFIX]), ()):
            row = self._rows[index]["ids"]
            if ids[position : position + len(row)] == row:
                return index
        return None


def trainer_arguments(job: dict[str, Any], per_device: int) -> dict[str, Any]:
    """TrainingArguments that are the same for every engine on the Trainer."""
    return {
        "output_dir": job["scratch"],
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 1,
        "max_steps": job["max_steps"] or -1,
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "optim": "adamw_torch_fused",
        "max_grad_norm": 1.0,
        "gradient_checkpointing": False,
        "bf16": job["dtype"] == "bfloat16",
        "fp16": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "seed": 0,
        "use_cpu": job["device"] == "cpu",
        "disable_tqdm": True,
    }


def lora_arguments(job: dict[str, Any]) -> dict[str, Any]:
    return {"r": job["lora_r"], "lora_alpha": job["lora_alpha"], "lora_dropout": 0.0, "target_modules": "all-linear"}


def leave() -> None:
    """End at once: what runs at exit (threads of a hub client, say) is no part of the measurement."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
