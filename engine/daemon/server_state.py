"""Whether a server runs for a workspace, and where: the lock is the proof, the file beside it says the rest."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.base import process_lock
from engine.base.atomic_files import atomic_write
from engine.base.errors import EngineError, InputError
from engine.base.messages import msg
from engine.base.worker_process import worker_environment
from engine.base.workspace import Workspace
from engine.daemon.daemon_client import make_private
from engine.store.serve_keys import new_key

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_START_SECONDS = 20.0
_MOST_WHY_BYTES = 2000


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """Of a server that runs."""

    pid: int
    host: str
    port: int
    started: float

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"


def state_file(workspace: Workspace) -> Path:
    return workspace.private / "serve.json"


def log_file(workspace: Workspace) -> Path:
    return workspace.private / "serve.log"


def _lock_file(workspace: Workspace) -> Path:
    return workspace.private / "serve.lock"


def status(workspace: Workspace) -> ServerStatus | None:
    """None where no server runs, or none that has said yet where it listens."""
    holder = process_lock.holder(_lock_file(workspace))
    if holder is None:
        return None
    try:
        state = json.loads(state_file(workspace).read_bytes())
        running = ServerStatus(state["pid"], state["host"], state["port"], state["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return running if running.pid == holder else None  # else it is of the one before


def take_lock(workspace: Workspace) -> int:
    """The descriptor that says that a server runs. Raises EngineError where one does."""
    make_private(workspace)
    try:
        lock = process_lock.take(_lock_file(workspace))
    except OSError as error:
        raise EngineError(
            msg("{path} cannot be locked: {error}", path=_lock_file(workspace), error=error.strerror)
        ) from None
    if lock is None:
        running = status(workspace)
        where = msg(" on {url}", url=running.url) if running else ""
        raise EngineError(
            msg("a server runs for {root}{where}", root=workspace.root, where=where), "`finetop serve stop` ends it."
        )
    return lock


def listen(host: str, port: int) -> socket.socket:
    """Raises InputError where that cannot be listened on."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(256)
    except (OSError, OverflowError) as error:
        raise InputError(
            msg("{host}:{port} cannot be listened on: {error}", host=host, port=port, error=error),
            "Choose another with --port; 0 takes one that is free.",
        ) from None
    return listening


def spawn(workspace: Workspace, options: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, with its output in the log."""
    make_private(workspace)
    with open(log_file(workspace), "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "engine.serve", str(workspace.root), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=worker_environment(),
            start_new_session=True,
        )


def start(workspace: Workspace, options: Sequence[str]) -> ServerStatus:
    """Start a server, and wait until it listens. Raises EngineError where it does not."""
    log = log_file(workspace)
    already_logged = log.stat().st_size if log.exists() else 0
    process = spawn(workspace, options)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if (running := status(workspace)) and running.pid == process.pid:
            process.returncode = 0  # it outlives us
            return running
        if process.poll() is not None:
            break
        time.sleep(0.02)
    with open(log, "rb") as file:
        file.seek(already_logged)
        why = file.read(_MOST_WHY_BYTES).decode("utf-8", "replace").strip()
    raise EngineError(msg("the server did not start:\n{why}", why=why), msg("Log: {log}", log=log))


def stop(workspace: Workspace, seconds: float = 10.0) -> bool:
    """Ask it to end, and wait so long; True if none is left."""
    lock = _lock_file(workspace)
    asked_pid = process_lock.holder(lock)
    if asked_pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(asked_pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while process_lock.holder(lock) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# a server that the daemon starts again when it has died


def keep(workspace: Workspace, options: Sequence[str]) -> None:
    """Let the daemon see that one runs, with these options."""
    atomic_write(_kept_file(workspace), json.dumps(list(options)))


def forget(workspace: Workspace) -> None:
    """It may end."""
    _kept_file(workspace).unlink(missing_ok=True)


def kept(workspace: Workspace) -> list[str] | None:
    """The options of the server that should run; None: none should."""
    try:
        options = json.loads(_kept_file(workspace).read_bytes())
    except (OSError, ValueError):
        return None
    return options if isinstance(options, list) and all(isinstance(word, str) for word in options) else None


def _kept_file(workspace: Workspace) -> Path:
    return workspace.private / "serve.keep"


# the key of the workspace's owner


def key_file(workspace: Workspace) -> Path:
    """Readable by its owner only."""
    return workspace.private / "serve.key"


def owner_key(workspace: Workspace) -> str:
    """The key of the workspace's owner; made at first need. Raises EngineError where it cannot be kept."""
    make_private(workspace)
    path = key_file(workspace)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise EngineError(msg("{path} cannot be written: {error}", path=path, error=error.strerror)) from None
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(new_key() + "\n")
    try:
        key = path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise EngineError(msg("{path} cannot be read: {error}", path=path, error=error)) from None
    if len(key) < 32:
        raise EngineError(
            msg("{path} holds no key", path=path), "Delete the file: a new key is made when the server next starts."
        )
    return key
