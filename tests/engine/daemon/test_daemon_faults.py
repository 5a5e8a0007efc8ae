"""What goes wrong around the daemon, on scripted workers: the clock, the disk, the journal, the folders, the terminal.

The short form of `tests/faults/run_faults.py --scenario`, which does the same to real runs and compares their weights.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from engine.base.worker_process import worker_alive
from engine.daemon import daemon_client
from engine.store import queue
from engine.store.run_records import RunState
from tests.engine.daemon.daemonkit import REPOSITORY, Bench
from tests.engine.mounts import fill_up, fill_with_files, read_only, small_disk

HOURS = 3 * 3600


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path / "workspace")
    yield made
    made.close()


def finetop(bench, *words, seconds=60):
    """A command's exit code and all it printed."""
    command = [sys.executable, "-P", "-m", "engine.cli.main", *words, "--workspace", str(bench.workspace.root)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def steps_of(bench, run_id):
    return [step for step, _ in bench.series(run_id)]


@pytest.fixture
def clock(tmp_path, monkeypatch):
    """Sets the clock of all processes started from now on: seconds away from the true one."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler, and Linux")
    library, file = tmp_path / "clock.so", tmp_path / "clock"
    source = str(REPOSITORY / "tests" / "faults" / "clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), source], check=True)
    file.write_text("0")
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("FAKE_CLOCK", str(file))
    return lambda seconds: file.write_text(str(seconds))


@pytest.mark.parametrize("set_by", [HOURS, -HOURS])
def test_a_clock_that_is_set_takes_no_worker_for_dead_and_no_run_for_longer(bench, clock, set_by):
    run_id = bench.add(steps=400, pause=0.01)
    bench.start(overdue_seconds=0.5, hung_seconds=1.0)
    pid = bench.until_step(run_id, 5).pid
    began = bench.run(run_id).started
    clock(set_by)
    bench.until(lambda: abs(bench.run(run_id).started - began - set_by) < 1, "the run to be moved along")
    bench.until_step(run_id, 50)
    said = "".join(finetop(bench, *words)[1] for words in (("ls",), ("show", str(run_id)), ("daemon", "status")))
    assert not re.findall(r"-\d+ ?(?:s|min|h)\b|\b[1-9]\d* ?h\b", said)
    bench.kill_daemon()
    clock(0)
    bench.start(overdue_seconds=0.5, hung_seconds=1.0)
    bench.until(lambda: abs(bench.run(run_id).started - began) < 1, "the next daemon to notice")
    assert bench.run(run_id).pid in (pid, None)
    (run,) = bench.until_ended(run_id)
    assert (run.state, run.attempts) == (RunState.DONE, 1)
    assert 0 < run.finished - run.started < 120
    assert steps_of(bench, run_id) == list(range(1, 401))
    assert not bench.events(run_id, "overdue") and not bench.events(run_id, "hung")


def test_a_retry_comes_in_its_time_although_the_clock_was_set_back(bench, clock):
    run_id = bench.add(new={"retries": 1}, steps=4, end="raise", once=True)
    bench.start(retry_first_seconds=2.0)
    bench.until(lambda: bench.run(run_id).not_before)
    clock(-HOURS)
    (run,) = bench.until_ended(run_id)
    assert (run.state, run.attempts) == (RunState.DONE, 2)


def test_a_long_promise_is_believed_by_a_daemon_that_comes_after_the_clock_was_set(bench, clock):
    run_id = bench.add(steps=3, at=2, end="silence")  # it promises 60 s while it loads, then a fifth of a second
    bench.start()
    bench.until_step(run_id, 2)
    bench.kill_daemon()
    clock(-HOURS)
    bench.start(overdue_seconds=0.1, hung_seconds=0.5)
    (run,) = bench.until_ended(run_id)
    assert run.reason.startswith("hung"), "and one that broke it is not waited for three hours more"


TORN = {
    "within a character": '{"t": 1.0, "kind": "event", "message": "天气'.encode()[:-1],
    "with NUL bytes after it": b'{"t": 1.0, "kind": "metr' + bytes(3000),
    "NUL bytes for a line": bytes(500),
}


def cut_power(bench: Bench, run_id: int, step: int) -> Path:
    """Daemon and worker are gone at once, somewhere beyond a step; the run's folder."""
    bench.start()
    pid = bench.until_step(run_id, step).pid
    bench.kill_daemon()
    os.kill(pid, signal.SIGKILL)
    folder = bench.workspace.runs / str(run_id)
    bench.until(lambda: not worker_alive(folder))
    return folder


@pytest.mark.parametrize("end", TORN.values(), ids=TORN)
def test_a_journal_torn_by_a_power_cut_is_gone_on_with(bench, end):
    run_id = bench.add(steps=60, pause=0.02, save=10)  # killed at 12: far from a save, whose step must not be torn
    folder = cut_power(bench, run_id, 12)
    with open(folder / "journal.jsonl", "r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 20)
        file.seek(0, os.SEEK_END)
        file.write(end)
    bench.start()
    (run,) = bench.until_ended(run_id)
    assert run.state is RunState.INTERRUPTED
    with bench.writing() as conn:
        assert queue.resume(conn, run_id)
    bench.until(lambda: bench.run(run_id).attempts == 2)
    assert bench.until_ended(run_id)[0].state is RunState.DONE
    assert bench.series(run_id) == [(step, 1 / step) for step in range(1, 61)]


def test_a_journal_cut_and_grown_beyond_where_it_had_been_read_is_read_anew(bench):
    run_id = bench.add(steps=60, pause=0.01, save=1000)
    folder = cut_power(bench, run_id, 30)
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    other = [re.sub(rb'"train/loss":[^,]*', b'"train/loss":7.0000000000000000001', line) for line in lines[-10:]]
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:-10] + other) + b'{"t": 1.0, "kind": "beat"}\n' * 9)
    bench.start()
    (run,) = bench.until_ended(run_id)
    assert bench.series(run_id) == [(s, 7.0 if s > run.step - 10 else 1 / s) for s in range(1, run.step + 1)]


def test_a_run_folder_that_cannot_be_written_fails_its_run_and_no_other(bench):
    run_id, after = bench.add(steps=2), bench.add(steps=2)
    with read_only(bench.workspace.runs / str(run_id)):
        daemon = bench.start()
        run, other = bench.until_ended(run_id, after)
        assert run.state is RunState.FAILED
        assert "Read-only file system" in run.reason and "log.txt" in run.reason
        assert other.state is RunState.DONE
        assert daemon.poll() is None


def test_a_workspace_whose_own_folder_cannot_be_written_keeps_its_daemon_and_says_so_to_the_next(bench):
    run_id = bench.add(steps=100, pause=0.01)
    daemon = bench.start()
    bench.until_step(run_id, 2)
    with read_only(bench.workspace.private):
        assert bench.until_ended(run_id)[0].state is RunState.DONE
        assert daemon.poll() is None
        bench.kill_daemon()
        held = bench.add(new={"held": True}, steps=1)
        code, said = finetop(bench, "release", str(held))
        assert code == 0 and f"run {held}: takes its turn" in said, said
        assert "no daemon can be started" in said and "Read-only file system" in said
        code, said = finetop(bench, "daemon", "start")
        assert code == 1 and "Read-only file system" in said


@pytest.mark.parametrize("of", ["workspace", "runs"])
def test_a_disk_without_a_byte_left_pauses_run_and_queue_and_nothing_is_taken_for_hung(tmp_path, of):
    """The whole workspace lies on it, or the folders of runs only, while the database has room."""
    disk, root = tmp_path / "small", tmp_path / ("small" if of == "workspace" else "large")
    with small_disk(disk, "16m"):
        bench = Bench(root)
        if of == "runs":
            bench.workspace.runs.symlink_to(disk)
        try:
            run_id, waiting = bench.add(steps=300, pause=0.01, save=1000, promise=0.1), bench.add(steps=2)
            bench.start(disk_reserve_bytes=1 << 20, overdue_seconds=0.2, hung_seconds=1.0)
            bench.until_step(run_id, 10)
            filler = disk / "filler"
            journal = bench.workspace.runs / str(run_id) / "journal.jsonl"
            fill_up(filler)
            size = bench.until(lambda: _unchanged(journal), "the journal to stand still")
            time.sleep(3.0)  # what is under test: longer than a silence may last
            assert daemon_client.status(bench.workspace).running
            assert journal.stat().st_size == size
            assert finetop(bench, "ls")[0] == 0
            filler.unlink()
            run, other = bench.until_ended(run_id, waiting)
            assert (run.state, run.attempts) == (RunState.DONE, 1), run.reason
            assert steps_of(bench, run_id) == list(range(1, 301))
            assert other.state is RunState.DONE
        finally:
            bench.close()


def _unchanged(path: Path) -> int:
    """Its size, if it has not grown for a fifth of a second."""
    before = path.stat().st_size
    time.sleep(0.2)
    return before if path.stat().st_size == before else 0


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
def test_commands_wait_for_a_locked_database_or_answer_beside_it(bench, how):
    run_id = bench.add(steps=400, pause=0.01)
    bench.start(database_seconds=0.2)
    bench.until_step(run_id, 5)
    code = (
        "import sqlite3, sys\nconn = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n"
        f"conn.execute('BEGIN {how}')\nprint('held', flush=True)\nsys.stdin.readline()\nconn.execute('ROLLBACK')\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(bench.workspace.database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    journal = bench.workspace.runs / str(run_id) / "journal.jsonl"
    before = journal.stat().st_size
    assert finetop(bench, "ls")[0] == 0
    stop = subprocess.Popen(
        [sys.executable, "-P", "-m", "engine.cli.main", "stop", str(run_id), "--workspace", str(bench.workspace.root)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    bench.until(lambda: journal.stat().st_size > before, "training to go on")
    assert psutil.pid_exists(bench.run(run_id).pid)
    holder.communicate("\n", timeout=60)
    assert stop.wait(60) == 0 and "saves and stops" in stop.stdout.read()
    (run,) = bench.until_ended(run_id)
    assert run.state in (RunState.STOPPED, RunState.DONE)
    assert steps_of(bench, run_id) == list(range(1, run.step + 1))


def test_without_inodes_nothing_starts_and_the_queue_says_why_until_some_are_free(tmp_path):
    with small_disk(tmp_path / "small", "64m", files=400) as disk:
        bench = Bench(disk)
        try:
            run_id = bench.add(new={"held": True}, steps=2)
            bench.start()
            bench.until(lambda: daemon_client.status(bench.workspace).running)
            fill_with_files(disk / "filler")
            with bench.writing() as conn:
                queue.release(conn, run_id)
            bench.until(lambda: (bench.run(run_id).wait_reason or "").startswith(f"no inode left in {disk}"))
            assert daemon_client.status(bench.workspace).running
            shutil.rmtree(disk / "filler")
            assert bench.until_ended(run_id)[0].state is RunState.DONE
        finally:
            bench.close()
