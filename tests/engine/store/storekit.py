"""What the store's tests share: journals written by hand, and other processes."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]


def line(kind: str, t: float = 1000.0, **fields: Any) -> bytes:
    return json.dumps({"t": t, "kind": kind, **fields}).encode() + b"\n"


def metric(step: int, t: float | None = None, **values: float | None) -> bytes:
    """One step's line; `loss=...` becomes `train/loss`."""
    named = {f"train/{name}": value for name, value in values.items()}
    return line("metric", 1000.0 + step if t is None else t, step=step, values=named)


def write(folder: Path, *lines: bytes) -> Path:
    """Append to the folder's journal."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "journal.jsonl", "ab") as file:
        file.writelines(lines)
    return folder


def process(code: str, *words: Any) -> subprocess.Popen:
    """Another Python with the engine on its path; `sys.argv[1:]` are the words."""
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def outputs(processes: Iterable[subprocess.Popen]) -> list[str]:
    found = []
    for started in processes:
        output, _ = started.communicate(timeout=60)
        assert started.returncode == 0, started.args
        found.append(output)
    return found


def until(condition: Callable[[], Any], limit: float = 20.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.002)
