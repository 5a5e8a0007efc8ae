"""Fine-tuning engines side by side: real tokens per second and peak memory, on the same model, data and method.

    python bench/train_throughput.py                                 all engines, full and lora, three rounds
    python bench/train_throughput.py --engines ours trl --rounds 1 --methods full --max-steps 4
    python bench/train_throughput.py --curves                        do the loss curves agree?
    python bench/train_throughput.py --device cuda --size 1.5b --chats 1024 --batch-size 64 --methods lora \\
        --engines ours trl-packing

What is measured. Every engine fine-tunes the same random Qwen2 on the same chats for one epoch: AdamW (fused) at a
constant 1e-4, gradients clipped at 1.0, no activation checkpointing, no evaluation, no save it can be talked out of,
the loss logged at each step. Each has its own virtual environment (bench/environments.py) and its best documented
setting. Engines alternate (A B C A B C ...), each in a process of its own on the same cores.

    real tok/s   tokens of the chats trained on, padding not counted, from the end of step 2 to the end of the last
                 step: start-up and warm-up are left out. Counted from the fixture with one tokenizer, by recognising
                 the chats in what reached the model. Median over the rounds, and the extremes.
    ours/it      how many times as fast as this engine ours is.
    peak         most memory the process ever held (CPU: resident set; GPU: use of the card).
    first step   seconds from the start of the process to the end of its first step.
    others       cores kept busy by everything else on the machine during a run, the most of all rounds. Near 0 or the
                 timing is worth nothing.
    padding      share of the positions computed that were no chat's token.
    loss, ref    loss of the first step, and what it must be: the plain model, in float64, on the same rows.

A row counts only if the work was the same: every chat seen once, no token added, the same tokens supervised, the first
loss equal to the reference. One that fails is printed as "not comparable" with the reason.

Packs. A padded engine takes `--batch-size` chats a step; a packing one as many packs of 2,048 tokens as hold about as
many chats, so that all take about the same number of tokens per optimizer step.

`--curves`: 50 steps of 4 chats in the order of the file, padded or in one pass as the engine does it, full fine-tuning
in float32. The loss per supervised token of every step must equal a plain loop's (rows one by one, whole logits) to a
relative 1e-4.

On a GPU, the share of the card's matrix rate: useful floating-point operations per second over the measured rate of an
8192^3 bf16 product. Useful per token: k x (weights of the layers' matrices + share supervised x hidden x vocabulary),
k = 6 for full fine-tuning (forward 2, gradients of activations 2, of weights 2) and 4 for LoRA (no gradients of the
base weights); attention scores, adapters and embeddings are not counted.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import environments
import fixture as fixtures
from measured import Measured, cpu_name, run_measured

SCRIPTS = Path(__file__).resolve().parent / "engines"
PACK_LENGTH = 2048
CURVE_STEPS, CURVE_BATCH, CURVE_TOLERANCE = 50, 4, 1e-4


@dataclass(frozen=True)
class Engine:
    label: str
    script: str
    environment: str | None
    """None: the interpreter this program runs in."""
    variant: str = "padded"


ENGINES = {
    "ours": Engine("finetop", "ours.py", None, "packed"),
    "trl": Engine("TRL 1.16 padded", "trl_sft.py", "trl"),
    "trl-packing": Engine("TRL 1.16 packing bfd", "trl_sft.py", "trl", "packing"),
    "trainer": Engine("HF Trainer 5.23", "hf_trainer.py", "trainer"),
    "lf": Engine("LLaMA-Factory 0.9.5 padded", "llama_factory.py", "llamafactory"),
    "lf-packing": Engine("LLaMA-Factory packing", "llama_factory.py", "llamafactory", "packing"),
    "lf-neat": Engine("LLaMA-Factory neat_packing", "llama_factory.py", "llamafactory", "neat_packing"),
}


@dataclass
class Run:
    """One engine, one method, one round."""

    engine: str
    method: str
    measured: Measured
    result: dict[str, Any] | None
    reasons: list[str] = field(default_factory=list)
    """Why it does not count; empty: it does."""
    reference: float | None = None
    tokens_per_second: float | None = None
    first_step_seconds: float | None = None

    @property
    def first_loss(self) -> float | None:
        return self.result["steps"][0]["loss"] if self.result else None

    @property
    def peak_bytes(self) -> int:
        return self.measured.peak_gpu_bytes or self.measured.peak_rss_bytes

    @property
    def padding(self) -> float | None:
        return self.result.get("padding") if self.result else None


class Bench:
    """The fixture, the common settings, and how a script is run with them."""

    def __init__(self, options: argparse.Namespace, fixture: fixtures.Fixture) -> None:
        self.options = options
        self.fixture = fixture
        self.pythons = dict(pair.split("=", 1) for pair in options.python)
        self.scratch = Path(tempfile.mkdtemp(prefix="finetop-bench-"))
        self.failed = False
        """Whether a script failed: then the logs in `scratch` are kept."""
        self._references: dict[tuple[int, ...], float] = {}
        self._run_script("fixture", [sys.executable, str(SCRIPTS.parent / "fixture.py"), *self._fixture_words()])
        self.folder = fixture.folder()
        self.rows = json.loads((self.folder / "rows.json").read_text())
        self.lengths = [len(row["ids"]) for row in self.rows]
        self.supervised = [sum(row["supervised"]) for row in self.rows]

    def _fixture_words(self) -> list[str]:
        given = self.fixture
        share = given.supervised / given.tokens
        return f"--size {given.size} --chats {given.chats} --tokens {given.tokens} --supervised {share!r}".split()

    def python(self, environment: str | None) -> str:
        given = self.pythons.get(environment or "ours")
        return given or (environments.python_of(environment) if environment else sys.executable)

    def job(self, **changes: Any) -> dict[str, Any]:
        options = self.options
        mean = self.fixture.tokens / self.fixture.chats
        return {
            "fixture": str(self.folder),
            "model": str(self.folder / "model"),
            "scratch": str(self.scratch / "work"),
            "result": str(self.scratch / "result.json"),
            "device": options.device,
            "dtype": options.dtype,
            "threads": options.threads,
            "batch_size": options.batch_size,
            "packs_per_step": max(1, round(options.batch_size * mean / PACK_LENGTH)),
            "pack_length": PACK_LENGTH,
            "micro_tokens": options.micro_tokens,
            "max_steps": options.max_steps,
            "learning_rate": 1e-4,
            "lora_r": 16,
            "lora_alpha": 32,
            "in_order": False,
            "train": False,
            **changes,
        }

    def run(self, engine: Engine, **changes: Any) -> tuple[Measured, dict[str, Any] | None]:
        """What it took, and the result it wrote, or None when it failed (its log is then kept)."""
        job = self.job(variant=engine.variant, **changes)
        return self._run_job(engine.label, self.python(engine.environment), engine.script, job)

    def reference(self, rows: list[int]) -> float:
        """The true loss of the untouched model on these rows."""
        key = tuple(sorted(rows))
        if key not in self._references:
            result = self._run_own("reference.py", steps=[list(key)])
            self._references[key] = result["steps"][0]["loss"]
        return self._references[key]

    def reference_curve(self, steps: list[list[int]]) -> list[float]:
        return [step["loss"] for step in self._run_own("reference.py", steps=steps, train=True)["steps"]]

    def matmul(self) -> dict[str, Any]:
        return self._run_own("matmul.py")

    def _run_own(self, script: str, **changes: Any) -> dict[str, Any]:
        _, result = self._run_job(script, self.python(None), script, self.job(**changes))
        if result is None:
            sys.exit(f"{script} failed; see {self.scratch / (script + '.log')}")
        return result

    def _run_job(self, name: str, python: str, script: str, job: dict[str, Any]) -> tuple[Measured, dict | None]:
        shutil.rmtree(job["scratch"], ignore_errors=True)
        Path(job["scratch"]).mkdir()
        Path(job["result"]).unlink(missing_ok=True)
        path = self.scratch / "job.json"
        path.write_text(json.dumps(job))
        measured = self._run_script(name, [python, str(SCRIPTS / script), str(path)])
        shutil.rmtree(job["scratch"], ignore_errors=True)
        if measured.code or not Path(job["result"]).exists():
            self.failed = True
            return measured, None
        return measured, json.loads(Path(job["result"]).read_text())

    def _run_script(self, name: str, command: list[str]) -> Measured:
        gpu = self.options.device == "cuda"
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") and not gpu else []
        return run_measured(
            command,
            self._environment(),
            self.scratch / f"{name}.log",
            self.options.timeout,
            set(cores[: self.options.threads]),
            gpu,
        )

    def _environment(self) -> dict[str, str]:
        kept = dict(os.environ)
        if not self.pythons:  # interpreters given by hand may need it
            kept.pop("PYTHONPATH", None)
        threads = str(self.options.threads)
        kept |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONHASHSEED": "0"}
        kept |= {"TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "disabled", "DO_NOT_TRACK": "1"}
        if self.options.device == "cpu":
            kept |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "HF_HOME": str(self.scratch / "work" / "hf")}
        return kept


def throughput(bench: Bench) -> int:
    options = bench.options
    print(heading(bench))
    rate = bench.matmul() if options.device == "cuda" else None
    if rate:
        print(f"{rate['card']}: {rate['flops_per_s'] / 1e12:.0f} TFLOP/s in bf16 products of 8192^3\n")
    with open(options.out, "a") as out:
        for method in options.methods:
            runs: list[Run] = []
            for round_number in range(1, options.rounds + 1):
                for key in options.engines:
                    run = judged(bench, key, method, *bench.run(ENGINES[key], method=method))
                    runs.append(run)
                    print(progress_line(run, round_number), file=sys.stderr, flush=True)
                    out.write(json.dumps(record(bench, run, round_number)) + "\n")
                    out.flush()
            print(table(bench, method, runs, rate["flops_per_s"] if rate else None))
    print(f"all runs: {options.out}")
    return 0


def judged(bench: Bench, key: str, method: str, measured: Measured, result: dict[str, Any] | None) -> Run:
    """The run with its numbers worked out and the reasons why it does not count, if any."""
    run = Run(key, method, measured, result)
    if result is None:
        log = bench.scratch / f"{ENGINES[key].label}.log"
        lines = log.read_text(errors="replace").strip().splitlines()
        run.reasons.append(f"exit code {measured.code}: {lines[-1][:120] if lines else 'no output'} (log: {log})")
        return run
    steps = result["steps"]
    run.first_step_seconds = steps[0]["t"] - measured.started
    timed = sum(bench.lengths[row] for step in steps[2:] for row in step["rows"])
    if len(steps) >= 3:
        run.tokens_per_second = timed / (steps[-1]["t"] - steps[1]["t"])
    else:
        run.reasons.append(f"only {len(steps)} steps, of which the first two are not timed")
    seen = [row for step in steps for row in step["rows"]]
    result["padding"] = 1 - sum(bench.lengths[row] for row in seen) / sum(step["positions"] for step in steps)
    if strange := sum(step["strange"] for step in steps):
        run.reasons.append(f"{strange} tokens that belong to no chat")
    if wrong := sum(step["wrong_labels"] for step in steps):
        run.reasons.append(f"{wrong} labels differ")
    if not bench.options.max_steps and sorted(seen) != list(range(len(bench.rows))):
        run.reasons.append(f"saw {len(seen)} chats, {len(set(seen))} of the {len(bench.rows)} there are")
    said = result.get("supervised_said")
    if said is not None and said != sum(bench.supervised):
        run.reasons.append(f"{said} supervised tokens, not {sum(bench.supervised)}")
    if not steps[0]["rows"]:
        run.reasons.append("the rows of its first step are unknown")
        return run
    run.reference = bench.reference(steps[0]["rows"])
    off = abs(steps[0]["loss"] - run.reference) / run.reference
    if not off <= bench.options.tolerance:
        run.reasons.append(f"first loss off by a relative {off:.1e}")
    return run


def table(bench: Bench, method: str, runs: list[Run], card_rate: float | None) -> str:
    """One line per engine: medians over the rounds, and ratios to ours."""
    by_engine = {key: [run for run in runs if run.engine == key] for key in bench.options.engines}
    speed = {key: [r.tokens_per_second for r in of if r.tokens_per_second] for key, of in by_engine.items()}
    ours = statistics.median(speed["ours"]) if speed.get("ours") else None
    our_peak = statistics.median(r.peak_bytes for r in by_engine["ours"]) if ours else None
    lines = [
        f"\n{method}, {bench.options.dtype}, {bench.options.rounds} rounds",
        f"{'engine':28} {'real tok/s':>10} {'range':>13} {'ours/it':>8} {'peak GB':>8} {'to ours':>8} "
        f"{'1st step':>8} {'others':>7} {'padding':>8} {'loss':>9} {'ref':>9}"
        + (f" {'of card':>8}" if card_rate else ""),
    ]
    for key, of in by_engine.items():
        last = of[-1]
        reasons = sorted({reason for run in of for reason in run.reasons})
        if not speed[key]:
            lines.append(f"{ENGINES[key].label:28} not comparable: {'; '.join(reasons)}")
            continue
        median = statistics.median(speed[key])
        peak = statistics.median(run.peak_bytes for run in of)
        first = statistics.median(run.first_step_seconds for run in of if run.first_step_seconds is not None)
        shown = next(run for run in of if run.result)
        line = (
            f"{ENGINES[key].label:28} {median:10,.0f} {f'{min(speed[key]):,.0f}-{max(speed[key]):,.0f}':>13} "
            f"{f'{ours / median:.2f}x' if ours else '-':>8} {peak / 1e9:8.2f} "
            f"{f'{peak / our_peak:.2f}x' if our_peak else '-':>8} {first:7.1f}s "
            f"{others_shown(of):>7} {shown.padding if shown.padding is not None else 0:8.1%} "
            f"{last.first_loss or 0:9.5f} {last.reference or 0:9.5f}"
        )
        if card_rate:
            line += f" {median * useful_flops_per_token(bench, method) / card_rate:8.1%}"
        lines.append(line + (f"  not comparable: {'; '.join(reasons)}" if reasons else ""))
    return "\n".join(lines) + "\n"


def useful_flops_per_token(bench: Bench, method: str) -> float:
    """See the formula in this module's docstring."""
    shape = json.loads((bench.folder / "model" / "config.json").read_text())
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    keys = hidden * shape["num_key_value_heads"] // heads
    layer = 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * shape["intermediate_size"]
    head = sum(bench.supervised) / sum(bench.lengths) * hidden * shape["vocab_size"]
    return (6 if method == "full" else 4) * (shape["num_hidden_layers"] * layer + head)


def curves(bench: Bench) -> int:
    """Whether the engines' losses agree step by step. Exit code 1 when one does not."""
    options = bench.options
    steps = [list(range(i * CURVE_BATCH, (i + 1) * CURVE_BATCH)) for i in range(options.max_steps or CURVE_STEPS)]
    print(heading(bench))
    print("a plain loop over the same rows ...", file=sys.stderr, flush=True)
    truth = bench.reference_curve(steps)
    print(f"\n{len(steps)} steps of {CURVE_BATCH} chats, full, {options.dtype}; loss per supervised token")
    print(f"{'engine':28} {'step 1':>9} {f'step {len(steps)}':>9} {'largest difference':>19} {'at step':>8}")
    print(f"{'plain loop':28} {truth[0]:9.5f} {truth[-1]:9.5f}")
    failed = False
    with open(options.out, "a") as out:
        for key in options.engines:
            engine = ENGINES[key]
            if engine.variant not in ("padded", "packed"):
                continue  # a packer chooses its own rows
            _, result = bench.run(engine, method="full", in_order=True)
            if result is None:
                print(f"{engine.label:28} failed; see {bench.scratch / (engine.label + '.log')}")
                failed = True
                continue
            losses = [step["loss"] for step in result["steps"]]
            out.write(json.dumps({"curve": key, "losses": losses, "truth": truth}) + "\n")
            if [step["rows"] for step in result["steps"]] != steps:
                print(f"{engine.label:28} not comparable: it took the rows in another order")
                failed = True
                continue
            off = [abs(a - b) / b for a, b in zip(losses, truth, strict=True)]
            worst = max(range(len(off)), key=off.__getitem__)
            agrees = off[worst] <= CURVE_TOLERANCE
            failed |= not agrees
            print(
                f"{engine.label:28} {losses[0]:9.5f} {losses[-1]:9.5f} {off[worst]:19.1e} {worst + 1:8} "
                f" {'agrees' if agrees else f'differs by more than {CURVE_TOLERANCE:g}'}",
                flush=True,
            )
    print(f"\nall curves: {options.out}")
    return int(failed)


def heading(bench: Bench) -> str:
    """What one must know of machine, versions and work to make sense of the numbers."""
    options, given = bench.options, bench.fixture
    lines = [
        f"{time.strftime('%Y-%m-%d')}  {cpu_name()}, {options.threads} threads, {options.device}",
        f"Qwen2 {given.size}, {given.chats} chats, {given.tokens:,} tokens, {given.supervised:,} supervised, "
        f"{options.batch_size} chats a step",
    ]
    packages = ("torch", "transformers", "peft", "trl", "llamafactory", "liger-kernel", "kernels", "flash-attn")
    for name in dict.fromkeys(ENGINES[key].environment for key in options.engines):
        versions = environments.versions_of(bench.python(name), packages)
        lines.append(f"{name or 'ours':14} " + "  ".join(f"{package} {v}" for package, v in versions.items()))
    return "\n".join(lines)


def progress_line(run: Run, round_number: int) -> str:
    speed = f"{run.tokens_per_second:,.0f} tok/s" if run.tokens_per_second else "-"
    return (
        f"round {round_number} {run.method:5} {ENGINES[run.engine].label:28} {speed:>12} "
        f"{run.peak_bytes / 1e9:6.2f} GB  others {others_shown([run])}  {'; '.join(run.reasons)}"
    )


def others_shown(runs: list[Run]) -> str:
    found = [run.measured.others_cores for run in runs if run.measured.others_cores is not None]
    return f"{max(found):.2f}" if found else "?"


def record(bench: Bench, run: Run, round_number: int) -> dict[str, Any]:
    """A run as a line of the results file."""
    result = run.result or {}
    steps = result.get("steps", [])
    return {
        "engine": run.engine,
        "method": run.method,
        "round": round_number,
        "fixture": bench.folder.name,
        "device": bench.options.device,
        "dtype": bench.options.dtype,
        "others_cores": run.measured.others_cores,
        "tokens_per_second": run.tokens_per_second,
        "peak_rss_bytes": run.measured.peak_rss_bytes,
        "peak_gpu_bytes": run.measured.peak_gpu_bytes,
        "peak_cuda_bytes": result.get("peak_cuda_bytes"),
        "first_step_seconds": run.first_step_seconds,
        "seconds": run.measured.seconds,
        "padding": run.padding,
        "reference": run.reference,
        "losses": [step["loss"] for step in steps],
        "ends": [step["t"] for step in steps],
        "versions": result.get("versions"),
        "facts": result.get("facts"),
        "not_comparable": run.reasons,
    }


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line says, and what follows from it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), metavar="ENGINE",
                        help=f"of {', '.join(ENGINES)} (default all)")  # fmt: skip
    parser.add_argument("--methods", nargs="+", choices=("full", "lora"), default=["full", "lora"])
    parser.add_argument("--rounds", type=int, default=3, help="how often each engine runs (default 3)")
    parser.add_argument("--curves", action="store_true", help="compare loss curves instead of speed")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default float32 on cpu, bfloat16 on cuda")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads and cores for each engine (default 2)")
    parser.add_argument("--batch-size", type=int, default=8, help="chats per optimizer step (default 8)")
    parser.add_argument("--micro-tokens", default="auto", help="ours: tokens per forward pass (default auto)")
    parser.add_argument("--max-steps", type=int, default=0, help="stop each run early, to try things out")
    parser.add_argument("--tolerance", type=float, 
                        help="relative, of the first loss (1e-4 in float32, 1e-3 in bfloat16)")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=3600, help="seconds after which a run is killed")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH",
                        help="an interpreter to use for an environment (or 'ours') instead of making one")  # fmt: skip
    parser.add_argument("--out", type=Path, help="results file, appended to (default in the cache folder)")
    fixtures.add_arguments(parser)
    options = parser.parse_args(words)
    options.dtype = options.dtype or ("float32" if options.device == "cpu" else "bfloat16")
    options.tolerance = options.tolerance or (1e-4 if options.dtype == "float32" else 1e-3)
    options.micro_tokens = options.micro_tokens if options.micro_tokens == "auto" else int(options.micro_tokens)
    if options.curves:
        options.chats, options.batch_size = CURVE_STEPS * CURVE_BATCH, CURVE_BATCH
    return options


def main() -> int:
    options = arguments()
    if options.out is None:
        kind = "curves" if options.curves else "throughput"
        options.out = environments.cache_folder() / "results" / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the engine running is ended too
    bench = Bench(options, fixtures.from_arguments(options))
    code = curves(bench) if options.curves else throughput(bench)
    if not bench.failed:
        shutil.rmtree(bench.scratch)
    return code


if __name__ == "__main__":
    sys.exit(main())
