"""`finetop daemon` as a person types it."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from engine.base.workspace import Workspace
from engine.daemon import daemon_client

FINETOP = str(Path(sys.executable).with_name("finetop"))


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(tmp_path)
    yield made
    daemon_client.stop(made, 30)


def finetop(workspace: Workspace, *words: str) -> subprocess.CompletedProcess:
    command = [FINETOP, "daemon", *words, "--workspace", str(workspace.root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_start_status_stop(workspace):
    assert "No daemon runs" in finetop(workspace, "status").stdout
    started = finetop(workspace, "start", "--cpu-slots", "3", "--json")
    assert started.returncode == 0, started.stderr
    said = json.loads(started.stdout)
    assert said["running"] is True
    assert psutil.Process(said["pid"]).is_running()
    assert finetop(workspace, "start", "--json").stdout.count(str(said["pid"])) == 1
    shown = finetop(workspace, "status").stdout
    assert f"pid {said['pid']}" in shown
    assert "warm start: idle" in shown
    assert json.loads(finetop(workspace, "status", "--json").stdout)["cpu_slots"] == 3
    assert json.loads(workspace.machine_state.read_text())["host"]["cpu_count"] >= 1
    assert "has left; its runs go on" in finetop(workspace, "stop").stdout
    assert finetop(workspace, "stop").stdout == "No daemon was running.\n"


def test_a_second_one_in_the_foreground_is_refused(workspace):
    assert finetop(workspace, "start").returncode == 0  # it waits until one runs
    assert finetop(workspace, "start").returncode == 0
    refused = finetop(workspace, "start", "--foreground")
    assert refused.returncode == 1
    assert "a daemon is running already" in refused.stderr


def test_a_database_of_a_newer_finetop_is_told_and_left_alone(workspace):
    import sqlite3

    from engine.store.transactions import APPLICATION_ID

    conn = sqlite3.connect(workspace.database)
    conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    conn.execute("PRAGMA user_version = 99")
    conn.execute("CREATE TABLE t(a)")
    conn.close()
    failed = finetop(workspace, "start")
    assert failed.returncode == 1
    assert "the daemon did not start" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "newer finetop" in workspace.daemon_log.read_text()


@pytest.mark.parametrize("words", [("start", "--cpu-slots", "-1"), ("start", "--idle-exit", "soon"), ("jump",)])
def test_a_slip_is_named(workspace, words):
    done = finetop(workspace, *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
