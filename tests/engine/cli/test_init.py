"""The folder that `finetop init` makes: what lies in it runs as it is."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.base.workspace import PACKAGE_ROOT, Workspace, find_workspace
from engine.cli.main import main
from engine.daemon import daemon_client, server_state
from engine.notify.notify_config import NotifyConfig, read_notify_config

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "FINETOP_"))} | {
    "PYTHONPATH": str(PACKAGE_ROOT)
}


def finetop(folder: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tui", *words]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made with all that a name may hold."""
    name = 'my "50%" work\'s'
    above = tmp_path_factory.mktemp("above")
    made = finetop(above, "init", name)
    assert made.returncode == 0 and "is ready" in made.stdout, made.stderr
    return above / name


@pytest.fixture(scope="module")
def variables(folder: Path) -> Iterator[dict[str, str]]:
    """Of a server that runs in it."""
    started = finetop(folder, "serve", "--detach", "--port", "0")
    assert started.returncode == 0, started.stderr
    try:
        lines = finetop(folder, "serve", "env").stdout.replace("export ", "").split()
        yield dict(line.split("=", 1) for line in lines)
    finally:
        workspace = Workspace(folder)
        server_state.forget(workspace)
        server_state.stop(workspace, 20)
        daemon_client.stop(workspace, 20)


def test_the_python_client_runs_as_it_is(folder: Path, variables: dict[str, str]):
    bare = subprocess.run([sys.executable, folder / "client.py"], env=ENVIRONMENT, capture_output=True, text=True)
    assert bare.returncode == 1 and "finetop serve --detach" in bare.stderr
    done = subprocess.run(
        [sys.executable, folder / "client.py"], env=ENVIRONMENT | variables, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert (
        "Created fine-tuning job" in done.stdout and "model: ft:" in done.stdout and "What is finetop?" in done.stdout
    )


def test_the_curl_client_runs_as_it_is(folder: Path, variables: dict[str, str], tmp_path: Path):
    """From another folder, with `finetop` on the PATH as an installation has it."""
    command = tmp_path / "finetop"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tui "$@"\n')
    command.chmod(0o755)
    environment = ENVIRONMENT | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", str(folder / "client.sh")], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "trains on file-" in done.stdout and "model: ft:" in done.stdout and '"chat.completion"' in done.stdout


def test_its_settings_are_taken_and_its_commands_mean_it(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("FINETOP_WORKSPACE", raising=False)
    assert find_workspace().root == folder
    assert read_notify_config(find_workspace()) == NotifyConfig()
    queued = finetop(folder, "add", "--config", "run.toml", "--hold")
    assert queued.returncode == 0 and list((folder / "runs").glob("*/config.json")), queued.stderr


def test_the_unit_starts_the_server_of_that_folder(folder: Path):
    (unit,) = folder.glob("finetop-*.service")
    if shutil.which("systemd-analyze"):
        checked = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
        complaints = [line for line in checked.stderr.splitlines() if unit.name in line]
        assert not complaints
    (line,) = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
    words = line.removeprefix("ExecStart=").replace("%%", "%")
    assert f'"{sys.executable}" -P -m tui --workspace' in words
    began = subprocess.Popen(
        ["sh", "-c", f"exec {words} --port 0"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:  # a server of that very folder: where the other test's runs, it says so
        deadline = time.monotonic() + 30
        while server_state.status(Workspace(folder)) is None and began.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running = server_state.status(Workspace(folder))
        assert running is not None and (running.pid == began.pid or "a server runs" in began.communicate()[1])
    finally:
        began.terminate()
        began.wait(20)


def test_nothing_that_is_there_is_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "mine").write_text("x")
    assert main(["init", str(tmp_path)]) == 2 and "not empty" in capsys.readouterr().err
    assert main(["init", str(tmp_path / "mine")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
