"""How long the queue's commands take, as a person at the prompt feels it: from Enter to the next prompt.

    python bench/commands.py
    python bench/commands.py --runs 100 --rounds 3

Whole processes, each timed from its start to its end, with a queue of so many waiting runs; no daemon. The first `add`
also makes the database. Promised: `add` 0.35 s, `ls` of 1,000 runs 0.3 s.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FINETOP = [sys.executable, "-P", "-m", "tui"]
DATA = ROOT / "presets" / "samples" / "intents.csv"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="waiting runs (default: 1000)")
    parser.add_argument("--rounds", type=int, default=11, help="times each command is run (default: 11)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetop-commands-") as folder:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "FINETOP_NO_DAEMON": "1",
            "FINETOP_WORKSPACE": folder,
            "COLUMNS": "100",
        }
        add = ("add", "--data-file", str(DATA), "--hold")
        values = ",".join(map(str, range(1, options.runs)))
        print(f"{'command':<34}{'median s':>10}{'slowest':>10}")
        tell("--help", [timed(environment, "--help") for _ in range(options.rounds)])
        tell("add, which makes the database", [timed(environment, *add)])
        began = timed(environment, "sweep", "--data-file", str(DATA), "--grid", f"seed={values}", "--hold")
        tell(f"sweep of {options.runs - 1:,} runs", [began])
        for name, words in (
            ("add", add),
            (f"ls of {options.runs:,} waiting runs", ("ls",)),
            ("ls --json", ("ls", "--json")),
            ("history", ("history",)),
            ("show", ("show", "1")),
            ("move", ("move", "5", "top")),
        ):
            tell(name, [timed(environment, *words) for _ in range(options.rounds)])
    return 0


def timed(environment: dict[str, str], *words: str) -> float:
    began = time.perf_counter()
    subprocess.run([*FINETOP, *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    return time.perf_counter() - began


def tell(name: str, seconds: Sequence[float]) -> None:
    print(f"{name:<34}{statistics.median(seconds):>10.3f}{max(seconds):>10.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
