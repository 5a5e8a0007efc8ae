"""`finetop demo`: the starter model learns the sample task in a throw-away workspace, on the screen or in lines."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.messages import msg, msg_n
from engine.base.worker_process import spawn_worker
from engine.base.workspace import Workspace, find_workspace, folder_bytes
from engine.cli.watch_run import Watcher
from engine.metrics.names import metric_name
from engine.present.numbers import bytes_text, duration
from engine.present.text import cut, one_line, visible
from engine.runs import evaluation_folder
from engine.runs.run_folder import create_run
from engine.settings.presets import SAMPLES, find_preset, preset_layer
from engine.settings.resolve import Layer, resolve

if TYPE_CHECKING:
    from engine.control import Control
    from engine.store.run_records import Run

_SHOWN = 8
_RATES = (2e-3, 2e-4)
"""The first learns the task; the second, a tenth of it, has not got there when the demo ends."""
_EPOCHS = 6
"""Two runs, side by side on two slow cores, are done after a minute and a half."""
_MOST_THREADS = 4
"""A model this small gains nothing from more, and loses where they wait for each other."""
_PROMPTS = ("我想吃饺子，送到家里", "is the pound up or down against the yen", "get me out of bed at nine sharp")
"""Answered at every evaluation. None of them is in the data."""
_IDLE_EXIT_SECONDS = 900
"""A terminal may hang up in the middle of the demo: no daemon stays for ever in a folder that nobody looks at."""
_STOP_SECONDS, _KILL_SECONDS = 10.0, 5.0
_POLL_SECONDS = 0.1


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "demo",
        description="Two runs of a small model that ships with finetop, live on the screen, in a folder of their own."
        " Without a terminal, or with --headless: one run, in lines.",
        parents=[common],
        epilog="examples:\n  finetop demo\n  finetop demo --headless --workspace ./demo\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--headless", action="store_true", help="print progress and results, open no screen")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import tempfile  # 10 ms, which --help need not pay

    workspace = find_workspace(options.workspace or tempfile.mkdtemp(prefix="finetop-demo-"))
    if options.headless or options.tour is None:
        return _headless(workspace)
    return _live(workspace, options.tour)


# on the screen


def _live(workspace: Workspace, tour: Callable[[Path], int]) -> int:
    """Queue two runs the way everyone does, show them, and leave no process behind."""
    from engine.cli.run_args import on_db_busy
    from engine.control import Control  # with the store: 20 ms, which --help need not pay

    own = not workspace.database.exists()
    if own:
        _prepare(workspace)
    with Control(workspace, on_wait=on_db_busy) as control:
        ids = _queue_runs(control)
        code = tour(workspace.root)
        if own:
            _leave(workspace, control, ids)
    return code


def _queue_runs(control: "Control") -> list[int]:
    from engine.base.worker_process import cores
    from engine.settings import sweep

    of_the_demo = {
        "data.files": [str(SAMPLES / "intents.csv")],
        "train.epochs": _EPOCHS,
        "train.threads": max(1, min(_MOST_THREADS, cores() // 2)),
        "eval.prompts": list(_PROMPTS),
        "save.keep_epochs": 2,
        "run.share": True,
    }
    layers = [preset_layer(find_preset("demo")), Layer("demo", of_the_demo)]
    rates = [{"optim.learning_rate": rate} for rate in _RATES]
    return control.add_all(sweep.runs(layers, rates, "demo"), sweep="demo")


def _prepare(workspace: Workspace) -> None:
    """Two runs at a time where there are two cores, and no daemon for ever. Only in a workspace made for the demo."""
    from engine.base.worker_process import cores
    from engine.daemon.limits import IDLE_EXIT
    from engine.daemon.scheduler_state import CPU_SLOTS
    from engine.store import queue
    from engine.store.connect import writer

    with contextlib.closing(writer(workspace.database)) as conn:
        queue.set_meta(conn, IDLE_EXIT, str(_IDLE_EXIT_SECONDS))
        queue.set_meta(conn, CPU_SLOTS, str(min(2, cores())))


def _leave(workspace: Workspace, control: "Control", ids: Collection[int]) -> None:
    """End what is left of the demo and its daemon; where the user has queued more in its workspace, all goes on."""
    from engine.daemon import daemon_client

    if others := [run for run in _living(workspace) if run.id not in ids]:
        print(msg_n("A run of yours goes on there.", "{n:,} runs of yours go on there.", len(others)))
    else:
        if _living(workspace):
            print("Ending the demo's runs ...", file=sys.stderr)
        for end, seconds in ((control.stop, _STOP_SECONDS), (control.kill, _KILL_SECONDS)):
            for run in _living(workspace):
                end(run.id)
            deadline = time.monotonic() + seconds
            while _living(workspace) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        daemon_client.stop(workspace)
    where = visible(str(workspace.root))
    print(msg("The demo's runs lie in {where} ({root}).", where=where, root=bytes_text(folder_bytes(workspace.root))))
    print(msg("  finetop --workspace {where}    opens them again", where=where))
    print("  finetop add --preset quick --data-file FILE    queues a run on your own data, in the folder you are in")


def _living(workspace: Workspace) -> list["Run"]:
    """The runs that train, or wait for their turn."""
    from engine.store import queries
    from engine.store.connect import reader

    with contextlib.closing(reader(workspace.database)) as conn:
        return [*queries.active(conn), *(run for run in queries.queue(conn) if not run.held)]


# in lines


def _headless(workspace: Workspace) -> int:
    data = {"data.files": [str(SAMPLES / "intents.csv")]}
    resolved = resolve([preset_layer(find_preset("demo")), Layer("demo", data)])
    run_id, folder = create_run(workspace, resolved)
    print(
        msg(
            "The starter model, a small one made for demonstrations, learns to tell what people ask for.\n"
            "workspace: {root}",
            root=workspace.root,
        ),
        file=sys.stderr,
    )
    began = time.monotonic()
    watcher = Watcher(run_id, folder)
    code = watcher.follow(lambda: spawn_worker(folder))
    if watcher.last_state.get("state") == "done":
        _print_results(folder, watcher.events, time.monotonic() - began)
        print(
            msg(
                "\nNext, your own data:\n  finetop train --preset quick --data-file FILE --workspace {root}",
                root=workspace.root,
            )
        )
    return code


def _print_results(folder: Path, events: list[dict[str, Any]], seconds: float) -> None:
    evals = [event for event in events if event["kind"] == "eval"]
    first, last = evals[0], evals[-1]
    before, after = (evaluation_folder.read_predictions(folder / event["folder"]) for event in (first, last))
    labels = len({prediction.reference for prediction in after})
    print(
        msg(
            "\nAfter {step:,} steps and {seconds}, on {num_after:,} questions it was never trained on:\n",
            step=last["step"],
            seconds=duration(seconds),
            num_after=len(after),
        )
    )
    print(f"  {'':<12}{'before':>9}{'after':>9}")
    for key, name in (("eval/exact_match", "accuracy"), ("eval/loss", metric_name("eval/loss"))):
        shown = [f"{e['values'][key]:.1%}" if name == "accuracy" else f"{e['values'][key]:.3f}" for e in (first, last)]
        print(
            f"  {name:<12}{shown[0]:>9}{shown[1]:>9}" + (f"   (chance: {1 / labels:.1%})" if name == "accuracy" else "")
        )
    print()
    stride = max(1, len(after) // _SHOWN)
    for old, new in list(zip(before, after, strict=True))[::stride][:_SHOWN]:
        mark = "✔" if new.text == new.reference else "✖"
        print(f"  {_line(new.prompt, 70)}")
        print(f"    before: {_line(old.text or '', 60)!r}")
        print(f"    after:  {_line(new.text or '', 60)!r} {mark}")


def _line(text: str, limit: int) -> str:
    return cut(one_line(" ".join(text.split())), limit)
