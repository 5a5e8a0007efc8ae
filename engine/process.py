"""Starting a worker: a process of its own, in its own session, with its output in the run's log."""

import os
import subprocess
import sys
from pathlib import Path

from engine.home import LOG, PACKAGE_ROOT


def worker_command(*arguments: str) -> list[str]:
    # -P: a folder called engine/ where the user happens to stand must not be taken for ours.
    return [sys.executable, "-P", "-m", "engine.worker", *arguments]


def worker_environment() -> dict[str, str]:
    before = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{PACKAGE_ROOT}{os.pathsep}{before}" if before else str(PACKAGE_ROOT)}


def spawn_worker(folder: Path, resume_from: str = "latest") -> subprocess.Popen:
    """Start training the run in `folder`. The worker outlives the terminal and whoever started it."""
    with open(folder / LOG, "ab") as log:
        return subprocess.Popen(
            worker_command(str(folder), "--from", resume_from),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=worker_environment(),
            start_new_session=True,
        )
