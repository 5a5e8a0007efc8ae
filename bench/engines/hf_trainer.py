"""transformers.Trainer with the Seq2Seq collator: what one writes by hand from the course's SFT chapter.

Variant `padded`: rows of about the same length together, which is its best setting (`sequential` in curves mode).
"""

from observe import leave, lora_arguments, observe, read_chats, read_job, trainer_arguments

job = read_job()
clock = observe(job)

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

tokenizer = AutoTokenizer.from_pretrained(job["model"])
rows = []
for chat in read_chats(job):
    encoded = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = encoded["input_ids"], encoded["assistant_masks"]
    labels = [token if taught else -100 for token, taught in zip(ids, mask, strict=True)]
    rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels, "length": len(ids)})

model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"]))
if job["method"] == "lora":
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora_arguments(job)))

arguments = TrainingArguments(
    **trainer_arguments(job, job["batch_size"]),
    train_sampling_strategy="sequential" if job["in_order"] else "group_by_length",
)
Trainer(
    model=model,
    args=arguments,
    train_dataset=Dataset.from_list(rows),
    data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
    processing_class=tokenizer,
    callbacks=[clock],
).train()
leave()
