"""The server's engines as lines and as JSON: where each is, what it takes, how long nobody has asked it."""

import json
import resource
import time
from pathlib import Path
from typing import Any

from engine.base.engine_folder import EngineFolder, LiveEngine, engine_folders, live_engines
from engine.base.messages import msg
from engine.base.workspace import Workspace
from engine.present.numbers import short_duration, size
from engine.present.text import cut, visible

_RECENT_SECONDS = 60.0
"""Nobody has asked for one that has waited for longer since it was last told."""


def engines_json(workspace: Workspace, now: float | None = None) -> list[dict[str, Any]]:
    """Those that live, then those that wait, each with why."""
    now = time.time() if now is None else now
    live = live_engines(workspace)
    names = {engine.name for engine in live}
    waiting = [folder for folder in engine_folders(workspace) if folder.name not in names and _waits(folder, now)]
    return [_live_json(workspace, engine, now) for engine in live] + [
        {"engine": folder.name, "base": state.base, "state": "waits", "reason": state.reason}
        for folder in waiting
        if (state := folder.state())
    ]


def engine_lines(workspace: Workspace, width: int = 80) -> list[str]:
    """A table; empty where there are none."""
    rows = engines_json(workspace)
    if not rows:
        return []
    lines = [f"{'engine':<26} {'device':<7} {'pid':>8} {'memory':>7} {'of':>6} {'age':>5} {'idle':>5} {'requests':>8}"]
    for row in rows:
        name = f"{row['engine']:<26}"
        if row["state"] == "waits":
            lines.append(f"{name} {row['reason']}")
            continue
        device = ", ".join(row["gpus"])
        ages = "".join(f" {short_duration(row[key]):>5}" for key in ("age_seconds", "idle_seconds"))
        memory = f"{size(row['memory_bytes']):>7} {size(row['promised_bytes']):>6}"
        lines.append(
            f"{name} {msg('GPU {gpus}', gpus=device) if device else 'CPU':<7} {row['pid']:>8} {memory}{ages} "
            f"{row['requests']:>8,}"
        )
    return [visible(cut(line, width)) for line in lines]


def _waits(folder: EngineFolder, now: float) -> bool:
    state = folder.state()
    try:
        told_at = folder.state_file.stat().st_mtime
    except OSError:
        return False
    return state is not None and state.state == "waits" and now - told_at < _RECENT_SECONDS


def _live_json(workspace: Workspace, engine: LiveEngine, now: float) -> dict[str, Any]:
    state, use = engine.state, engine.use
    return {
        "engine": engine.name,
        "base": state.base,
        "state": "leaves" if state.state == "leaves" else "answers" if use.active else "rests",
        "pid": use.pid,
        "gpus": list(state.gpus),
        "memory_bytes": _on_gpu(workspace, engine.name) if state.gpus else _resident(use.pid),
        "promised_bytes": state.estimate_bytes,
        "age_seconds": max(0.0, now - state.started) if state.started else None,
        "idle_seconds": engine.idle_seconds(now),
        "requests": use.requests,
    }


def _on_gpu(workspace: Workspace, name: str) -> int | None:
    """Of the GPU's memory, as the daemon has seen it last; None where the driver does not tell."""
    try:
        gpus = json.loads(workspace.machine_state.read_bytes())["gpus"]
        sizes = [user["memory_bytes"] for gpu in gpus for user in gpu["processes"] or () if user["run"] == name]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return sum(size for size in sizes if size is not None) or None


def _resident(pid: int) -> int | None:
    """Of the host's memory; None where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return None
