"""finetop, through its own front: a run's folder with a config.json, and `python -m engine.worker` on it.

Times and losses are read from the journal, which the worker writes to at the end of each optimizer step. Its rows are
known without asking, because the data is taken in the order of the file; what the journal says of real tokens after
each step must agree with that.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from observe import read_job, read_rows, write_result

job = read_job()
repository = Path(__file__).resolve().parents[2]
folder = Path(job["scratch"]) / "run"
shutil.rmtree(folder, ignore_errors=True)
folder.mkdir(parents=True, mode=0o700)

config = {
    "model": {"name": job["model"], "dtype": job["dtype"]},
    "data": {
        "files": [str(Path(job["fixture"]) / "messages.jsonl")],
        "val_fraction": 0.0,
        "max_length": job["pack_length"],
    },
    "method": {"kind": job["method"], "objective": "sft"},
    "lora": {"r": job["lora_r"], "alpha": job["lora_alpha"], "dropout": 0.0, "targets": "all-linear"},
    "optim": {
        "name": "adamw",
        "learning_rate": job["learning_rate"],
        "schedule": "constant",
        "warmup": 0,
        "weight_decay": 0.0,
        "grad_clip": 1.0,
    },
    "train": {
        "epochs": 1,
        "max_steps": job["max_steps"],
        "batch_size": job["batch_size"],
        "micro_tokens": job["micro_tokens"],
        "activation_checkpointing": False,
        "shuffle": False,
        "seed": 0,
        "threads": job["threads"],
    },
}
(folder / "config.json").write_text(json.dumps(config, indent=2))
done = subprocess.run(
    [sys.executable, "-m", "engine.worker", str(folder)],
    cwd=repository,
    env={**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), os.environ.get("PYTHONPATH", "")]).rstrip(":")},
)
if done.returncode:
    sys.exit(done.returncode)

events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
found = {event["kind"]: event for event in events}
rows = read_rows(job)
steps = []
tokens_said = 0
for event in (event for event in events if event["kind"] == "metric"):
    first = len(steps) * job["batch_size"]
    indices = list(range(first, min(first + job["batch_size"], len(rows))))
    tokens = sum(len(rows[index]["ids"]) for index in indices)
    said, tokens_said = event["values"]["train/tokens"] - tokens_said, event["values"]["train/tokens"]
    steps.append(
        {
            "t": event["t"],
            "loss": event["values"]["train/loss"],
            "rows": indices,
            "positions": tokens,
            "strange": abs(tokens - said),
            "wrong_labels": 0,
        }
    )
starting = next(event for event in events if event["kind"] == "state" and "versions" in event)
write_result(
    job,
    steps,
    versions=starting["versions"],
    facts={key: found["model"].get(key) for key in ("path", "weights", "autocast")}
    | {"micro_tokens": found["resume"]["micro_tokens"]},
    supervised_said=found["data"]["train"]["supervised"],
    peak_cuda_bytes=found["model"].get("peak_cuda_bytes"),
)
