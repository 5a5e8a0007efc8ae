"""Checkpoints to export, made without training."""

import dataclasses
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.runs import journal
from engine.runs.checkpoints import link
from engine.settings.resolve import Layer, resolve
from engine.settings.schema import RunConfig
from engine.worker.data.chat_template import ChatTemplate
from engine.worker.model.generation_config import answer_ends
from engine.worker.model.load import Precision, causal_lm, load_base, load_tokenizer, make_trainable
from engine.worker.runtime import checkpoint
from engine.worker.runtime.initial_weights import initial_model
from tests.engine.families import build

FLOAT32 = Precision(torch.device("cpu"), None, torch.float32)


def config_of(model: Path, **changes) -> RunConfig:
    values = {
        "model.name": str(model),
        "method.kind": "lora",
        "lora.r": 4,
        "model.dtype": "float32",
        "run.name": "mine",
    }
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    return resolve([Layer("test", values)]).config


def saved(root: Path, model: Path, noise: float = 0.05, **changes) -> Path:
    """A checkpoint in a run's folder whose trained weights differ much from the base's, by `noise`."""
    config = config_of(model, **changes)
    plain = config.replace({"method.kind": "lora"}) if config.method.kind == "qlora" else config
    torch.manual_seed(3)  # PEFT draws one half of an adapter
    trained = make_trainable(load_base(plain, FLOAT32, initial_model(plain.model)), plain)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if parameter.requires_grad and (config.method.kind == "full" or "lora_B" in name):
                parameter += noise * torch.randn(parameter.shape, generator=generator)
    facts = {
        "config": dataclasses.asdict(config),
        "data": {"/data/train.csv": "ab" * 32},
        "versions": {"finetop": "1"},
        "validation_loss": 0.5,
    }
    folder = root / "runs" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.to_json())
    log = journal.Journal(folder)
    log.write("eval", step=7, values={"eval/loss": 0.5, "eval/exact_match": 0.875})
    log.close()
    checkpoints = folder / "checkpoints"
    template = ChatTemplate(load_tokenizer(config.model), config.data.template)
    ends = answer_ends(template, causal_lm(trained)) if config.method.objective == "sft" else ()
    checkpoint.save(checkpoints, 7, 1.0, trained, template.tokenizer, {}, facts, ends=ends)
    link(checkpoints, "best", 7)
    return checkpoints / "step-00000007"


def base_that_ends_documents(folder: Path) -> Path:
    """A base whose end token is that of documents, and a ChatML template. It answers "yes sir" and ends the turn."""
    build("qwen2.5", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    question = [{"role": "user", "content": "hi"}]
    prompt = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer(prompt + "yes sir<|im_end|>")["input_ids"]])
    labels = ids.clone()
    labels[:, : len(tokenizer(prompt)["input_ids"])] = -100
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(60):
        model(ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder
