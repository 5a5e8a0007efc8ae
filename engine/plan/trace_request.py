"""The exact figure: a trace asked of a process that may import torch, and remembered by shape and settings."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from engine import __version__
from engine.base.atomic_files import atomic_write
from engine.base.errors import EngineError
from engine.base.messages import msg
from engine.base.oom_kills import OomWatch
from engine.base.worker_process import how_it_left, worker_command, worker_environment
from engine.models.model_shape import find_config
from engine.plan.memory import UNKNOWN_SUPERVISED, EstimateInputs, MemoryEstimate
from engine.settings.schema import RunConfig

MARGIN = 0.06
"""Of the high estimate: what the CUDA allocator may lose between blocks. Assumed."""
_SETTINGS = (
    "model.name", "model.dtype", "model.attention", "data.max_length", "method.kind", "optim.name", "lora.r",
    "lora.dropout", "lora.targets", "lora.dora", "lora.rslora",
)  # fmt: skip
"""The settings a trace depends on, beside what the request says itself."""
_KEPT = 500


def trace_request(config: RunConfig, estimate: MemoryEstimate, inputs: EstimateInputs) -> dict[str, Any] | None:
    """What `engine.worker.trace.trace.answer` takes, for the passes of an estimate. None where no config.json is at
    hand."""
    content = find_config(config.model)
    if content is None:
        return None
    tokens = estimate.micro_tokens
    longest = min(inputs.longest_of(config), tokens)
    lengths = [longest] * (tokens // longest) + ([tokens % longest] if tokens % longest else [])
    flat = config.flat()
    return {
        "settings": {path: flat[path] for path in _SETTINGS},
        "config": content[0],
        "device": inputs.device,
        "bfloat16": inputs.bfloat16,
        "lengths": lengths,
        "supervised": round(UNKNOWN_SUPERVISED if inputs.supervised is None else inputs.supervised, 2),
        "passes": 1 if inputs.step_tokens is not None and inputs.step_tokens <= tokens else 2,
        "checkpointing": estimate.activation_checkpointing,
    }


def remembered(request: dict[str, Any]) -> dict[str, Any] | None:
    """The answer an equal request got before, from equal versions of the libraries."""
    return _load().get(_key(request))


def run_trace(request: dict[str, Any], seconds: float = 600) -> dict[str, Any]:
    """The answer, and remembered from now on. 5 to 30 s for models up to 8B. Raises EngineError where it fails."""
    if answered := remembered(request):
        return answered
    oom = OomWatch()
    try:
        done = subprocess.run(
            worker_command(module="engine.worker.trace.trace"),
            input=json.dumps(request).encode(),
            capture_output=True,
            env=worker_environment(),
            timeout=seconds,
            check=False,
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        done, answer = None, None
    if answer is None:
        output = done.stderr.decode("utf-8", "replace").strip().splitlines() if done else []
        killed = how_it_left(done.returncode) if done and done.returncode < 0 else ""
        raise EngineError(
            msg("the trace failed: {last_line}", last_line=killed or (output[-1] if output else "no answer")),
            f"{oom.hint(done.returncode) if done else ''} The estimate by arithmetic stands on its own.".strip(),
        )
    _remember(request, answer)
    return answer


def traced_estimate(estimate: MemoryEstimate, answer: dict[str, Any], inputs: EstimateInputs) -> MemoryEstimate:
    """The estimate with the traced peak in place of the sum by arithmetic; its parts keep their proportions."""
    context = estimate.parts["context"]
    peak = round(inputs.correction * answer["peak"])
    guessed = estimate.expected - context
    parts = {name: round(value * peak / guessed) for name, value in estimate.parts.items() if name != "context"}
    parts["context"] = context
    expected = sum(parts.values())
    return dataclasses.replace(
        estimate,
        low=expected - context // 4,
        expected=expected,
        high=round(expected + MARGIN * peak),
        parts=parts,
        parameters=answer["parameters"] if estimate.parts.get("quantisation") is None else estimate.parameters,
        trainable=answer["trainable"],
        source="trace",
    )


def _path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(base)) / "finetop" / "plans.json"


def _key(request: dict[str, Any]) -> str:
    versions = [__version__]
    for name in ("torch", "transformers", "peft"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(importlib.metadata.version(name))
    settings = {path: value for path, value in request["settings"].items() if path != "model.name"}
    text = json.dumps([{**request, "settings": settings}, versions], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _load() -> dict[str, Any]:
    try:
        answers = json.loads(_path().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return answers if isinstance(answers, dict) else {}


def _remember(request: dict[str, Any], answer: dict[str, Any]) -> None:
    """Written whole or not at all. That it cannot be written is no reason to fail: it is only a saving of time."""
    path = _path()
    answers = _load() | {_key(request): answer}
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic_write(path, json.dumps(dict(list(answers.items())[-_KEPT:])))
