"""A server that was left in the background and killed is started again; one that was stopped is not."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

from engine.base.workspace import Workspace
from engine.daemon import server_state
from engine.daemon.server_watch import ServerWatch


def finetop(workspace, *words):
    command = [sys.executable, "-m", "tui", "--workspace", str(workspace.root), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_server_that_cannot_start_says_why_and_nothing_of_earlier_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")
    workspace = Workspace(tmp_path)
    workspace.private.mkdir()
    server_state.log_file(workspace).write_text("finetop: what an earlier one had said\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = finetop(workspace, "serve", "--detach", "--port", str(taken.getsockname()[1]))
    assert refused.returncode == 1 and "cannot be listened on" in refused.stderr and "--port" in refused.stderr
    assert "earlier" not in refused.stderr and server_state.kept(workspace) is None


def test_a_server_comes_back_until_it_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETOP_NO_DAEMON", "1")
    workspace = Workspace(tmp_path)
    assert finetop(workspace, "serve", "env").returncode == 1
    started = finetop(workspace, "serve", "--detach", "--port", "0")
    assert started.returncode == 0, started.stderr
    try:
        first = json.loads(finetop(workspace, "serve", "status", "--json").stdout)
        variables = dict(
            line.removeprefix("export ").split("=", 1)
            for line in finetop(workspace, "serve", "env").stdout.splitlines()
        )
        assert variables["OPENAI_BASE_URL"] == first["url"] == variables["OPENAI_API_BASE"]
        assert oct(os.stat(workspace.private / "serve.key").st_mode)[-3:] == "600"
        request = urllib.request.Request(
            f"{first['url']}/models", headers={"Authorization": f"Bearer {variables['OPENAI_API_KEY']}"}
        )
        assert urllib.request.urlopen(request, timeout=10).status == 200
        watch = ServerWatch(workspace)
        watch.check()
        assert server_state.status(workspace).pid == first["pid"]
        os.kill(first["pid"], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while (again := server_state.status(workspace)) is None or again.pid == first["pid"]:
            watch.check()
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        assert "has ended" in finetop(workspace, "serve", "stop").stdout
    watch.check()
    time.sleep(0.2)
    assert server_state.status(workspace) is None and server_state.kept(workspace) is None
