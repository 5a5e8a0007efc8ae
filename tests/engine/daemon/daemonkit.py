"""Real daemons on scripted workers."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from engine.base.workspace import Workspace
from engine.daemon import daemon_client
from engine.settings.resolve import Layer, resolve
from engine.store import queries, queue
from engine.store.connect import reader, writer
from engine.store.run_records import Event, NewRun, Run

REPOSITORY = Path(__file__).resolve().parents[3]
WORKER = Path(__file__).with_name("scripted_worker.py")
PATIENCE = 60.0
"""Seconds that anything may take on a busy machine; on a quiet one nothing here takes two."""

_DAEMON = """
import json, logging, sys
from pathlib import Path
from engine.daemon.limits import Limits
from engine.daemon.main_loop import Options, serve
from engine.base.workspace import Workspace
words = json.loads(sys.argv[2])
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
command = [sys.executable, sys.argv[3]] if sys.argv[3] else None
options = Options(words.pop("idle_exit_seconds", 0.0), command, words.pop("warm", True), Limits(**words))
sys.exit(serve(Workspace(Path(sys.argv[1])), options))
"""
QUICK = {"tick_seconds": 0.05, "disk_reserve_bytes": 0, "retry_first_seconds": 0.1, "schedule_seconds": 0.3}


class Bench:
    """A workspace with a daemon that can be killed and started again."""

    def __init__(self, root: Path, scripted: bool = True, **limits: Any) -> None:
        self.workspace = Workspace(root)
        self.limits = QUICK | limits
        self._worker = str(WORKER) if scripted else ""
        self.daemons: list[subprocess.Popen] = []
        root.mkdir(parents=True, exist_ok=True)

    def start(self, **limits: Any) -> subprocess.Popen:
        """Another daemon; it may find that there is one already."""
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        log = open(self.workspace.root / "daemon-stderr.txt", "ab")  # noqa: SIM115
        words = [str(self.workspace.root), json.dumps(self.limits | limits), self._worker]
        with log:
            made = subprocess.Popen(
                [sys.executable, "-c", _DAEMON, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self.daemons.append(made)
        return made

    def kill_daemon(self) -> None:
        self.daemons[-1].kill()
        self.daemons[-1].wait()

    def add(self, settings: dict[str, Any] | None = None, new: dict[str, Any] | None = None, **script: Any) -> int:
        """Queue a run that does what the script says."""
        config = resolve([Layer("test", {"data.files": ["x.jsonl"], **(settings or {})})]).config

        def prepare(run_id: int) -> None:
            folder = self.workspace.runs / str(run_id)
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(config.to_json())
            (folder / "script.json").write_text(json.dumps(script))

        with self.writing() as conn:
            return queue.add(conn, NewRun(**({"name": "scripted"} | (new or {}))), prepare=prepare)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Any]:
        with contextlib.closing(writer(self.workspace.database)) as conn:
            yield conn

    @contextlib.contextmanager
    def reading(self) -> Iterator[Any]:
        with contextlib.closing(reader(self.workspace.database)) as conn:
            yield conn

    def run(self, run_id: int) -> Run:
        with self.reading() as conn:
            return queries.run(conn, run_id)

    def events(self, run_id: int, kind: str) -> list[Event]:
        with self.reading() as conn:
            return [event for event in queries.events(conn, run_id) if event.kind == kind]

    def error(self, run_id: int) -> str:
        with self.reading() as conn:
            return queries.error(conn, run_id)

    def series(self, run_id: int, key: str = "train/loss") -> list[tuple[int, float]]:
        with self.reading() as conn:
            rows = conn.execute(
                "SELECT step, value FROM metrics WHERE run = ? AND key = ? ORDER BY step", (run_id, key)
            )
            return rows.fetchall()

    def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what or 'the condition'} never came true\n{self.log()}"
            time.sleep(0.01)
        return found

    def until_ended(self, *run_ids: int) -> list[Run]:
        """Until each of them has ended and the daemon has settled it."""
        self.until(lambda: all(self.run(i).ended and self.run(i).pid is None for i in run_ids), f"end of {run_ids}")
        return [self.run(run_id) for run_id in run_ids]

    def until_step(self, run_id: int, step: int) -> Run:
        self.until(lambda: self.run(run_id).step >= step and self.run(run_id).pid, f"step {step} of run {run_id}")
        return self.run(run_id)

    def starts(self, run_id: int) -> list[str]:
        """One line for each worker that came up: its pid, and from where."""
        try:
            return (self.workspace.runs / str(run_id) / "starts").read_text().splitlines()
        except FileNotFoundError:
            return []

    def log(self) -> str:
        try:
            return (self.workspace.root / "daemon-stderr.txt").read_text()
        except FileNotFoundError:
            return ""

    def close(self) -> None:
        """End what is left, by pid: daemons with all they started, and workers whose daemon was killed."""
        doomed = []
        for daemon in self.daemons:
            with contextlib.suppress(psutil.Error):
                doomed += psutil.Process(daemon.pid).children(recursive=True)
            daemon.kill()
            daemon.wait()
        if self.workspace.database.exists():
            with self.reading() as conn:
                pids = [run.pid for run in (*queries.active(conn), *queries.unsettled(conn)) if run.pid]
            for pid in pids:
                with contextlib.suppress(psutil.Error):
                    left = psutil.Process(pid)
                    if str(self.workspace.root) in f"{left.cwd()} {left.cmdline()}":
                        doomed.append(left)
        for process in doomed:
            with contextlib.suppress(psutil.Error):
                process.kill()


def status(bench: Bench) -> dict[str, Any]:
    return dataclasses.asdict(daemon_client.status(bench.workspace))
