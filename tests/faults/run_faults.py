"""Whoever is killed, whenever, and whatever fails: the queue's promises, on real runs.

    python -m tests.faults.run_faults [--kills 200] [--runs 6] [--steps 60] [--seed N] [--cpu-slots 2]
    python -m tests.faults.run_faults --scenario locked|full|clock|torn|corrupt|readonly|hangup|all

Without --scenario: queues small runs of the starter model and kills, at random moments, the daemon, the warm process,
workers, and commands in the middle of what they do. What a user would do afterwards is done by `finetop resume` and by
queueing something. At the end:

* no run lost: each is done,
* none started twice: no two workers of a run ever wrote to its journal at the same time,
* no metric row lost or doubled: each run has the steps of an undisturbed run, once, with the same values to the bit,
* the weights are those of an undisturbed run, to the bit.

A scenario (tests/faults/scenarios.py) makes one kind of trouble and then looks at the same: the database locked by
another process, the disk full, the clock set by hours, a torn journal, damaged checkpoints, folders that cannot be
written, terminals that hang up. Those that need root, a C compiler or Linux say so and are skipped.

Prints a report; exit code 1 if any of it does not hold.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from engine.base.worker_process import worker_command, worker_environment
from engine.base.workspace import Workspace
from engine.daemon import daemon_client
from engine.runs import journal
from engine.runs.run_folder import create_run
from engine.settings.resolve import Layer, Resolved, resolve
from engine.store import queries, queue
from engine.store.connect import reader, writer
from engine.store.journal_import import import_journal
from engine.store.new_run import from_config
from engine.store.run_records import Run, RunState

ROOT = Path(__file__).resolve().parents[2]
KEYS = ("train/loss", "train/grad_norm", "train/lr", "train/tokens")
"""What the bits of a run decide; times and rates differ from run to run."""
STUCK_SECONDS = 300.0
"""Without any kill, a run that makes no step for so long is lost."""
COMMANDS = (("ls",), ("ls", "--json"), ("history",), ("show", "1"), ("checkpoints",), ("daemon", "status"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu-slots", type=int, default=2)
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between kills, on the average")
    parser.add_argument("--keep", type=Path, help="work here and keep it, to look at afterwards")
    parser.add_argument("--scenario", help="another fault than kills: locked, full, clock, torn, ... or all")
    parser.add_argument("--hangups", type=int, default=50, help="with hangup: terminals that are closed")
    options = parser.parse_args()
    if options.scenario:
        return play_all(options, parser)
    with contextlib.ExitStack() as stack:
        root = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="finetop-faults-")))
        trial = Trial(Workspace(root / "disturbed"), options)
        began = time.monotonic()
        try:
            trial.disturb()
            trial.settle()
        finally:
            trial.close()
        problems = trial.problems(undisturbed(Workspace(root / "undisturbed"), options))
        report(trial, problems, time.monotonic() - began)
    return 1 if problems else 0


def play_all(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from tests.faults.scenarios import SCENARIOS, play

    names = list(SCENARIOS) if options.scenario == "all" else options.scenario.split(",")
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"no such scenario: {unknown[0]}; there are {', '.join(SCENARIOS)} and all")
    with contextlib.ExitStack() as stack:
        root = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="finetop-faults-")))
        options.runs = min(options.runs, 3)
        expected = undisturbed(Workspace(root / "undisturbed"), options)
        return 1 if any([play(name, root / name, options, expected) for name in names]) else 0


def settings(number: int, options: argparse.Namespace, **changes: Any) -> Resolved:
    """Runs that differ in their seed, so that no two could be taken for one another."""
    number %= options.runs
    values = {
        "model.name": "starter",
        "data.files": [str(ROOT / "presets" / "samples" / "intents.csv")],
        "method.kind": "lora",
        "lora.r": 4,
        "lora.dropout": 0.1,
        "optim.learning_rate": 1e-3,
        "train.max_steps": options.steps,
        "train.batch_size": 4,
        "train.seed": number,
        "train.threads": 1,
        "eval.every": 1000,
        "save.every": 5,
        "run.name": f"faults-{number}",
    }
    return resolve([Layer("bench", values | changes)])


def queue_run(workspace: Workspace, resolved: Resolved) -> int:
    """Queue a run as `finetop add` does, and start no daemon; its id."""
    run_id, folder = create_run(workspace, resolved)
    with contextlib.closing(writer(workspace.database)) as conn:
        return queue.add(conn, from_config(json.loads((folder / "config.json").read_text())), run_id)


class Trial:
    """One workspace, its victims, and what was done to them."""

    def __init__(self, workspace: Workspace, options: argparse.Namespace, begin: bool = True) -> None:
        self.workspace, self.options = workspace, options
        self.dice = random.Random(options.seed)
        self.killed: Counter[str] = Counter()
        self.overlaps: list[str] = []
        self.ids: list[int] = []
        with contextlib.closing(writer(workspace.database)) as conn:
            queue.set_meta(conn, "cpu_slots", str(options.cpu_slots))
        if begin:
            self.queue_all()
            daemon_client.ensure(workspace)

    def queue_all(self) -> None:
        """One more round of the same runs, as long as there are kills left."""
        self.ids += [queue_run(self.workspace, settings(number, self.options)) for number in range(self.options.runs)]

    # -- doing ---------------------------------------------------------------------------------------------------

    def disturb(self) -> None:
        """So many kills, at random moments."""
        while sum(self.killed.values()) < self.options.kills:
            if self.all_done():
                self.queue_all()
            time.sleep(self.dice.expovariate(1 / self.options.pause))
            victim = self.dice.choices(("worker", "daemon", "warm", "command"), (6, 2, 1, 2))[0]
            if getattr(self, f"kill_{victim}")():
                self.killed[victim] += 1
            self.check_overlap()
            self.as_a_user_would()

    def settle(self) -> None:
        """In peace: everything must come to its end."""
        seen, since = None, time.monotonic()
        while not self.all_done():
            self.as_a_user_would()
            self.check_overlap()
            time.sleep(0.3)
            now = [(run.state, run.step) for run in self.runs()]
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > STUCK_SECONDS:
                return

    def as_a_user_would(self) -> None:
        """Queue again what was killed, and look that there is a daemon. The queue itself retries nothing here."""
        daemon_client.ensure(self.workspace)
        for run in self.runs():
            if run.state in (RunState.FAILED, RunState.INTERRUPTED, RunState.STOPPED) and run.pid is None:
                with contextlib.closing(writer(self.workspace.database)) as conn:
                    queue.resume(conn, run.id)

    def kill_worker(self) -> bool:
        pids = [run.pid for run in self.runs() if run.active and run.pid]
        return bool(pids) and _kill(self.dice.choice(pids))

    def kill_daemon(self) -> bool:
        pid = daemon_client.status(self.workspace).pid
        return pid is not None and _kill(pid)

    def kill_warm(self) -> bool:
        pid = daemon_client.status(self.workspace).pid
        try:
            children = psutil.Process(pid).children() if pid else []
            found = [child.pid for child in children if child.cmdline()[-2:-1] == ["engine.worker.forkserver"]]
        except psutil.Error:
            return False
        return bool(found) and _kill(found[0])

    def kill_command(self) -> bool:
        """Some command, killed somewhere between its start and its end; one that writes as often as one that looks."""
        words = self.dice.choice(COMMANDS)
        if self.dice.random() < 0.5:
            words = (self.dice.choice(("hold", "release", "stop", "resume")), str(self.dice.choice(self.ids)))
        command = [sys.executable, "-P", "-m", "engine.cli.main", *words, "--workspace", str(self.workspace.root)]
        process = subprocess.Popen(
            command, env=worker_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(self.dice.uniform(0.0, 0.6))
        process.kill()
        process.wait()
        with contextlib.closing(writer(self.workspace.database)) as conn:
            for run_id in self.ids:
                queue.release(conn, run_id)
        return True

    # -- looking -------------------------------------------------------------------------------------------------

    def runs(self) -> list[Run]:
        with contextlib.closing(reader(self.workspace.database)) as conn:
            return [queries.run(conn, run_id) for run_id in self.ids]

    def all_done(self) -> bool:
        return all(run.state is RunState.DONE for run in self.runs())

    def check_overlap(self) -> None:
        """Whether two processes train the same run: both would have its log as their stdout."""
        holders: Counter[str] = Counter()
        for pid in psutil.pids():
            with contextlib.suppress(OSError):
                if os.getsid(pid) == pid:
                    holders[os.readlink(f"/proc/{pid}/fd/1")] += 1
        for run_id in self.ids:
            log = str(self.workspace.runs / str(run_id) / "log.txt")
            if holders[log] > 1:
                self.overlaps.append(f"run {run_id} had {holders[log]} workers at a time")

    def problems(self, expected: list[dict[str, Any]]) -> list[str]:
        found = list(self.overlaps)
        for run, wanted in zip(self.runs(), itertools.cycle(expected), strict=False):
            if run.state is not RunState.DONE:
                found.append(
                    f"run {run.id} is lost: {run.state}, step {run.step}, {run.reason or run.wait_reason or ''}"
                )
                continue
            folder = self.workspace.runs / str(run.id)
            got = outcome(folder)
            if got["series"] != wanted["series"]:
                found.append(f"run {run.id}: its journal has other numbers than an undisturbed run")
            if got["weights"] != wanted["weights"]:
                found.append(f"run {run.id}: its weights differ from those of an undisturbed run")
            if (rows := self.rows(run.id)) != wanted["series"]:
                found.append(f"run {run.id}: {_difference(rows, wanted['series'])}")
        return found

    def rows(self, run_id: int) -> list[list[str]]:
        """The steps of a run with their values, as the store has them."""
        with contextlib.closing(writer(self.workspace.database)) as conn:
            import_journal(conn, run_id, self.workspace.runs / str(run_id))
            columns = []
            for key in KEYS:
                query = "SELECT step, value FROM metrics WHERE run = ? AND key = ? ORDER BY step"
                columns.append(conn.execute(query, (run_id, key)).fetchall())
        steps = [[step for step, _ in column] for column in columns]
        if any(other != steps[0] for other in steps):
            return [["metrics have different steps"]]
        return [[str(row[0][0]), *(float(value).hex() for _, value in row)] for row in zip(*columns, strict=True)]

    def attempts(self) -> int:
        return sum(run.attempts for run in self.runs())

    def close(self) -> None:
        daemon_client.stop(self.workspace, 30)
        for run in self.runs():
            if run.pid:
                _kill(run.pid)


def outcome(folder: Path) -> dict[str, Any]:
    """What must be the same: every step's values as hex, and the final weights' sha256."""
    series = [
        [str(event["step"]), *(float(event["values"][key]).hex() for key in KEYS)]
        for event in journal.effective(journal.read(folder)[0])
        if event["kind"] == "metric"
    ]
    latest = folder / "checkpoints" / "latest"
    files = sorted(latest.glob("*.safetensors"))
    return {"series": series, "weights": hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()}


def undisturbed(workspace: Workspace, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The same runs, one after the other, each in a worker of its own and left alone."""
    found = []
    for number in range(options.runs):
        _, folder = create_run(workspace, settings(number, options))
        with open(folder / "log.txt", "wb") as log:
            subprocess.run(worker_command(str(folder)), env=worker_environment(), stdout=log, stderr=log, check=True)
        found.append(outcome(folder))
    return found


def report(trial: Trial, problems: list[str], seconds: float) -> None:
    kills = ", ".join(f"{count} {victim}s" for victim, count in trial.killed.most_common())
    print(f"{sum(trial.killed.values())} kills ({kills or 'none'}) in {seconds:.0f} s; seed {trial.options.seed}")
    print(f"{len(trial.ids)} runs of {trial.options.steps} steps, started {trial.attempts()} times in all")
    if problems:
        print(*(f"  ✖ {problem}" for problem in problems), sep="\n")
        return
    print("  ✔ no run lost, none with two workers")
    print("  ✔ every step once in journal and store, with the values of an undisturbed run, to the bit")
    print("  ✔ final weights equal to those of an undisturbed run, to the bit")


def _difference(rows: list[list[str]], wanted: list[list[str]]) -> str:
    missing = {row[0] for row in wanted} - {row[0] for row in rows}
    if missing:
        return f"the store lacks steps {', '.join(sorted(missing, key=int)[:10])}"
    return f"the store has {len(rows)} rows where {len(wanted)} were logged, or other values"


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


if __name__ == "__main__":
    sys.exit(main())
