"""Everything about finetop that only a GPU can prove or refute, in minutes on a rented card and without a network.

    python bench/gpu_kit.py all --out results                   goes on where the last such command ended
    python bench/gpu_kit.py train oom --out results             these stages only
    python bench/gpu_kit.py "speed/7b lora" --out results       this measurement only
    python bench/gpu_kit.py all --device cpu --size tiny        a rehearsal: does every stage run?
    python bench/gpu_kit.py --table --out results               the table of what is there; measures nothing
    python bench/gpu_kit.py --docs --out results                writes that table into docs/gpu.md

Stages, in the order in which `all` takes them: {stages}. Each consists of measurements, and each of these is a line in
OUT/results.jsonl as soon as it is taken; OUT/table.md shows them all. A measurement that is there already, from this
card, these versions and this source, is not taken again. A command begins nothing that would not end within
--minutes; what is left it names, and the next command goes on. Exit codes: 0 all measured and right, 1 something fell
short or failed, 3 time ran out before everything was measured.

`--stages` says what each stage proves. docs/gpu.md: what to carry to the machine, and the table of the last run.
"""

import argparse
import ctypes
import faulthandler
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

BEGAN = time.monotonic()
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from gpu import STAGES, docstring  # noqa: E402

DOCS = ROOT / "docs" / "gpu.md"
BEGIN, END = "<!-- table: written by bench/gpu_kit.py --docs -->", "<!-- /table -->"


def main(words: list[str] | None = None) -> int:
    options = parser().parse_args(words)
    if options.stages:
        print("\n\n".join(docstring(stage).strip() for stage in STAGES))
        return 0
    options.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["FINETOP_BENCH_CACHE"] = str(options.scratch / "bench")
    from gpu.kit import Kit

    kit = Kit(options.device, options.size, options.out.resolve(), options.scratch.resolve())
    if options.one:
        return child(kit, *options.one, options.result)
    from gpu import records, schedule

    if options.table or options.docs:
        return show(kit, options.docs)
    plan = schedule.plan(options.stage)
    if not plan or {name.partition("/")[0] for name in options.stage} - {*STAGES, "all"}:
        parser().error(f"name stages, STAGE/MEASUREMENT, or all; there are {', '.join(STAGES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the measurement under way is ended too
    return schedule.run(kit, records.identity(kit.device, kit.size), plan, options.minutes, BEGAN)


def parser() -> argparse.ArgumentParser:
    text = (__doc__ or "").format(stages=", ".join(STAGES))
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("stage", nargs="*", metavar="STAGE", help="stages, STAGE/MEASUREMENT, or all")
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    made.add_argument("--size", choices=("full", "tiny"), default="full", help="tiny: two layers, to try things out")
    made.add_argument("--out", type=Path, default=Path("gpu-results"), help="results (default: gpu-results)")
    made.add_argument("--minutes", type=float, default=8.0, help="begin nothing that would not end by then (default 8)")
    scratch = Path(tempfile.gettempdir()) / f"finetop-gpu-kit-{os.getuid()}"
    made.add_argument("--scratch", type=Path, default=scratch, help=f"models, data, runs: 30 GB (default: {scratch})")
    made.add_argument("--stages", action="store_true", help="say what each stage proves")
    made.add_argument("--table", action="store_true", help="print the table of OUT")
    made.add_argument("--docs", action="store_true", help="write the table of OUT into docs/gpu.md")
    made.add_argument("--one", nargs=2, metavar=("STAGE", "KEY"), help=argparse.SUPPRESS)
    made.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    return made


def child(kit, stage: str, key: str, result: Path) -> int:
    """One measurement, for the process that waits for `result`."""
    from gpu import schedule

    faulthandler.register(signal.SIGUSR1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: not to outlive the kit
    unfinished = result.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(schedule.one(kit, stage, key)), "utf-8")
    unfinished.replace(result)
    return 0


def show(kit, docs: bool) -> int:
    """The newest result of each measurement in OUT, on the card and versions of the last one; with `docs`, into
    docs/gpu.md."""
    from gpu import records, schedule

    lines = records.read(kit.out / records.RESULTS)
    if not lines:
        print(f"gpu_kit: there are no results in {kit.out}", file=sys.stderr)
        return 2
    identity = max(lines, key=lambda line: line["began"])["identity"]
    text = records.table(identity, schedule.in_order(records.of_any_source(lines, identity)), [])
    if not docs:
        print(text)
        return 0
    if identity["device"] != "cuda":
        print("gpu_kit: a rehearsal on a CPU is no table for the docs", file=sys.stderr)
        return 2
    before, _, rest = DOCS.read_text("utf-8").partition(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}\n{text}{END}{rest.partition(END)[2]}", "utf-8")
    print(f"{DOCS} has the table of {identity['card']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
