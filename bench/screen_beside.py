"""What goes on beside the screens that screen.py looks at: runs that log, a stand-in for the daemon, other load."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import environments
import psutil
from measured import busy_seconds

HERE = Path(__file__).resolve().parent


@contextlib.contextmanager
def logging_process(python: str, role: str, words: list[str], home: Path) -> Iterator[list[tuple[int, int, float]]]:
    process = subprocess.Popen(
        [python, str(HERE / "screen_runs.py"), role, *words],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HOME": str(home)},
        start_new_session=True,
    )
    logged: list[tuple[int, int, float]] = []

    def take() -> None:
        for line in process.stdout or ():
            run, step, t = line.split()
            logged.append((int(run), int(step), float(t)))

    reader = threading.Thread(target=take, daemon=True)
    reader.start()
    try:
        yield logged
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(5)


@contextlib.contextmanager
def stand_in(root: Path, run_ids: list[int]) -> Iterator[None]:
    """Does what the daemon does for a screen: imports journals four times a second, tells of GPUs once a second."""
    process = subprocess.Popen([sys.executable, str(HERE / "screen_daemon.py"), str(root), *map(str, run_ids)])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def fixture(role: str, python: str, runs: int, long_steps: int) -> Path:
    """The folder with the runs, made on first need and kept; made again when what makes it has changed."""
    source = hashlib.sha256((HERE / "screen_runs.py").read_bytes()).hexdigest()[:8]
    folder = environments.cache_folder() / "fixtures" / f"screen-{runs}-{long_steps}-{source}" / role
    if not folder.exists():
        print(f"making {folder} ...", file=sys.stderr, flush=True)
        making = folder.with_name(role + ".making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as home:
            words = [role, str(making), str(runs), str(long_steps)]
            subprocess.run([python, str(HERE / "screen_runs.py"), *words], check=True, env=os.environ | {"HOME": home})
        making.rename(folder)
    return folder


class Load:
    """How many cores are busy with something that is none of ours."""

    also: list[int] = []
    """Processes of ours that are not our children: daemons."""

    def __init__(self) -> None:
        self._begun, self._busy = time.monotonic(), busy_seconds()
        self._own = self._used()

    def others(self) -> float | None:
        if self._busy is None:
            return None
        other = busy_seconds() - self._busy - (self._used() - self._own)
        return max(0.0, other / (time.monotonic() - self._begun))

    def _used(self) -> float:
        used = sum(os.times()[:4])  # ours, and children that have ended
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                used += sum(process.cpu_times()[:4])
        return used


def wait(condition: Callable[[], object], limit: float = 30.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("waited in vain")
        time.sleep(0.02)
