"""What the screen costs and how quickly it answers, in a real terminal, beside `wandb leet` on the same runs.

    python bench/screen.py               1,000 runs and one of a million points, alternating with leet: about 10 minutes
    python bench/screen.py --quick       60 runs, 60,000 points, short looks: shows that everything runs, and no more
    python bench/screen.py --no-leet     ours alone

Both run in a pty of 120x36 that answers as xterm does (screen_pty.py), on the same finished runs with the same numbers
(screen_runs.py): for finetop a workspace with its store, for leet the run files that wandb's own client writes in mode
offline. A point is one value of one metric at one step; the long run has six metrics.

start       From starting the program to the piece of output that shows a run's name in the list; and to the last byte
            of the first picture, charts included (then it was quiet for half a second). Bytes: until then. The very
            first start of each is not counted.
million     From starting the program to the last byte of the picture of the long run. Ours gets the keys that jump to
            the run as soon as its first row stands; leet is started on the run. Also: the same keys in a screen that
            has long been open, and then the key that opens the run on the whole screen.
keys        From writing one key to the last byte it causes. While runs log, other output may come just then: there it
            is the piece after which the picture shows what the key was for.
idle        Nothing trains, from 5 s after the first picture on. Without a daemon nothing changes but ages; a daemon
            measures the machine once a second, which may show.
live        Two runs, each a process that logs six metrics a step, 1 or 50 steps a second; ours through the real daemon,
            leet's through wandb's client. Age: from just before the value is logged to the piece of output after which
            the picture shows its step or a later one. "GPUs": the same with four GPUs whose readings wander, which
            this machine need not have: a stand-in imports the journals as often as the daemon does, and tells of them.
memory      The kernel's record of resident memory of all its processes (leet: a Python and wandb-core) after all this.
CPU         User and system time of all its processes, as a share of one core.

Clocks inform and do not gate: the exit code is 0, and a row beyond its target says so. `others` is how many cores
something else kept busy during the rows above it: a timing with more than 0.1 there is worth little.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import environments
from screen_beside import Load, fixture, logging_process, stand_in, wait
from screen_pty import COLUMNS, ROWS, Terminal, Use
from screen_runs import LIVE_STEPS, long_one

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

DOWN, UP, PAGE_DOWN, PAGE_UP = "\x1b[B", "\x1b[A", "\x1b[6~", "\x1b[5~"
SETTLED_SECONDS = 5.0
"""From the first picture to idleness: what is loaded after it (ours: the control) is not idling."""
ANSWER_SECONDS = 0.15
"""What comes within this time of a key is its doing: the panes beside the list follow only when the cursor rests."""
POINTS_A_STEP = 6
LEET_SECONDS = 40.0
"""A look at a live leet takes so long at least: it shows news every 15 s."""


@dataclass
class Figure:
    """One row of the report."""

    name: str
    unit: str
    target: float | None = None
    at_95: bool = False
    """Whether the target is meant for the 95th percentile; else for the median."""
    ours: list[float] = field(default_factory=list)
    leet: list[float] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    runs: int
    long_steps: int
    rounds: int
    keys: int
    look_seconds: float
    """Each look at an idle or live screen."""
    leet: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run: few runs, short looks")
    parser.add_argument("--no-leet", dest="leet", action="store_false", help="ours alone")
    parser.add_argument("--runs", type=int, help="in the store (default: 1,000)")
    parser.add_argument("--points", type=int, help="of the long run (default: 1,000,000)")
    parser.add_argument("--rounds", type=int, help="starts of each (default: 5)")
    parser.add_argument("--seconds", type=float, help="of each look at an idle or live screen (default: 30)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    default = (60, 60_000, 2, 10, 5.0) if options.quick else (1000, 1_000_000, 5, 60, 30.0)
    runs, points, rounds, keys, seconds = default
    plan = Plan(
        options.runs or runs,
        -(-(options.points or points) // POINTS_A_STEP),
        options.rounds or rounds,
        keys,
        options.seconds or seconds,
        options.leet,
    )
    with tempfile.TemporaryDirectory(prefix="finetop-screen-") as scratch:
        bench = Bench(plan, Path(scratch))
        bench.measure()
    print(json.dumps(bench.plain(), indent=2) if options.json else bench.report())
    return 0


class Bench:
    def __init__(self, plan: Plan, scratch: Path) -> None:
        self.plan = plan
        self.scratch = scratch
        self.home = scratch / "home"
        self.home.mkdir()
        # Compiled modules are kept, as where programs are installed, whatever this shell says about them.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        self.environ = {"HOME": str(self.home), "PYTHONPYCACHEPREFIX": str(scratch / "compiled")}
        self.sections: list[tuple[str, float | None, list[Figure]]] = []
        self.workspace = scratch / "workspace"
        shutil.copytree(fixture("finetop", sys.executable, plan.runs, plan.long_steps), self.workspace)
        self.wandb = ""
        if plan.leet:
            python = environments.python_of("wandb")
            self.wandb = str(Path(python).with_name("wandb"))
            # Copied: what leet writes beside the runs, and the live runs, do not belong to the fixture.
            shutil.copytree(fixture("wandb", python, plan.runs, plan.long_steps), scratch / "offline", symlinks=True)
            self.offline = scratch / "offline" / "wandb"
            self.long_folder = next(self.offline.glob("offline-run-*-long"))

    # the two programs

    def open_ours(self) -> Terminal:
        command = str(Path(sys.executable).with_name("finetop"))
        return Terminal([command, "--workspace", str(self.workspace)], self.environ)

    def open_leet(self, at: Path | None = None) -> Terminal:
        return Terminal([self.wandb, "leet", str(at or self.offline)], self.environ)

    @property
    def long_id(self) -> int:
        return long_one(self.plan.runs) + 1

    # what is measured

    def measure(self) -> None:
        for what in (self.start, self.million, self.keys, self.idle, self.live, self.storm, self.gpus):
            print(f"{what.__name__} ...", file=sys.stderr, flush=True)
            with self.section(what.__name__) as figures:
                what(figures)

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[Callable[..., Figure]]:
        figures: list[Figure] = []

        def figure(*words: object, **more: object) -> Figure:
            figures.append(Figure(*words, **more))
            return figures[-1]

        load = Load()
        yield figure
        self.sections.append((name, load.others(), figures))

    def start(self, figure: Callable[..., Figure]) -> None:
        first = figure("start to the first row", "s", 0.5)
        whole = figure("start to the whole first picture", "s")
        size = figure("bytes until then", "B", 45_000)
        for opened in (self.open_ours, self.open_leet)[: 1 + bool(self.wandb)]:
            with opened() as screen:  # not counted: modules get compiled, files come into memory
                screen.rests(lambda lines: has_rows(lines) or leet_has_rows(lines))
        for _ in range(self.plan.rounds):
            with self.open_ours() as screen:
                first.ours.append(screen.rests(has_rows) - screen.started)
                whole.ours.append(screen.last_byte - screen.started)
                size.ours.append(screen.written)
            if self.wandb:
                with self.open_leet() as screen:
                    first.leet.append(screen.rests(leet_has_rows) - screen.started)
                    whole.leet.append(screen.last_byte - screen.started)
                    size.leet.append(screen.written)

    def million(self, figure: Callable[..., Figure]) -> None:
        points = f"{self.plan.long_steps * POINTS_A_STEP:,} points"
        opened = figure(f"start to a run of {points}", "s")
        jumped = figure("jump to it in the open screen", "s", 1.0)
        whole = figure("and open it on the whole screen", "s", 1.0)
        for _ in range(self.plan.rounds):
            with self.open_ours() as screen:
                screen.when(has_rows)
                screen.send(f"#{self.long_id}\r")
                opened.ours.append(self._drawn(screen) - screen.started)
            with self.open_ours() as screen:
                screen.rests(has_rows)
                screen.send(f"#{self.long_id}\r")
                begun = time.monotonic()
                jumped.ours.append(self._drawn(screen) - begun)
                screen.send("\r")
                begun = time.monotonic()
                whole.ours.append(self._drawn(screen, 1) - begun)
            if self.wandb:
                with self.open_leet(self.long_folder) as screen:
                    wanted = re.compile(rf"_step\s+{self.plan.long_steps}\b")
                    screen.when(lambda lines, wanted=wanted: wanted.search("\n".join(lines)), 120)
                    opened.leet.append(screen.quiet(1.5) - screen.started)

    def _drawn(self, screen: Terminal, top: int | None = None) -> float:
        """When the picture of the long run was whole: its chart's legend is there, and nothing came any more."""
        title = f" 3 Run {self.long_id} "

        def stands(lines: list[str]) -> bool:
            at = next((index for index, line in enumerate(lines) if title in line), None)
            return at is not None and top in (None, at) and " train " in lines[at + 2]

        screen.rests(stands)
        return screen.last_byte

    def keys(self, figure: Callable[..., Figure]) -> None:
        names = [("cursor move", 20.0), ("page", 60.0), ("tab", 60.0)]
        moves, pages, tabs = (figure(f"key to last byte: {name}", "ms", target, at_95=True) for name, target in names)
        size = figure("bytes of a cursor move", "B", 300)
        with self.open_ours() as screen:
            screen.rests(has_rows)
            for turn in range(self.plan.keys):
                milliseconds, written = press(screen, "k" if turn % 10 == 9 else "j")
                moves.ours.append(milliseconds)
                size.ours.append(written)
            screen.send("g")
            screen.quiet(0.6)
            for turn in range(self.plan.keys):
                pages.ours.append(press(screen, PAGE_UP if turn % 2 else PAGE_DOWN)[0])
                screen.quiet(0.6)  # the other panes follow
            screen.send("g")
            screen.quiet(0.6)
            for _ in range(self.plan.keys):
                tabs.ours.append(press(screen, "]")[0])
                screen.quiet(0.1)
        if self.wandb:
            with self.open_leet() as screen:
                screen.rests(leet_has_rows)
                for turn in range(self.plan.keys):
                    milliseconds, written = press(screen, UP if turn % 10 == 9 else DOWN)
                    moves.leet.append(milliseconds)
                    size.leet.append(written)
                for turn in range(self.plan.keys):
                    pages.leet.append(press(screen, "N" if turn % 2 else "n")[0])
                    screen.quiet(0.2)

    def idle(self, figure: Callable[..., Figure]) -> None:
        rate = figure("idle, no daemon", "B/s", 0)
        share = figure("CPU, idle, no daemon", "%", 0.5)
        beside = figure("idle beside a daemon", "B/s")
        beside_share = figure("CPU, idle beside a daemon", "%", 0.5)
        with self.open_ours() as screen:
            screen.rests(has_rows)
            screen.watch(SETTLED_SECONDS)
            look(screen, self.plan.look_seconds, rate.ours, share.ours)
        with self.daemon(), self.open_ours() as screen:
            screen.when(has_rows)
            screen.watch(SETTLED_SECONDS)
            look(screen, self.plan.look_seconds, beside.ours, beside_share.ours)
        if self.wandb:
            with self.open_leet() as screen:
                screen.rests(leet_has_rows)
                screen.watch(SETTLED_SECONDS)
                look(screen, self.plan.look_seconds, rate.leet, share.leet)

    def live(self, figure: Callable[..., Figure]) -> None:
        rate = figure("two runs, 1 step/s each", "B/s", 1000)
        share = figure("CPU then", "%", 4)
        age = figure("age of a value on the glass then", "s", 1.0, at_95=True)
        self._live(1, rate, share, age, None, None)

    def storm(self, figure: Callable[..., Figure]) -> None:
        rate = figure("two runs, 50 steps/s each", "B/s", 1000)
        share = figure("CPU then", "%", 4)
        age = figure("age of a value on the glass then", "s", 1.0, at_95=True)
        moves = figure("key to paint then: cursor move", "ms", 20, at_95=True)
        tabs = figure("key to paint then: tab", "ms", 60, at_95=True)
        peak = figure("peak memory, all the above done", "MB", 80)
        use = self._live(50, rate, share, age, moves, tabs)
        peak.ours.append(use[0].peak_bytes / 1e6)
        if len(use) > 1:
            peak.leet.append(use[1].peak_bytes / 1e6)

    def _live(
        self, pace: float, rate: Figure, share: Figure, age: Figure, moves: Figure | None, tabs: Figure | None
    ) -> list[Use]:
        uses = []
        with self.live_runs(pace) as (logged, ids), self.daemon(), self.open_ours() as screen:
            screen.when(has_rows)
            if moves is not None:
                screen.send(f"#{self.long_id}\r")  # its memory is part of the peak
                screen.watch(2.0)
                screen.send("\r")
                screen.watch(2.0)
                for key in ("\x1b", "1", "g"):
                    screen.send(key)
                    screen.watch(0.5)

            def step_shown(lines: list[str], run_id: int = ids[0]) -> int:
                return step_in(lines, run_id)

            screen.when(step_shown, 30)
            screen.watch(3.0)
            shown = look(screen, self.plan.look_seconds, rate.ours, share.ours, step_shown)
            age.ours += ages(screen, [entry for entry in logged if entry[0] == ids[0]], shown, step_shown)
            if moves is not None and tabs is not None:
                storm_keys(screen, moves.ours, tabs.ours, self.plan.keys)
            uses.append(screen.use())
        if self.wandb:
            with self.live_wandb(pace) as logged, self.open_leet() as screen:
                screen.watch(3.0)
                screen.send("\x1b[H" + DOWN + " " + UP)  # the newest, with the other one's curves laid over
                screen.when(leet_step, 60)
                shown = look(screen, max(self.plan.look_seconds, LEET_SECONDS), rate.leet, share.leet, leet_step)
                number = 1 if "live1" in screen.text() else 0
                age.leet += ages(screen, [entry for entry in logged if entry[0] == number], shown, leet_step)
            if moves is not None:
                with self.open_leet(self.long_folder) as screen:
                    screen.when(leet_step, 120)
                    screen.watch(5.0)
                    uses.append(screen.use())
        return uses

    def gpus(self, figure: Callable[..., Figure]) -> None:
        rate = figure("two runs, 1 step/s each, and four GPUs", "B/s", 1000)
        share = figure("CPU then", "%", 4)
        with self.live_runs(1) as (_, ids), stand_in(self.workspace, ids), self.open_ours() as screen:
            screen.when(lambda lines: step_in(lines, ids[0]), 30)
            screen.watch(3.0)
            look(screen, self.plan.look_seconds, rate.ours, share.ours)

    # what goes on beside them

    @contextlib.contextmanager
    def daemon(self) -> Iterator[None]:
        from engine.base.workspace import Workspace
        from engine.daemon import daemon_client

        workspace = Workspace(self.workspace)
        pid = daemon_client.start(workspace, "--no-warm")
        Load.also.append(pid)
        try:
            wait(lambda: daemon_client.status(workspace).beat)
            yield
        finally:
            daemon_client.stop(workspace)
            Load.also.remove(pid)

    @contextlib.contextmanager
    def live_runs(self, pace: float) -> Iterator[tuple[list[tuple[int, int, float]], list[int]]]:
        """Two new runs that log; their ids, and a list that grows by what they log."""
        from engine.base.workspace import Workspace
        from engine.settings.resolve import Layer, resolve
        from engine.store import queue, run_lifecycle
        from engine.store.connect import writer
        from engine.store.journal_import import import_journal
        from engine.store.run_records import NewRun

        workspace = Workspace(self.workspace)
        conn = writer(workspace.database)
        config = resolve([Layer("preset quick", {"data.files": ["/data/sql-v3.jsonl"]})]).config
        new = NewRun(name="live-qwen3-8b-sql", settings=config.flat(), model="Qwen/Qwen3-8B", total_steps=LIVE_STEPS)
        ids = queue.add_all(conn, [new, new])
        for run_id in ids:
            (workspace.runs / str(run_id)).mkdir()
            (workspace.runs / str(run_id) / "config.json").write_text(config.to_json(), "utf-8")
        words = [str(self.workspace), str(pace), *map(str, ids)]
        with logging_process(sys.executable, "live-finetop", words, self.home) as logged:
            wait(lambda: logged)
            for run_id in ids:
                run_lifecycle.claim(conn, run_id, ("0",), platform.node())
            yield logged, ids
        for run_id in ids:
            import_journal(conn, run_id, workspace.runs / str(run_id))
        conn.close()

    @contextlib.contextmanager
    def live_wandb(self, pace: float) -> Iterator[list[tuple[int, int, float]]]:
        words = [str(self.offline.parent), str(pace)]
        with logging_process(environments.python_of("wandb"), "live-wandb", words, self.home) as logged:
            wait(lambda: logged)
            yield logged
        for folder in self.offline.glob("offline-run-*-live?"):
            shutil.rmtree(folder)

    # what came of it

    def plain(self) -> dict:
        return {
            "sections": [
                {"name": name, "others_cores": others, "figures": [vars(figure) for figure in figures]}
                for name, others, figures in self.sections
            ]
        }

    def report(self) -> str:
        plan = self.plan
        lines = [
            f"{plan.runs:,} runs in the store, {plan.long_steps * POINTS_A_STEP:,} points in the longest; pty of"
            f" {COLUMNS}x{ROWS}, truecolor; {plan.rounds} starts, {plan.keys} keys of each kind,"
            f" looks of {plan.look_seconds:.0f} s",
            f"Python {platform.python_version()}, "
            + ", ".join(f"{name} {version}" for name, version in versions(sys.executable, "finetop", "textual").items())
            + f"; {os.cpu_count()} cores"
            + (f"; leet of wandb {versions(environments.python_of('wandb'), 'wandb')['wandb']}" if plan.leet else ""),
            "",
            f"{'':42} {'finetop':>18} {'target':>8}   {'leet':>18} {'leet/ours':>10}",
            f"{'':42} {'median':>9}{'95 %':>9} {'':8}   {'median':>9}{'95 %':>9}",
        ]
        for name, others, figures in self.sections:
            load = "" if others is None else f"   (others: {others:.2f} cores)"
            lines.append(f"{name}{load}")
            lines += [self._row(figure) for figure in figures]
        return "\n".join(lines)

    def _row(self, figure: Figure) -> str:
        def pair(values: list[float]) -> str:
            if not values:
                return f"{'':18}"
            several = len(values) > 5
            return f"{shown(statistics.median(values)):>9}{shown(at_95(values)) if several else '':>9}"

        missed, target, ratio = "", "", ""
        if figure.target is not None:
            target = f"<= {shown(figure.target)}"
            worst = figure.ours and (at_95 if figure.at_95 else statistics.median)(figure.ours)
            missed = "  MISSED" if figure.ours and worst > figure.target else ""
        if figure.ours and figure.leet and statistics.median(figure.ours):
            ratio = f"{statistics.median(figure.leet) / statistics.median(figure.ours):.1f}x"
        label = f"  {figure.name} ({figure.unit})"
        return f"{label:42} {pair(figure.ours)} {target:>8}   {pair(figure.leet)} {ratio:>10}{missed}".rstrip()


# one key, one look


def press(screen: Terminal, key: str) -> tuple[float, int]:
    """Milliseconds to the last byte that the key causes, and how many bytes it causes."""
    before, begun = screen.written, time.monotonic()
    screen.send(key)
    screen.watch(ANSWER_SECONDS)
    if screen.written == before:
        raise RuntimeError(f"key {key!r} does nothing:\n{screen.text()}")
    return (screen.last_byte - begun) * 1e3, screen.written - before


def storm_keys(screen: Terminal, moves: list[float], tabs: list[float], times: int) -> None:
    """The same where other output comes in between: until the picture shows what the key is for."""
    for turn in range(times):
        before = cursor_of(screen.lines())
        begun = time.monotonic()
        screen.send("k" if turn % 2 else "j")
        screen.watch(ANSWER_SECONDS)
        at = screen.when(lambda lines, before=before: cursor_of(lines) != before, 5)
        moves.append((at - begun) * 1e3)
        screen.watch(0.05 + turn % 7 * 0.05)  # not in step with the pictures
    screen.send("g")
    screen.watch(1.0)
    for turn in range(times):
        wanted = f"‹{('LR', 'Loss')[turn % 2]}›"
        legend = ("learning rate", "train ")[turn % 2]
        begun = time.monotonic()
        screen.send("[[" if turn % 2 else "]]")
        screen.watch(ANSWER_SECONDS)
        at = screen.when(lambda lines, wanted=wanted, legend=legend: tab_shown(lines, wanted, legend), 5)
        tabs.append((at - begun) * 1e3)
        screen.watch(0.05 + turn % 7 * 0.05)


def tab_shown(lines: list[str], tab: str, legend: str) -> bool:
    """The tab is the chosen one, and the chart below it is its own."""
    place = next((index for index, line in enumerate(lines) if tab in line), None)
    return place is not None and legend in lines[place + 1]


def look(
    screen: Terminal,
    seconds: float,
    rate: list[float],
    share: list[float],
    step_shown: Callable[[list[str]], int] | None = None,
) -> list[tuple[float, int]]:
    """Bytes a second and share of a core while nobody presses a key. Also when which step was first to be seen."""
    screen.lines()
    written, used, begun = screen.written, screen.use(), time.monotonic()
    shown = [(begun, 0)]
    while (left := begun + seconds - time.monotonic()) > 0:
        if screen.read(left) and step_shown is not None:
            _note(screen, shown, step_shown)
    took = time.monotonic() - begun
    rate.append((screen.written - written) / took)
    share.append((screen.use().cpu_seconds - used.cpu_seconds) / took * 100)
    return shown


def _note(screen: Terminal, shown: list[tuple[float, int]], step_shown: Callable[[list[str]], int]) -> None:
    step = step_shown(screen.lines())
    if step > shown[-1][1]:
        shown.append((screen.last_byte, step))


def ages(
    screen: Terminal,
    logged: list[tuple[int, int, float]],
    shown: list[tuple[float, int]],
    step_shown: Callable[[list[str]], int],
) -> list[float]:
    """How long each step that was logged during the look took to be seen; waits for the last of them."""
    begun, end = shown[0][0], time.monotonic()
    steps = [(step, t) for _, step, t in logged if begun <= t <= end]
    while shown[-1][1] < steps[-1][0] and time.monotonic() < end + LEET_SECONDS:
        if screen.read(1.0):
            _note(screen, shown, step_shown)
    found, at = [], 0
    for step, t in steps:
        while at < len(shown) and shown[at][1] < step:
            at += 1
        found.append((shown[at][0] if at < len(shown) else time.monotonic()) - t)
    return found


# reading the picture

_ROW = re.compile(r"^[┃│].(?:.)[●○‖✔✖■!~?◌◐] *(\d+) (\S+)")
_STEP = re.compile(r"run +\d+% +([\d,]*\d)\s+\d")


def row_of(line: str) -> int | None:
    """The id of the run whose row this line is."""
    found = _ROW.match(line)
    return int(found[1]) if found else None


def has_rows(lines: list[str]) -> bool:
    return any(row_of(line) for line in lines)


def leet_has_rows(lines: list[str]) -> bool:
    return any("offline-run-" in line for line in lines)


def step_in(lines: list[str], run_id: int) -> int:
    """The step that a running run's row shows; 0 where it shows none."""
    for line in lines:
        if row_of(line) == run_id and (found := _STEP.search(line)):
            return int(re.sub(r"\D", "", found[1]))
    return 0


def leet_step(lines: list[str]) -> int:
    found = re.search(r"│ _step\s+(\d+)", "\n".join(lines)) or re.search(r"^ _step\s+(\d+)", "\n".join(lines), re.M)
    return int(found[1]) if found else 0


def cursor_of(lines: list[str]) -> int | None:
    return next((index for index, line in enumerate(lines) if line[1:2] == "▌"), None)


def versions(python: str, *names: str) -> dict[str, str]:
    return environments.versions_of(python, names)


def at_95(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, -(-len(ordered) * 95 // 100) - 1)]


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
