"""Whose process is on the card: attributed to a run through the process tree, or marked as not ours."""

import dataclasses
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest

from engine.monitor.gpu_processes import ProcessTable, attribute
from engine.monitor.run_processes import RunReader
from engine.monitor.samples import GpuProcess
from tests.engine.fake_nvml.library import GIB, card, machine, uuid

pytest_plugins = ["tests.engine.fake_nvml.fixtures"]

# A worker that starts a data loader which starts another, says their pids, and waits; `orphan` lets the middle one die.
WORKER = """
import os, sys, time
r, w = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.write(w, b"%d" % os.getpid())
        if "busy" in sys.argv:
            while True: pass
        time.sleep(60)
    if "orphan" in sys.argv: os._exit(0)
    time.sleep(60)
print(os.read(r, 20).decode(), flush=True)
time.sleep(60)
"""


@contextmanager
def worker(*words: str):
    """A process tree in a session of its own: yields (worker pid, its start, grandchild pid)."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, *words], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        grandchild = int(process.stdout.readline())
        yield process.pid, psutil.Process(process.pid).create_time(), grandchild
    finally:
        os.killpg(process.pid, 9)
        process.wait()
        process.stdout.close()


def named(pid: int, table: ProcessTable | None = None) -> GpuProcess:
    facts = (table or ProcessTable(host_pids=True)).look([pid])[pid]
    return GpuProcess("GPU-x", kind="compute", memory_bytes=GIB, **dataclasses.asdict(facts))


def test_a_grandchild_of_a_worker_belongs_to_its_run():
    with worker() as (pid, started, grandchild):
        (process,) = attribute([named(grandchild)], {41: (pid, started), 42: (1, started)})
        assert (process.run, process.owner) == (41, "run")


def test_a_data_loader_whose_parent_died_still_belongs_to_its_run():
    with worker("orphan") as (pid, started, grandchild):
        end = time.monotonic() + 10
        while len([p for p in psutil.Process(pid).children() if p.status() != psutil.STATUS_ZOMBIE]) > 0:
            assert time.monotonic() < end
        assert pid not in [parent.pid for parent in psutil.Process(grandchild).parents()]
        (process,) = attribute([named(grandchild)], {41: (pid, started)})
        assert process.run == 41


def test_a_stranger_that_got_a_dead_workers_pid_is_not_our_run():
    with worker() as (pid, started, _):
        (process,) = attribute([named(pid)], {41: (pid, started - 3600)})
        assert (process.run, process.owner) == (None, "not ours")


def test_another_users_process_is_marked_not_ours_with_user_and_command():
    me = named(os.getpid())
    (process,) = attribute([me], {})
    assert process.owner == "not ours"
    assert process.user == psutil.Process().username() and "python" in process.command


def test_a_hidden_process_on_the_host_is_not_ours():
    process = named(4_000_001)
    assert process.owner == "not ours" and process.command is None


def test_in_a_container_a_foreign_pid_is_unknown_even_if_the_number_exists_here():
    table = ProcessTable(host_pids=False)
    for pid in (os.getpid(), 4_000_001):
        (process,) = attribute([named(pid, table)], {41: (os.getpid(), None)})
        assert (process.owner, process.command) == ("unknown", None)


def test_in_a_container_a_process_that_holds_the_device_is_believed(tmp_path):
    device = tmp_path / "nvidia0"
    table = ProcessTable(device_prefix=str(tmp_path / "nvidia"), host_pids=False)
    with device.open("w"):
        (process,) = attribute([named(os.getpid(), table)], {41: (os.getpid(), None)})
    assert process.run == 41


def test_a_pid_that_is_used_again_gets_new_facts():
    table = ProcessTable(host_pids=True)
    with worker() as (pid, _, _grandchild):
        assert named(pid, table).command
    assert named(pid, table).command is None


def test_the_snapshot_names_processes_and_their_runs(nvml):
    with worker() as (pid, started, grandchild):
        nvml.set(machine(card(0, compute=f"{grandchild}:{62 * GIB}"), card(1, compute=f"{os.getpid()}:{GIB}")))
        snapshot = nvml.python(
            """
            from engine.monitor.gpu_processes import ProcessTable
            from engine.monitor.monitor import Monitor
            monitor = Monitor(".", period=0.1, table=ProcessTable(host_pids=True))
            monitor.watch({41: (int(sys.argv[1]), float(sys.argv[2]))})
            monitor.start()
            monitor.wait(3, seconds=20)
            emit(monitor.latest())
            """,
            pid,
            started,
        )
    ours, other = (gpu["processes"][0] for gpu in snapshot["gpus"])
    assert (ours["gpu"], ours["run"], ours["memory_bytes"]) == (uuid(0), 41, 62 * GIB)
    assert other["run"] is None and other["user"]
    assert snapshot["runs"]["41"]["processes"] == 3


def test_a_runs_load_counts_its_whole_tree_and_nothing_else():
    reader = RunReader()
    with worker("busy") as (pid, started, _), worker() as (idle, idle_started, _):
        runs = {41: (pid, started), 42: (idle, idle_started), 43: (pid, started - 3600)}
        reader.read(runs)
        time.sleep(0.5)
        loads = reader.read(runs)
    assert loads[41].processes == 3 and loads[41].cpu_percent > 20
    assert loads[42].processes == 3 and loads[42].cpu_percent < 20
    assert 43 not in loads, "a stranger with the same pid"
    assert loads[41].rss_bytes > 1 << 20


def test_a_run_that_ended_has_no_load():
    reader = RunReader()
    with worker() as (pid, started, _):
        assert 41 in reader.read({41: (pid, started)})
    deadline = time.monotonic() + 5  # its grandchild is init's to bury
    while (left := reader.read({41: (pid, started)})) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == {}


def test_facts_are_read_once_per_process(monkeypatch):
    table = ProcessTable(host_pids=True)
    table.look([os.getpid()])
    monkeypatch.setattr(table, "_read", lambda process: pytest.fail("read again"))
    assert table.look([os.getpid()])[os.getpid()].command
