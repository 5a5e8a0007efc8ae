"""Engines as the daemon has them: started once, found again, told to give way, and slower to come back if they die."""

import json
import os
import signal
import sys
import time

import pytest

from engine.base.engine_folder import EngineFolder, EngineState, EngineUse, EngineWish, ask_to_leave, live_engines
from engine.base.units import GIB
from engine.base.worker_process import spawn_worker
from engine.base.workspace import Workspace
from engine.daemon import process_control
from engine.daemon.engine_watch import Engines
from engine.daemon.forkserver_client import ForkServer
from engine.daemon.limits import Limits
from engine.present.engine_table import engine_lines, engines_json
from tests.engine.daemon.daemonkit import REPOSITORY, Bench

_ENGINE = """
import os, signal, sys, time
from pathlib import Path
from engine.base.engine_folder import EngineFolder, EngineUse
folder = EngineFolder(Path(sys.argv[1]))
folder.listen()
signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
folder.put_use(EngineUse(os.getpid()))
while True:
    time.sleep(60)
"""
SCRIPTED = [sys.executable, "-c", _ENGINE]
NAME = "starter-1"


class Watched:
    """Engines of a workspace, watched by hand."""

    def __init__(self, root, monkeypatch, **limits):
        self.limits = Limits(**limits)
        monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
        self.workspace = Workspace(root)
        self.folder = EngineFolder(self.workspace.private / "engines" / NAME)
        self.new_daemon()

    def new_daemon(self):
        self.engines = Engines(self.workspace, ForkServer("not here"), self.limits, SCRIPTED)

    def round(self):
        self.engines.statuses.update(process_control.reap())
        self.engines.collect()
        self.engines.look()

    def until(self, condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            self.round()
            time.sleep(0.01)

    def start(self):
        self.folder.want(EngineWish("starter", GIB))
        self.round()
        (engine,) = self.engines.wanted()
        self.engines.start(NAME, (), os.environ)
        self.until(lambda: live_engines(self.workspace))
        assert self.engines.wanted() == [] and engine.state.estimate_bytes == GIB
        return live_engines(self.workspace)[0].use.pid

    def kill(self, pid):
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: not self.engines.living())


@pytest.fixture
def watched(tmp_path, monkeypatch):
    made = Watched(tmp_path / "a rather deep folder" / ("x" * 90), monkeypatch)
    yield made
    ask_to_leave(made.workspace)


def test_a_daemon_finds_the_engines_of_the_one_before_and_what_became_of_them(watched):
    pid = watched.start()
    assert oct(watched.folder.path.parent.stat().st_mode)[-3:] == "700"
    watched.new_daemon()
    watched.round()
    assert watched.engines.processes()[NAME][0] == pid
    watched.folder.want(EngineWish("starter", GIB))  # by a server that looked a moment too early: no second engine
    watched.round()
    assert watched.engines.wanted() == [] and watched.folder.state().state == "runs"
    watched.kill(pid)
    assert watched.folder.state().state == "ended" and "killed by SIGKILL" in watched.folder.state().reason


def test_the_table_has_the_memory_that_was_promised(watched):
    pid = watched.start()
    (row,) = engines_json(watched.workspace)
    assert (row["pid"], row["promised_bytes"], row["gpus"]) == (pid, GIB, []) and row["memory_bytes"] > 2**20
    watched.folder.put_state(EngineState("runs", "starter", pid=pid, gpus=("0",), estimate_bytes=GIB))
    seen = {"gpus": [{"processes": [{"run": NAME, "memory_bytes": 7}, {"run": 4, "memory_bytes": 9}]}]}
    watched.workspace.machine_state.write_text(json.dumps(seen))
    assert engines_json(watched.workspace)[0]["memory_bytes"] == 7


def test_one_that_has_answered_comes_back_at_once_and_one_that_has_not_ever_later(watched):
    pid = watched.start()
    watched.folder.put_use(EngineUse(pid, requests=3, used_at=time.time()))
    watched.kill(pid)
    watched.kill(watched.start())
    watched.folder.want(EngineWish("starter", GIB))
    watched.round()
    assert watched.engines.wanted() == []
    told = watched.folder.state()
    assert told.state == "waits" and "has died before its first answer (it was killed by SIGKILL)" in told.reason
    assert 1 < told.retry_seconds <= 2
    backoff = watched.engines._engines[NAME].backoff
    pauses = []
    for _ in range(9):
        backoff.failed()
        pauses.append(round(backoff.seconds_left()))
    assert pauses == [4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert NAME in engine_lines(watched.workspace)[1] and engines_json(watched.workspace)[0]["state"] == "waits"


def test_it_gives_way_when_it_rests_and_comes_back_behind_the_run(watched):
    pid = watched.start()
    watched.engines.give_way(NAME, 12)  # whoever asked for it just now has not been answered yet
    assert watched.engines.living()[0].state.state == "runs"
    watched.engines._limits = Limits(engine_rest_seconds=0.0)
    watched.folder.put_use(EngineUse(pid, active=2, used_at=time.time()))
    watched.engines.give_way(NAME, 12)  # it is answering
    assert watched.engines.living()[0].state.state == "runs"
    watched.folder.put_use(EngineUse(pid, requests=2, used_at=time.time()))
    watched.engines.give_way(NAME, 12)
    assert "given to run 12" in watched.folder.state().reason
    watched.until(lambda: not watched.engines.living())
    watched.folder.want(EngineWish("starter", GIB))
    watched.round()
    (waiting,) = watched.engines.waiting_engines(watched.engines.wanted())
    assert (waiting.behind, waiting.estimate_bytes) == (12, GIB)  # and no pause: it did not die


def test_one_that_never_rests_gives_way_after_a_minute_and_all_leave_with_the_server(watched):
    pid = watched.start()
    watched.folder.put_use(EngineUse(pid, active=1, used_at=time.time()))
    watched.engines._limits = Limits(engine_busy_seconds=0.0)
    watched.engines.give_way(NAME, None)
    watched.until(lambda: not watched.engines.living())
    watched.start()
    watched.engines.check(served=True)
    assert watched.engines.living()[0].state.state == "runs"
    watched.engines._limits = Limits(unserved_seconds=0.0)
    watched.engines.check(served=False)
    watched.until(lambda: not watched.engines.living())


def test_a_run_that_waits_for_an_engine_says_so_and_starts_when_it_has_left(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    bench = Bench(tmp_path / "work", unserved_seconds=1e9, engine_rest_seconds=1.0)
    folder = EngineFolder(bench.workspace.private / "engines" / NAME)
    folder.make()
    process = spawn_worker(folder.path, [], command=SCRIPTED)
    folder.put_state(EngineState("runs", "starter", pid=process.pid, estimate_bytes=1 << 50))
    bench.until(lambda: folder.use() is not None)
    folder.put_use(EngineUse(process.pid, active=1, used_at=time.time()))
    run_id = bench.add(new={"estimate_bytes": 10 * GIB}, steps=1)
    try:
        bench.start()
        waiting = bench.until(lambda: bench.run(run_id).wait_kind and bench.run(run_id))
        assert waiting.wait_kind == "memory"
        assert "needs ~10.0 GiB, this machine has" in waiting.wait_reason
        assert "used by the server's model starter" in waiting.wait_reason
        folder.put_use(EngineUse(process.pid, requests=1, used_at=time.time()))
        process.wait(30)
        (ended,) = bench.until_ended(run_id)
        assert ended.state == "done" and folder.state().state == "ended"
    finally:
        process.kill()
        bench.close()
