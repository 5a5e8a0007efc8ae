"""`finetop demo`: the starter model learns the sample task in a throw-away workspace."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from engine import evaluations
from engine.cli.text import duration
from engine.cli.watch import Watcher
from engine.config import Layer, resolve
from engine.home import Workspace, find_workspace
from engine.presets import SAMPLES, find_preset
from engine.process import spawn_worker
from engine.runs import create_run

_SHOWN = 8


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "demo",
        help="train the starter model on sample data and show what it learned",
        parents=[common],
        epilog="examples:\n  finetop demo --headless\n  finetop demo --headless --workspace ./demo\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--headless", action="store_true", help="print progress and results, open no screen")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import tempfile  # 10 ms, which --help need not pay

    root = find_workspace(options.workspace or tempfile.mkdtemp(prefix="finetop-demo-")).root
    data = {"data.files": [str(SAMPLES / "intents.csv")]}
    resolved = resolve([Layer("preset demo", find_preset("demo").settings()), Layer("demo", data)])
    run_id, folder = create_run(Workspace(root), resolved)
    print(
        "The starter model, a small one made for demonstrations, learns to tell what people ask for.\n"
        f"workspace: {root}",
        file=sys.stderr,
    )
    began = time.monotonic()
    watcher = Watcher(run_id, folder)
    code = watcher.follow(lambda: spawn_worker(folder))
    if watcher.last_state.get("state") == "done":
        _print_results(folder, watcher.events, time.monotonic() - began)
        print(f"\nNext, your own data:\n  finetop train --preset quick --data-file FILE --workspace {root}")
    return code


def _print_results(folder: Path, events: list[dict[str, Any]], seconds: float) -> None:
    evals = [event for event in events if event["kind"] == "eval"]
    first, last = evals[0], evals[-1]
    before, after = (evaluations.read_predictions(folder / event["folder"]) for event in (first, last))
    labels = len({sample["reference"] for sample in after})
    print(f"\nAfter {last['step']} steps and {duration(seconds)}, on {len(after)} questions it was never trained on:\n")
    print(f"  {'':<12}{'before':>9}{'after':>9}")
    for key, name in (("eval/exact_match", "accuracy"), ("eval/loss", "loss")):
        shown = [f"{e['values'][key]:.1%}" if name == "accuracy" else f"{e['values'][key]:.3f}" for e in (first, last)]
        print(
            f"  {name:<12}{shown[0]:>9}{shown[1]:>9}" + (f"   (chance: {1 / labels:.1%})" if name == "accuracy" else "")
        )
    print()
    stride = max(1, len(after) // _SHOWN)
    for old, new in list(zip(before, after, strict=True))[::stride][:_SHOWN]:
        mark = "✔" if new["text"] == new["reference"] else "✖"
        print(f"  {_cut(new['prompt'], 70)}")
        print(f"    before: {_cut(old['text'], 60)!r}")
        print(f"    after:  {_cut(new['text'], 60)!r} {mark}")


def _cut(text: str, limit: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
