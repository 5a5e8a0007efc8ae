"""Takes the README's picture of a real session: `python scripts/picture.py`, which writes docs/picture.svg.

The demo's two runs train to their end, then two more start and a third is held; when both have learned for a while, the
screen is opened on them at 120x36 and drawn as SVG. Takes two minutes on two quiet cores. `--workspace DIR` takes the
picture of runs that there are instead, at once and changing nothing.
"""

import argparse
import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

from engine.base.workspace import Workspace
from engine.cli.main import main as command_line
from engine.control import Control
from engine.settings.presets import SAMPLES, find_preset
from engine.settings.resolve import Layer, resolve
from engine.store import connect, queries
from engine.store.run_records import Run
from tui.app import FinetopApp
from tui.settings import Settings

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "picture.svg"
COLUMNS, ROWS = 120, 36
_PATIENCE_SECONDS = 1800
_MORE = (
    ("intents-rank-16", {"data.files": [str(SAMPLES / "intents.csv")], "lora.r": 16}),
    ("意图-rank-4", {"data.files": [str(SAMPLES / "intents.csv")], "lora.r": 4}),
    ("questions-lora", {"data.files": [str(SAMPLES / "qa.jsonl")], "eval.metrics": []}),
)
"""Name and settings of what is queued after the demo's runs; the last one is held."""
_LEARNED = 0.6
"""Share of the steps after which the picture is taken."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, help="take the picture of what is there")
    options = parser.parse_args()
    if options.workspace:
        return take(options.workspace)
    return command_line(["demo"], session)


def session(root: Path) -> int:
    """What the demo opens in place of the screen."""
    workspace = Workspace(root)
    with Control(workspace) as control:
        more = []
        for name, changes in _MORE:
            settings = find_preset("demo").settings() | changes | {"run.name": name, "train.threads": 1}
            more.append(control.add(resolve([Layer("preset demo", settings)]), held=name == _MORE[-1][0]))
        running = more[:-1]
        wait(workspace, lambda runs: all(runs[one].total_steps and learned(runs[one]) for one in running))
        code = take(root, more[0])
        for one in more:
            control.kill(one)
        wait(workspace, lambda runs: all(runs[one].ended for one in more))
    return code


def learned(run: Run) -> bool:
    return run.ended or run.step >= _LEARNED * (run.total_steps or 0)


def wait(workspace: Workspace, condition: Callable[[dict[int, Run]], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with connect.reader(workspace.database) as conn:
        while not condition({run.id: run for run in queries.list_runs(conn)}):
            if time.monotonic() > deadline:
                raise SystemExit("the runs do not get on")
            time.sleep(0.1)


def take(root: Path, run_id: int | None = None) -> int:
    """Open the screen without a terminal, the cursor on a run, and draw it."""
    app = FinetopApp(Workspace(root), Settings(theme="dark"), readonly=run_id is None)

    async def play() -> str:
        async with app.run_test(size=(COLUMNS, ROWS)) as pilot:
            await pilot.pause(2.0)
            if run_id is not None:
                await pilot.press("#", *str(run_id), "enter")
            await pilot.press("3", "l", "1")  # a loss that falls from 7 to 0.01 is read on a logarithmic scale
            await pilot.pause(2.0)  # the chart follows the cursor once it rests
            return app.export_screenshot(simplify=True)

    PICTURE.write_text(portable(asyncio.run(play())), "utf-8")
    print(f"{PICTURE} ({PICTURE.stat().st_size / 1000:.0f} kB)")
    return 0


def portable(svg: str) -> str:
    """Without fonts from the net, which a page that shows the picture does not load, and with names that stay the same.

    Every piece of text has its length written beside it, so that any monospaced font will do.
    """
    svg = re.sub(r"\s*@font-face \{.*?\}\n", "\n", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", "'Fira Code', 'DejaVu Sans Mono', Menlo, Consolas, monospace")
    svg = re.sub(r"\s*font-variant-east-asian: full-width;", "", svg)  # would widen Latin letters in some fonts
    return re.sub(r"terminal-\d+", "t", svg)


if __name__ == "__main__":
    raise SystemExit(main())
