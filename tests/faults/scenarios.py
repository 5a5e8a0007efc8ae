"""The faults of `tests/faults/run_faults.py --scenario`, each on real runs with a real cause.

A scenario gets a `Stage`, makes its trouble, sees to it that the runs come to their end, and returns what did not hold.
What holds after each of them, weights to the bit among it, is looked at by the stage.
"""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from engine.base.worker_process import worker_alive, worker_environment
from engine.base.workspace import Workspace
from engine.daemon import daemon_client
from engine.runs import journal
from engine.store import queries, queue
from engine.store.connect import reader, writer
from engine.store.run_records import Run, RunState
from tests.faults.run_faults import ROOT, Trial, queue_run, settings

PATIENCE_SECONDS = 300.0
HOURS = 3 * 3600
LOCK_SECONDS = 10.0
_MIB = 1 << 20

_DAEMON = """
import json, logging, sys
from pathlib import Path
from engine.daemon.limits import Limits
from engine.daemon.main_loop import Options, serve
from engine.base.workspace import Workspace
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
sys.exit(serve(Workspace(Path(sys.argv[1])), Options(limits=Limits(**json.loads(sys.argv[2])))))
"""


class Skip(Exception):
    """Why a scenario cannot be played here."""


class Stage(Trial):
    """A workspace with a daemon of our own making, and the commands of a user."""

    def __init__(self, root: Path, options: Any, environment: dict[str, str] | None = None, **limits: Any) -> None:
        self.environment = worker_environment() | (environment or {})
        self.limits = {"disk_reserve_bytes": 0} | limits
        self.log = root.parent / f"{root.name}-daemon.txt"
        """Outside the workspace, whose disk may be full."""
        self._problems: list[str] = []
        self.allowed: set[int] = set()
        """Runs that need not be done."""
        super().__init__(Workspace(root), options, begin=False)

    # -- doing ---------------------------------------------------------------------------------------------------

    def add(self, **changes: Any) -> int:
        self.ids.append(queue_run(self.workspace, settings(len(self.ids), self.options, **changes)))
        return self.ids[-1]

    def one_at_a_time(self) -> None:
        with contextlib.closing(writer(self.workspace.database)) as conn:
            queue.set_meta(conn, "cpu_slots", "1")

    def start_daemon(self) -> subprocess.Popen:
        words = [str(self.workspace.root), json.dumps(self.limits)]
        with open(self.log, "ab") as log:
            made = subprocess.Popen(
                [sys.executable, "-c", _DAEMON, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )
        self.until(lambda: daemon_client.status(self.workspace).running, "a daemon")
        return made

    def kill_daemon(self) -> bool:
        killed = super().kill_daemon()
        self.until(lambda: not daemon_client.status(self.workspace).running, "the end of the daemon")
        return killed

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "engine.cli.main", *words, "--workspace", str(self.workspace.root)]

    def finetop(self, *words: str) -> tuple[int, str, float]:
        """A command's exit code, all it printed, and how long it took."""
        began = time.monotonic()
        done = subprocess.run(self.command(*words), env=self.environment, capture_output=True, text=True, timeout=120)
        if "Traceback" in done.stdout + done.stderr:
            self.expect(False, f"`finetop {' '.join(words)}` showed a traceback:\n{done.stderr}")
        return done.returncode, done.stdout + done.stderr, time.monotonic() - began

    # -- looking -------------------------------------------------------------------------------------------------

    def folder(self, run_id: int) -> Path:
        return self.workspace.runs / str(run_id)

    def run(self, run_id: int) -> Run:
        with contextlib.closing(reader(self.workspace.database)) as conn:
            return queries.run(conn, run_id)

    def events(self, run_id: int, kind: str) -> list[str]:
        with contextlib.closing(reader(self.workspace.database)) as conn:
            return [event.message for event in queries.events(conn, run_id) if event.kind == kind]

    def logged(self, run_id: int) -> int:
        """The last step in the journal, whatever the store knows."""
        steps = [event["step"] for event in journal.read(self.folder(run_id))[0] if event["kind"] == "metric"]
        return steps[-1] if steps else 0

    def until(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} never came; daemon's log:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)
        return found

    def until_step(self, run_id: int, step: int) -> None:
        self.until(lambda: self.logged(run_id) >= step, f"step {step} of run {run_id}")

    def until_ended(self) -> None:
        self.until(lambda: all(run.ended and run.pid is None for run in self.runs()), "the end of the runs")

    def expect(self, held: Any, what: str) -> None:
        if not held:
            self._problems.append(what)

    def problems(self, expected: list[dict[str, Any]]) -> list[str]:
        self.check_overlap()
        found = self._problems + [
            problem
            for problem in super().problems(expected)
            if not any(problem.startswith(f"run {run_id} is lost") for run_id in self.allowed)
        ]
        with contextlib.closing(sqlite3.connect(self.workspace.database)) as conn:
            if (said := conn.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                found.append(f"runs.db is damaged: {said}")
        return found


# 1. The database is locked.


def locked(stage: Stage) -> str:
    """Another process holds the database's write lock for 10 s, once by BEGIN IMMEDIATE, once by BEGIN EXCLUSIVE.

    With --steps 300 the runs outlast the lock, and `stop` really stops them.
    """
    first, second = stage.add(), stage.add()
    stage.one_at_a_time()
    stage.start_daemon()
    told = []
    for how, run_id in (("IMMEDIATE", first), ("EXCLUSIVE", second)):
        stage.until_step(run_id, 3)
        before = stage.logged(run_id)
        with _held(stage.workspace.database, how):
            ls = stage.finetop("ls")
            stop = subprocess.Popen(
                stage.command("stop", str(run_id)), env=stage.environment, stdout=subprocess.PIPE, text=True
            )
            add = stage.finetop("add", "--data-file", str(ROOT / "presets" / "samples" / "intents.csv"), "--hold")
        stage.expect(ls[0] == 0 and ls[2] < LOCK_SECONDS / 2, f"`ls` did not answer beside {how}: {ls}")
        stage.expect(add[0] == 0, f"`add` lost its run beside {how}: {add}")
        said = stop.communicate(timeout=60)[0]
        finished = stage.run(run_id).state is RunState.DONE  # meanwhile, since training goes on; then `stop` says so
        stage.expect(stop.returncode == 0 or finished, f"`stop` was lost beside {how}: {said}")
        stage.expect(
            stage.logged(run_id) > before or stage.logged(run_id) == stage.options.steps, "training did not go on"
        )
        stage.until(lambda run_id=run_id: stage.run(run_id).ended and not stage.run(run_id).pid, f"end of {run_id}")
        if stage.run(run_id).state is RunState.STOPPED:
            code, said, _ = stage.finetop("resume", str(run_id))
            stage.expect(code == 0, f"resume: {said}")
        stage.until(lambda run_id=run_id: stage.run(run_id).state is RunState.DONE, f"run {run_id} done")
        told.append(f"{how}: ls {ls[2]:.1f} s, add {add[2]:.1f} s")
    return "; ".join(told)


@contextlib.contextmanager
def _held(database: Path, how: str) -> Iterator[None]:
    """From another process, as a backup or a user's sqlite shell would; at least for `LOCK_SECONDS`."""
    code = (
        "import sqlite3, sys, time\n"
        f"conn = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)\nconn.execute('BEGIN {how}')\n"
        f"print('held', flush=True)\ntime.sleep({LOCK_SECONDS})\nconn.execute('ROLLBACK')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(database)], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    yield
    process.wait()


# 2. The disk is full.


def full(stage: Stage) -> str:
    """The workspace lies on a disk of 48 MiB, filled to its last byte in the middle of a run, twice."""
    stage.limits["disk_reserve_bytes"] = 4 * _MIB
    stage.one_at_a_time()
    run_id, waiting = stage.add(), stage.add()
    stage.start_daemon()
    told = []
    for step in (4, 12):
        stage.until_step(run_id, step)
        filler = stage.workspace.root / "filler"
        _fill(filler)
        stage.until(lambda: _still(stage, run_id), "a pause of the run")
        paused = stage.logged(run_id)
        code, said, _ = stage.finetop("add", "--data-file", str(ROOT / "presets" / "samples" / "intents.csv"), "--hold")
        stage.expect(code != 0 and "space" in said.lower(), f"`add` on a full disk said: {said}")
        code, said, _ = stage.finetop("ls")
        stage.expect(code == 0, f"`ls` on a full disk said: {said}")
        stage.expect(stage.run(waiting).state is RunState.QUEUED, "a run was started on a full disk")
        stage.expect(daemon_client.status(stage.workspace).running, "the daemon has left")
        filler.unlink()
        stage.until(lambda paused=paused: stage.logged(run_id) > paused, "the run to go on")
        told.append(f"paused at step {paused}")
    stage.until_ended()
    for one in stage.ids:
        stage.expect(stage.run(one).attempts == 1, f"run {one} was started {stage.run(one).attempts} times")
    return ", ".join(told)


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), open(path, "ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _still(stage: Stage, run_id: int) -> bool:
    """Whether the run makes no more steps; the disk is kept full meanwhile."""
    before = stage.logged(run_id)
    for _ in range(30):
        _fill(stage.workspace.root / "filler")
        time.sleep(0.1)
    return stage.logged(run_id) == before < stage.options.steps


@contextlib.contextmanager
def small_disk(root: Path) -> Iterator[None]:
    root.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", "size=48m,mode=0700", "tmpfs", str(root))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(root)], check=False)


def _mount(*words: str) -> None:
    if os.geteuid() != 0:
        raise Skip("mounting needs root")
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        raise Skip(f"this machine does not let us mount: {done.stderr.strip()}")


# 3. The clock is set.


def clock(stage: Stage) -> str:
    """By three hours, forward and back, during runs, and once while no daemon is there."""
    file = Path(stage.environment["FAKE_CLOCK"])
    first, second = stage.add(), stage.add()
    daemon = stage.start_daemon()
    for step, offset in ((5, HOURS), (12, -HOURS)):
        stage.until_step(first, step)
        file.write_text(str(offset))
        stage.until_step(first, step + 3)
        stage.until(lambda: "the clock was set by" in stage.log.read_text(), "the daemon to notice")
        _no_wild_times(stage, first)
    pid = stage.run(first).pid
    stage.kill_daemon()
    daemon.wait()
    file.write_text("0")
    stage.start_daemon()
    stage.until(lambda: stage.log.read_text().count("the clock was set by") == 3, "the next daemon to notice")
    stage.expect(stage.run(first).pid in (pid, None), "the worker was not found again")
    file.write_text(str(-HOURS))
    _no_wild_times(stage, first, second)
    stage.until_ended()
    _no_wild_times(stage, first, second)
    for run_id in stage.ids:
        run = stage.run(run_id)
        stage.expect(run.attempts == 1, f"run {run_id} was started {run.attempts} times")
        for kind in ("overdue", "hung", "unclaimed"):
            stage.expect(not stage.events(run_id, kind), f"run {run_id} was taken for {kind}")
    return f"noticed {stage.log.read_text().count('the clock was set by')} times"


def _no_wild_times(stage: Stage, *runs: int) -> None:
    time.sleep(1.5)  # a second, in which the daemon notices and writes about itself
    for words in (("ls",), ("daemon", "status"), *(("show", str(run_id)) for run_id in runs)):
        said = stage.finetop(*words)[1]
        wild = re.findall(r"-\d+(?:\.\d+)? (?:s|min|h)\b|\b[1-9]\d* ?h\b", said)
        stage.expect(not wild, f"`finetop {' '.join(words)}` tells of {', '.join(wild)}:\n{said}")


def compiled_clock(folder: Path) -> dict[str, str]:
    """The environment in which the clock can be set by writing seconds into `$FAKE_CLOCK`."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler or not sys.platform.startswith("linux"):
        raise Skip("no C compiler, or not Linux")
    folder.mkdir(parents=True, exist_ok=True)
    library, file = folder / "clock.so", folder / "clock"
    source = str(Path(__file__).with_name("clock.c"))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), source], check=True)
    file.write_text("0")
    return {"LD_PRELOAD": str(library), "FAKE_CLOCK": str(file)}


# 4. A torn journal.


def torn(stage: Stage) -> str:
    """A power cut: worker and daemon gone, the journal's last line cut within a character, or ending in NUL bytes."""
    ends = ('{"t": 1.0, "kind": "event", "message": "天气'.encode()[:-1], b'{"t": 1.0, "kind": "metr' + bytes(3000))
    run_id = stage.add()
    for step, end in zip((6, 12), ends, strict=True):
        daemon = stage.start_daemon()
        stage.until_step(run_id, step)
        daemon.kill()
        daemon.wait()
        os.kill(stage.until(lambda: stage.run(run_id).pid, "the pid of the worker"), signal.SIGKILL)
        path = stage.folder(run_id) / journal.NAME
        stage.until(lambda: not worker_alive(stage.folder(run_id)), "the end of the worker")
        with open(path, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.truncate(size - 20)  # the tail had not reached the disk
            file.seek(size - 20)
            file.write(end)
        daemon = stage.start_daemon()
        stage.until(lambda: stage.run(run_id).state is RunState.INTERRUPTED, "the run to be interrupted")
        code, said, _ = stage.finetop("resume", "--interrupted")
        stage.expect(code == 0, f"resume: {said}")
        stage.until(lambda step=step: stage.logged(run_id) > step, "the run to go on")
        daemon.kill()
        daemon.wait()
    stage.start_daemon()
    stage.until_ended()
    return f"started {stage.run(run_id).attempts} times"


# 5. A damaged checkpoint.


def corrupt(stage: Stage) -> str:
    """The newest checkpoint has a flipped bit, is cut short, or lacks its manifest: the one before it is taken."""
    run_id = stage.add()
    stage.start_daemon()
    told = []
    for number, (name, damage) in enumerate(_DAMAGES.items(), 1):
        stage.until(lambda number=number: _steps(stage, run_id)[-1:] >= [8 * number], "another checkpoint")
        os.kill(stage.until(lambda: stage.run(run_id).pid, "the pid of the worker"), signal.SIGKILL)
        stage.until(lambda: stage.run(run_id).state is RunState.FAILED and not stage.run(run_id).pid, "its end")
        *_, before, newest = _steps(stage, run_id)
        damage(stage.folder(run_id) / "checkpoints" / f"step-{newest:08d}")
        code, said, _ = stage.finetop("resume", str(run_id))
        stage.expect(code == 0, f"resume: {said}")
        stage.until(lambda number=number: len(stage.events(run_id, "checkpoint-damaged")) >= number, "an event of it")
        message = stage.events(run_id, "checkpoint-damaged")[-1]
        stage.expect(f"step-{newest:08d}" in message, f"{name}: the event says {message}")
        stage.until(lambda: stage.run(run_id).state is RunState.RUNNING or stage.run(run_id).ended, "the run to go on")
        last = [e["from_step"] for e in journal.read(stage.folder(run_id))[0] if e["kind"] == "resume"][-1]
        stage.expect(last == before, f"{name}: went on from step {last}, the newest good one was {before}")
        shown = stage.finetop("show", str(run_id))[1]
        stage.expect("skipped: " in shown, f"{name}: `show` does not say so:\n{shown}")
        told.append(f"{name}: step {before} instead of {newest}")
    stage.until_ended()
    return "; ".join(told)


def _steps(stage: Stage, run_id: int) -> list[int]:
    names = [path.name for path in (stage.folder(run_id) / "checkpoints").glob("step-*")]
    return sorted(int(name.removeprefix("step-")) for name in names)


def _flip(path: Path, place: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 4
    path.write_bytes(data)


def _flip_weights(checkpoint: Path) -> None:
    _flip(next(checkpoint.glob("*.safetensors")))


def _flip_manifest(checkpoint: Path) -> None:
    _flip(checkpoint / "manifest.json", 0.3)


def _cut_state(checkpoint: Path) -> None:
    path = checkpoint / "training_state.pt"
    os.truncate(path, path.stat().st_size // 2)


def _lose_manifest(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()


_DAMAGES = {
    "a flipped bit in the weights": _flip_weights,
    "a state cut short": _cut_state,
    "a flipped bit in the manifest": _flip_manifest,
    "no manifest": _lose_manifest,
}


# 6. Folders that cannot be written.


def readonly(stage: Stage) -> str:
    """A run's folder is mounted read-only before it starts; another's checkpoints while it trains, then .finetop."""
    first, second, third = stage.add(), stage.add(), stage.add()
    told = []
    with _read_only(stage.folder(first)):
        daemon = stage.start_daemon()
        run = stage.until(lambda: stage.run(first).ended and not stage.run(first).pid and stage.run(first), "its end")
        stage.expect(run.state is RunState.FAILED and "ead-only" in (run.reason or ""), f"run {first}: {run.reason}")
        stage.until(lambda: _steps(stage, second), "a checkpoint of the next run")
        with _read_only(stage.folder(second) / "checkpoints"):
            run = stage.until(
                lambda: stage.run(second).ended and not stage.run(second).pid and stage.run(second), "end"
            )
            said = stage.finetop("show", str(second))[1]
            stage.expect(
                run.state is RunState.FAILED and "cannot be written" in (run.reason or ""),
                f"run {second}: {run.state}, {run.reason}\n{said}",
            )
            told.append(run.reason or "")
        with _read_only(stage.workspace.private):
            stage.until_step(third, 3)
            stage.expect(daemon.poll() is None, "the daemon has left")
            stage.kill_daemon()
            code, said, _ = stage.finetop("daemon", "start")
            stage.expect(code == 1 and "annot be" in said, f"`daemon start` said: {said}")
            code, said, _ = stage.finetop("resume", str(second))
            stage.expect(f"run {second}" in said and "annot be" in said, f"`resume` without a daemon said: {said}")
            told.append(said.strip().splitlines()[0])
    code, said, _ = stage.finetop("resume", str(first))
    stage.expect(code == 0, f"resume: {said}")
    stage.start_daemon()
    stage.until_ended()
    return " | ".join(told)


@contextlib.contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,ro,bind", str(folder))
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


# 7. The terminal hangs up.


def hangup(stage: Stage) -> str:
    """The pseudo-terminal of the screen, of `logs -f` and of `train` is closed, so many times in turn."""
    first, second = stage.add(), stage.add()
    daemon = stage.start_daemon()
    by_hand: list[int] = []
    screen = [sys.executable, "-P", "-m", "tui", "--workspace", str(stage.workspace.root)]
    csv = str(ROOT / "presets" / "samples" / "intents.csv")
    for number in range(stage.options.hangups):
        kinds = {"screen": screen, "logs": stage.command("logs", str(first), "-f")}
        kind = ("screen", "logs")[number % 2]
        words = kinds[kind]
        if number % 25 == 24:
            kind, words = (
                "train",
                stage.command("train", "--data-file", csv, "--max-steps", "5", "--set", "train.threads=1"),
            )
        pids = _hang_up(stage, words, b"model:" if kind == "train" else b"", by_hand if kind == "train" else None)
        stage.until(lambda pids=pids: not _living(pids), f"the end of a closed {kind}", 20)
        stage.expect(daemon.poll() is None, f"the daemon left with the {kind}")
        if all(run.ended for run in stage.runs()):
            stage.add()
    stage.until_ended()
    stage.until(lambda: all(stage.run(run_id).ended for run_id in by_hand), "the end of what was started by hand")
    for run_id in by_hand:
        stage.expect(stage.run(run_id).state is RunState.DONE, f"run {run_id}, by hand: {stage.run(run_id).reason}")
        stage.expect(stage.logged(run_id) == 5, f"run {run_id}, by hand, has {stage.logged(run_id)} steps")
    for run_id in (first, second):
        stage.expect(stage.run(run_id).attempts == 1, f"run {run_id} was started {stage.run(run_id).attempts} times")
    return f"{stage.options.hangups} terminals closed, {len(by_hand)} of `train`"


def _hang_up(stage: Stage, words: list[str], wait_for: bytes, by_hand: list[int] | None) -> list[int]:
    """Start a command in a terminal of its own, wait until it has drawn, close the terminal. The pids it had."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(words[0], words, stage.environment | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "36"})
    seen, quiet, deadline = b"", 0, time.monotonic() + 60
    while time.monotonic() < deadline and not (wait_for in seen and len(seen) > 0 and quiet >= 2):
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:
                break
            quiet = 0
        else:
            quiet += bool(seen)
        if wait_for and wait_for in seen:
            break
    members = [pid]
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(pid).children(recursive=True)
        members += [one.pid for one in family if os.getsid(one.pid) == pid]
    if by_hand is not None and (match := re.search(rb"run (\d+): ", seen)):
        by_hand.append(int(match[1]))
    os.close(terminal)
    with contextlib.suppress(ChildProcessError):
        deadline = time.monotonic() + 20
        while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
    return members


def _living(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


SCENARIOS: dict[str, Callable[[Stage], str]] = {
    "locked": locked,
    "full": full,
    "clock": clock,
    "torn": torn,
    "corrupt": corrupt,
    "readonly": readonly,
    "hangup": hangup,
}


def play(name: str, root: Path, options: Any, expected: list[dict[str, Any]]) -> list[str]:
    """Play one scenario in `root`; what did not hold. Prints how it went."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        try:
            environment = compiled_clock(root / "clock") if name == "clock" else {}
            workspace = root / "workspace"
            if name == "full":
                stack.enter_context(small_disk(workspace))
            stage = Stage(workspace, options, environment)
            stack.callback(stage.close)
            try:
                told, problems = SCENARIOS[name](stage), []
            except (TimeoutError, subprocess.TimeoutExpired) as late:
                told, problems = "", [str(late)]
            problems += stage.problems(expected)
        except Skip as reason:
            print(f"{name}: skipped, {reason}")
            return []
    sign = "✖" if problems else "✔"
    print(f"{sign} {name}: {told} ({time.monotonic() - began:.0f} s)", *(f"    ✖ {one}" for one in problems), sep="\n")
    return problems
