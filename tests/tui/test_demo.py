"""The demo: a newcomer sees two runs train and can compare them, and nothing of it stays behind."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.base.workspace import Workspace
from engine.cli.commands import demo
from engine.control import Control
from engine.daemon import daemon_client
from engine.daemon.limits import IDLE_EXIT
from engine.settings.presets import SAMPLES
from engine.settings.resolve import Layer, resolve
from engine.store import connect, queries, queue
from tests.tui.real_terminal import Terminal


@pytest.fixture
def workspace(tmp_path):
    """A place for a demo; whatever it started is ended, also where a test fails."""
    place = Workspace(tmp_path / "demo")
    place.root.mkdir()
    yield place
    with contextlib.suppress(Exception), Control(place) as control:
        for run in listed(place):
            control.kill(run.id)
        until(lambda: not any(run.active for run in listed(place)))
    daemon_client.stop(place)


def listed(place: Workspace) -> list[Any]:
    with contextlib.closing(connect.reader(place.database)) as conn:
        return list(queries.list_runs(conn))


def until(condition: Callable[[], Any], limit: float = 60.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)


def processes_in(folder: Path) -> list[str]:
    """Daemon, warm process and workers: all have the workspace, or a folder in it, as their own folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # another user's, or gone by now
            if Path(os.readlink(process / "cwd")).is_relative_to(folder):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def test_a_newcomer_sees_two_runs_train_and_compares_them_and_nothing_stays_behind(workspace):
    with Terminal(["-m", "tui", "demo", "--workspace", str(workspace.root)], 120, 36) as terminal:
        terminal.shows("Welcome to finetop")
        terminal.shows("lr=2e-3")
        terminal.send(" ")
        terminal.until(lambda: "Welcome" not in terminal.text())
        assert "marked" not in terminal.text(), "the key that closes the welcome does nothing else"
        terminal.send(" ")
        terminal.shows("1 marked")
        terminal.until(lambda: sum(run.train_loss is not None for run in listed(workspace)) == 2, 90)
        terminal.shows("RUNNING 2")
        assert {run.sweep for run in listed(workspace)} == {"demo"}
        assert len(processes_in(workspace.root)) >= 2
        terminal.send(" ")
        terminal.shows("2 marked")
        terminal.send("c")
        terminal.shows("compare 1 · 2")
        terminal.shows("optim.learning_rate")
        terminal.send("\x1b")
        terminal.shows("4 Checkpoints")
        terminal.send("q")
        assert terminal.left(40) == 0
    assert not daemon_client.status(workspace).running
    assert {str(run.state) for run in listed(workspace)} <= {"stopped", "done"}
    until(lambda: not processes_in(workspace.root))


def test_after_a_hang_up_no_daemon_stays_for_ever(workspace, fork_server):
    terminal = Terminal(["-m", "tui", "demo", "--workspace", str(workspace.root)], 120, 36)
    terminal.shows("lr=2e-3")
    terminal.until(lambda: daemon_client.status(workspace).beat)
    os.close(terminal.fd)
    until(lambda: os.waitpid(terminal.pid, os.WNOHANG)[0])
    assert daemon_client.status(workspace).running, "runs go on, so somebody must look after them"
    with contextlib.closing(connect.writer(workspace.database)) as conn:
        assert int(queries.get_meta(conn, IDLE_EXIT)) > 0
        queue.set_meta(conn, IDLE_EXIT, "1")
    with Control(workspace) as control:
        for run in listed(workspace):
            control.kill(run.id)
    until(lambda: not daemon_client.status(workspace).running)
    until(lambda: not processes_in(workspace.root))


def test_without_a_terminal_it_trains_in_lines(workspace, fork_server):
    words = [sys.executable, "-m", "tui", "demo", "--workspace", str(workspace.root)]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = []
    while b"plan: " not in (line := process.stderr.readline()):
        assert line, b"".join(said)
        said.append(line)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert b"learns to tell what people ask for" in said[0]
    assert b"run 1 stopped at step" in err and b"\x1b" not in out + err
    assert not workspace.database.exists() and not daemon_client.status(workspace).running


def toured(workspace: Workspace, tour: Callable[[Path], int]) -> None:
    options = argparse.Namespace(workspace=str(workspace.root), headless=False, tour=tour)
    assert demo.run(options) == 0


def queue_own(workspace: Workspace) -> int:
    resolved = resolve([Layer("--data-file", {"data.files": [str(SAMPLES / "qa.jsonl")]})])
    with Control(workspace) as control:
        return control.add(resolved)


def test_what_was_queued_beside_the_demo_goes_on_when_it_is_left(workspace, monkeypatch, capsys):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")

    def tour(root: Path) -> int:
        assert queue_own(Workspace(root)) == 3
        return 0

    toured(workspace, tour)
    assert [str(run.state) for run in listed(workspace)] == ["queued"] * 3
    assert "A run of yours goes on there." in capsys.readouterr().out


def test_in_a_workspace_with_runs_the_demo_joins_the_queue_and_changes_nothing_else(workspace, monkeypatch, capsys):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")
    queue_own(workspace)
    toured(workspace, lambda root: 0)
    assert [str(run.state) for run in listed(workspace)] == ["queued"] * 3
    with contextlib.closing(connect.reader(workspace.database)) as conn:
        assert queries.get_meta(conn, IDLE_EXIT) is None and queries.get_meta(conn, "cpu_slots") is None
    assert capsys.readouterr().out == ""


def test_left_at_once_the_demo_takes_its_runs_off_the_queue_and_says_where_they_lie(workspace, monkeypatch, capsys):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")
    toured(workspace, lambda root: 0)
    assert [str(run.state) for run in listed(workspace)] == ["stopped"] * 2
    assert f"The demo's runs lie in {workspace.root}" in capsys.readouterr().out
