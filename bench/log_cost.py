"""What logging a step costs the training loop, and what of it is left after a SIGKILL.

    python bench/log_cost.py
    python bench/log_cost.py --steps 500 --kills 2 --loggers finetop

finetop's journal (one line of JSON, one write) beside wandb in offline mode and trackio without a space, each in its
own environment, called as documented. One step is ten numbers.

    us/step         microseconds in the call, per step: median and 99th percentile, steps following one another at
                    once ("flood") and with a millisecond between them ("paced", nearer to a training loop, where
                    caches are cold). What the logger does later in a thread or process of its own is not in it.
    lost, process   steps whose call had returned and which cannot be read back after the training process alone was
                    killed at a random moment (what the kernel does when memory runs out); most and all kills.
    lost, group     the same with the logger's own helper processes killed too (what a scheduler or container does).

A logger's files are read back two seconds after the kill, so that a helper that survived may finish its work.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import environments
from loggers import NAMES

SCRIPT = str(Path(__file__).resolve().parent / "loggers.py")
GRACE_SECONDS = 2.0
LONGEST_LIFE_SECONDS = 1.5
START_LIMIT_SECONDS = 120


@dataclass(frozen=True)
class Kill:
    acknowledged: int
    """Steps whose log call had returned."""
    lost: int
    """Those of them that cannot be read back."""


def python_of(name: str) -> str:
    return sys.executable if name == "finetop" else environments.python_of(name)


def call(name: str, verb: str, folder: Path, *words: str) -> str:
    command = [python_of(name), SCRIPT, verb, name, str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True, timeout=600)
    if done.returncode:
        sys.exit(f"{name} {verb} failed:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def cost(name: str, steps: int, pause: float) -> list[float]:
    """Microseconds of each step's call, the first tenth (imports, first files) left out."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        call(name, "cost", Path(folder), str(steps), str(pause))
        nanoseconds = json.loads((Path(folder) / "cost.json").read_text())
    return [each / 1000 for each in nanoseconds[len(nanoseconds) // 10 :]]


def kill_once(name: str, whole_group: bool, rng: random.Random) -> Kill:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        reader, writer = os.pipe()
        process = subprocess.Popen(
            [python_of(name), SCRIPT, "endless", name, folder, str(writer)],
            pass_fds=[writer],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(writer)
        first = _read_first(reader, process)
        time.sleep(rng.uniform(0.05, LONGEST_LIFE_SECONDS))
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        numbers = first + _read_rest(reader)
        time.sleep(GRACE_SECONDS)
        found = set(json.loads(call(name, "recover", Path(folder)).strip().splitlines()[-1]))
        if not whole_group:  # helpers that outlived it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    logged = [number for (number,) in struct.iter_unpack("<I", numbers[: len(numbers) // 4 * 4])]
    return Kill(len(logged), len(set(logged) - found))


def _read_first(reader: int, process: subprocess.Popen) -> bytes:
    """Waits for the first step; the pipe holds some 16,000 numbers, more than are logged in a life."""
    limit = time.monotonic() + START_LIMIT_SECONDS
    os.set_blocking(reader, False)
    while time.monotonic() < limit and process.poll() is None:
        try:
            if data := os.read(reader, 4):
                return data
        except BlockingIOError:
            time.sleep(0.01)
    process.kill()
    sys.exit(f"the logger did not log a step within {START_LIMIT_SECONDS} s (exit code {process.poll()})")


def _read_rest(reader: int) -> bytes:
    """What is left in the pipe. Helper processes may hold its other end, so the end of file is not waited for."""
    data = b""
    try:
        while piece := os.read(reader, 65536):
            data += piece
    except BlockingIOError:
        pass
    os.close(reader)
    return data


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loggers", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--steps", type=int, default=5000, help="steps to time (default 5000)")
    parser.add_argument("--kills", type=int, default=10, help="kills of each kind (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--out", type=Path, help="results file, appended to (default in the cache folder)")
    options = parser.parse_args()
    out = options.out or environments.cache_folder() / "results" / f"log-cost-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)

    print(f"{time.strftime('%Y-%m-%d')}  python {sys.version.split()[0]}, load {os.getloadavg()[0]:.2f}")
    print(f"10 numbers a step, {options.steps} steps; {options.kills} kills of each kind\n")
    print(f"{'logger':16} {'us/step flood':>20} {'us/step paced':>20} {'lost, process':>22} {'lost, group':>22}")
    lost_by_ours = 0
    for name in options.loggers:
        rng = random.Random(options.seed)
        version = "" if name == "finetop" else environments.versions_of(python_of(name), (name,))[name]
        flood, paced = cost(name, options.steps, 0.0), cost(name, options.steps, 0.001)
        process, group = ([kill_once(name, whole, rng) for _ in range(options.kills)] for whole in (False, True))
        print(
            f"{name + ' ' + version:16} {_shown(flood):>20} {_shown(paced):>20} "
            f"{_lost(process):>22} {_lost(group):>22}",
            flush=True,
        )
        with open(out, "a") as file:
            row = {
                "logger": name,
                "version": version,
                "flood_us": [statistics.median(flood), _percentile(flood, 99)],
                "paced_us": [statistics.median(paced), _percentile(paced, 99)],
                "killed_process": [vars(kill) for kill in process],
                "killed_group": [vars(kill) for kill in group],
            }
            file.write(json.dumps(row) + "\n")
        if name == "finetop":
            lost_by_ours = sum(kill.lost for kill in (*process, *group))
    print(f"\nus/step: median / 99th percentile.  lost: most in one kill, all lost of all logged.\nall numbers: {out}")
    if lost_by_ours:
        print(f"finetop lost {lost_by_ours} logged steps", file=sys.stderr)
    return int(lost_by_ours > 0)


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def _shown(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} / {_percentile(values, 99):.1f}"


def _lost(kills: list[Kill]) -> str:
    if not kills:
        return "-"
    lost, logged = sum(kill.lost for kill in kills), sum(kill.acknowledged for kill in kills)
    return f"{max(kill.lost for kill in kills)}, {lost:,} of {logged:,}"


if __name__ == "__main__":
    sys.exit(main())
