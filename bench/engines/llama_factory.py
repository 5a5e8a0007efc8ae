"""LLaMA-Factory's `train` on the chats as they are, with its ChatML template of the Qwen family.

Variants: `padded`, rows of about the same length together; `packing`, knapsacks of `pack_length` tokens in which
neighbours see each other; `neat_packing`, the same with a block-diagonal mask.
"""

from observe import leave, observe, read_job, trainer_arguments

job = read_job()
clock = observe(job, "llamafactory", "trl")

from llamafactory.train.tuner import run_exp  # noqa: E402

packing = job["variant"] != "padded"
arguments = {
    **trainer_arguments(job, job["packs_per_step"] if packing else job["batch_size"]),
    "stage": "sft",
    "do_train": True,
    "model_name_or_path": job["model"],
    "finetuning_type": job["method"],
    "dataset": "chats",
    "dataset_dir": job["fixture"],
    "template": "qwen",
    "cutoff_len": job["pack_length"],
    "packing": packing,
    "neat_packing": job["variant"] == "neat_packing",
    "train_sampling_strategy": "random" if packing else "group_by_length",
    "disable_shuffling": job["in_order"],
    "disable_gradient_checkpointing": True,
    "flash_attn": "auto",
    "overwrite_cache": True,
    "plot_loss": False,
}
if job["method"] == "lora":
    arguments |= {
        "lora_rank": job["lora_r"],
        "lora_alpha": job["lora_alpha"],
        "lora_dropout": 0.0,
        "lora_target": "all",
    }
run_exp(arguments, callbacks=[clock])
leave()
