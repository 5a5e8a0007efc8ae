"""Runs as a user has them: a worker on a run's folder, or a workspace with its daemon and finetop's own commands."""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.worker_process import worker_command
from engine.base.workspace import Workspace
from engine.daemon import daemon_client
from engine.runs import journal
from engine.runs.run_folder import create_run
from engine.settings.resolve import Layer, resolve
from engine.store import queries
from engine.store.connect import reader
from engine.store.run_records import Run
from gpu.kit import Kit

PATIENCE_SECONDS = 300.0
BASE = {
    "data.val_fraction": 0.0,
    "data.max_length": 2048,
    "method.kind": "lora",
    "lora.dropout": 0.0,
    "optim.schedule": "constant",
    "optim.warmup": 0,
    "optim.weight_decay": 0.0,
    "train.epochs": 1,
    "train.batch_size": 8,
    "train.seed": 0,
}
"""Settings of all runs of the kit; a measurement changes what it is about."""


@dataclass(frozen=True)
class Trained:
    """What a worker has left."""

    folder: Path
    code: int
    events: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == kind]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.of("event") if one["event"] == event]

    def series(self, key: str) -> list[float]:
        """One value for each step, as the run in the end has them: what was done again after a kill counts once."""
        return [one["values"][key] for one in journal.effective(self.events) if one["kind"] == "metric"]

    @property
    def losses(self) -> list[float]:
        return self.series("train/loss")

    @property
    def memory(self) -> dict[str, Any]:
        """What it told of its peak: peak_bytes, reserved_bytes, predicted_bytes."""
        return self.of("memory")[-1] if self.of("memory") else {}

    @property
    def model(self) -> dict[str, Any]:
        return self.of("model")[-1] if self.of("model") else {}

    @property
    def reason(self) -> str:
        return str(self.of("state")[-1].get("reason", "")) if self.of("state") else "it has no journal"

    def tokens_per_second(self, skip: int = 2) -> float:
        """Median over the steps after the first ones, in which kernels are chosen and memory is taken."""
        return statistics.median(self.series("train/tokens_per_s")[skip:])


def read(folder: Path, code: int = 0) -> Trained:
    return Trained(folder, code, journal.read(folder)[0])


def settings(model: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """`model`: a folder that `Kit.fixture` has made."""
    return BASE | {"model.name": str(model / "model"), "data.files": [str(model / "messages.jsonl")]} | dict(changes)


def prepare(root: Path, values: Mapping[str, Any]) -> Path:
    """The folder of a new run, nobody at work in it yet."""
    return create_run(Workspace(root), resolve([Layer("gpu kit", dict(values))]))[1]


def train(kit: Kit, root: Path, values: Mapping[str, Any], *, on_cpu: bool = False, must: bool = True) -> Trained:
    """Train to the end in a process of its own. With `must`, RuntimeError with the run's own reason where it fails."""
    return work(kit, prepare(root, values), on_cpu=on_cpu, must=must)


def work(kit: Kit, folder: Path, *, on_cpu: bool = False, must: bool = True) -> Trained:
    """The same for a folder that is there: from its latest checkpoint, or from the beginning."""
    with start(kit, folder, on_cpu=on_cpu) as worker:
        code = worker.wait()
    trained = read(folder, code)
    if code and must:
        raise RuntimeError(f"the worker left with code {code}: {trained.reason}")
    return trained


@contextlib.contextmanager
def start(kit: Kit, folder: Path, *, on_cpu: bool = False) -> Iterator[subprocess.Popen]:
    environment = kit.environment(CUDA_VISIBLE_DEVICES="") if on_cpu else kit.environment()
    with open(folder / "log.txt", "ab") as log:
        worker = subprocess.Popen(worker_command(str(folder)), stdout=log, stderr=log, env=environment)
    try:
        yield worker
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS, pause: float = 0.02) -> Any:
    """What `condition` gives as soon as it gives something; TimeoutError else."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(pause)
    return value


class Session:
    """A workspace with its daemon, spoken to by `finetop` as a user does."""

    def __init__(self, kit: Kit, root: Path, **environment: str) -> None:
        self.kit, self.workspace, self._more = kit, Workspace(root), environment

    @property
    def environment(self) -> dict[str, str]:
        return self.kit.environment(FINETOP_WORKSPACE=str(self.workspace.root), **self._more)

    def finetop(self, *words: Any, must: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tui", *map(str, words)]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        sys.stderr.write(f"$ finetop {' '.join(map(str, words))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}\n")
        if done.returncode and must:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise RuntimeError(f"finetop {words[0]} left with code {done.returncode}: {lines[0] if lines else ''}")
        return done

    def add(self, values: Mapping[str, Any]) -> int:
        """Queue a run by `finetop add`, which starts the daemon where none runs."""
        path = self.workspace.root / "settings.json"
        path.write_text(json.dumps(dict(values)), "utf-8")
        return json.loads(self.finetop("add", "--config", path, "--json").stdout)["run"]

    def run(self, run_id: int) -> Run:
        with contextlib.closing(reader(self.workspace.database)) as conn:
            return queries.run(conn, run_id)

    def usage(self, run_id: int) -> dict[str, Any]:
        """GPU seconds, joules and the like, as the daemon keeps them."""
        from engine.daemon.telemetry import usage_key

        with contextlib.closing(reader(self.workspace.database)) as conn:
            return json.loads(queries.get_meta(conn, usage_key(run_id)) or "{}")

    def started(self, run_id: int) -> str:
        """How its worker came to be: 'Started, forked ...'."""
        with contextlib.closing(reader(self.workspace.database)) as conn:
            return next((e.message for e in queries.events(conn, run_id) if e.kind == "start"), "")

    def stored(self, run_id: int, key: str) -> list[float]:
        """The values of one metric, by step, as the store has them."""
        question = "SELECT value FROM metrics WHERE run = ? AND key = ? ORDER BY step"
        with contextlib.closing(reader(self.workspace.database)) as conn:
            return [value for (value,) in conn.execute(question, (run_id, key))]

    def until_step(self, run_id: int, step: int) -> Run:
        def there() -> Run | None:
            run = self.run(run_id)
            if run.ended and run.step < step:
                raise RuntimeError(f"run {run_id} {run.state}: {run.reason}")
            return run if run.step >= step else None

        return until(there, f"step {step} of run {run_id}")

    def until_ended(self, *ids: int) -> list[Run]:
        def all_ended() -> list[Run] | None:
            runs = [self.run(run_id) for run_id in ids]
            return runs if all(run.ended for run in runs) else None

        return until(all_ended, f"the end of runs {ids}", pause=0.1)

    def trained(self, run_id: int) -> Trained:
        return read(self.workspace.runs / str(run_id))


@contextlib.contextmanager
def session(kit: Kit, name: str, *, warm: bool = True, **environment: str) -> Iterator[Session]:
    """A fresh workspace; its daemon is ended, and its runs with it."""
    with kit.folder(name) as root:
        made = Session(kit, root, **environment)
        if not warm:
            with _environment(made.environment):
                daemon_client.start(made.workspace, "--no-warm")
        try:
            yield made
        finally:
            daemon_client.stop(made.workspace)
            for folder in made.workspace.runs.glob("*"):
                _kill_worker(folder)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _kill_worker(folder: Path) -> None:
    """The one that its last beat names, if it is still at work."""
    from engine.base.worker_process import worker_alive

    if not worker_alive(folder):
        return
    pids = [event["pid"] for event in journal.read(folder)[0] if event.get("pid")]
    with contextlib.suppress(ProcessLookupError, IndexError):
        os.kill(pids[-1], signal.SIGKILL)
