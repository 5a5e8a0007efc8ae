"""TRL's SFTTrainer on the chats as they are, loss on the assistant's tokens only.

Variants: `padded`, rows of about the same length together; `packing`, best-fit-decreasing packs of `pack_length`
tokens without padding, as TRL's guide to reducing memory and time advises. On CUDA: flash attention and the Hub's
kernels where they are installed, as the same guide advises; otherwise SDPA.
"""

import importlib.util

from observe import leave, lora_arguments, observe, read_chats, read_job, trainer_arguments

job = read_job()
clock = observe(job, "trl")

from datasets import Dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

packing = job["variant"] == "packing"
model_arguments = {"dtype": job["dtype"]}
if job["device"] == "cuda":
    if importlib.util.find_spec("flash_attn"):
        model_arguments["attn_implementation"] = "flash_attention_2"
    elif importlib.util.find_spec("kernels"):
        model_arguments["attn_implementation"] = "kernels-community/flash-attn2"
    if importlib.util.find_spec("kernels"):
        model_arguments["use_kernels"] = True

arguments = SFTConfig(
    **trainer_arguments(job, job["packs_per_step"] if packing else job["batch_size"]),
    model_init_kwargs=model_arguments,
    assistant_only_loss=True,
    max_length=job["pack_length"],
    packing=packing,
    packing_strategy="bfd",
    train_sampling_strategy="sequential" if job["in_order"] else "random" if packing else "group_by_length",
)
SFTTrainer(
    model=job["model"],
    args=arguments,
    train_dataset=Dataset.from_list([{"messages": chat} for chat in read_chats(job)]),
    peft_config=LoraConfig(task_type="CAUSAL_LM", **lora_arguments(job)) if job["method"] == "lora" else None,
    callbacks=[clock],
).train()
leave()
