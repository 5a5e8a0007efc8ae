"""Making and looking at small runs."""

import hashlib
import json
from pathlib import Path
from typing import Any

from engine.base.workspace import Workspace
from engine.runs import journal
from engine.runs.run_folder import create_run
from engine.settings.resolve import Layer, resolve
from engine.worker.runtime import checkpoint

SMALL = {
    "data.val_fraction": 0.2,
    "data.max_length": 64,
    "train.batch_size": 4,
    "train.epochs": 2,
    "train.micro_tokens": 64,
    "train.threads": 1,
    "optim.learning_rate": 3e-3,
    "lora.r": 4,
    "lora.dropout": 0.1,
    "save.every": 3,
    "save.keep_last": 0,
    "model.dtype": "float32",
}


class NeverStop:
    requested = False


class StopAfter:
    """Asks to stop once it has been looked at so many times: once before each step."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def make_run(root: Path, model: Path, data: Path, **changes: Any) -> Path:
    """A run's folder; changes are settings with the dot written as two underscores."""
    values = SMALL | {"model.name": str(model), "data.files": [str(data)]}
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    return create_run(Workspace(root), resolve([Layer("test", values)]))[1]


def series(folder: Path, *keys: str) -> list[tuple]:
    """The run's steps with the exact values of some metrics, as hex, so that equal means equal to the last bit."""
    events, _ = journal.read(folder)
    keys = keys or ("train/loss", "train/grad_norm", "train/lr", "train/tokens")
    return [
        (event["step"], *(float(event["values"][key]).hex() for key in keys))
        for event in journal.effective(events)
        if event["kind"] == "metric"
    ]


def evals(folder: Path) -> list[tuple[int, str]]:
    events, _ = journal.read(folder)
    found = (event for event in journal.effective(events) if event["kind"] == "eval")
    return [(event["step"], float(event["values"]["eval/loss"]).hex()) for event in found]


def events_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in journal.read(folder)[0] if event["kind"] == kind]


def last_state(folder: Path) -> dict[str, Any]:
    return events_of(folder, "state")[-1]


def weights_hash(folder: Path) -> str:
    """sha256 over the weights of the run's latest checkpoint."""
    latest, _ = checkpoint.find(folder / "checkpoints", "latest")
    names = sorted(name for name in latest.manifest["files"] if name.endswith(".safetensors"))
    return hashlib.sha256(b"".join((latest.path / name).read_bytes() for name in names)).hexdigest()


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path
