"""The folder of an engine, a process that holds one model and answers for the server: all that the two and the daemon
say to each other, but for the requests.

    .finetop/engines/NAME/wanted.json    by the server, of an engine that it needs; the daemon takes it away
                          state.json     by the daemon: that it runs, or why it does not
                          use.json       by the engine: what it has answered
                          socket         where it listens
                          log.txt        what it printed; locked for as long as it lives
"""

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from engine.base.atomic_files import atomic_write
from engine.base.worker_process import worker_alive
from engine.base.workspace import LOG, Workspace

_BACKLOG = 256
Record = TypeVar("Record", "EngineWish", "EngineState", "EngineUse")


@dataclass(frozen=True, slots=True)
class EngineWish:
    """What the server needs an engine for."""

    base: str
    """The name of its model, as people read it."""
    estimate_bytes: int | None = None
    """Of weights, cache and one pass; None where the model's shape is not known."""
    cache_bytes: int | None = None
    """What of it keys and values may take."""


@dataclass(frozen=True, slots=True)
class EngineState:
    """What the daemon has decided."""

    state: str
    """'runs', 'waits', 'leaves' or 'ended'."""
    base: str = ""
    reason: str = ""
    """Why it waits, leaves or has ended, in the user's words."""
    retry_seconds: float = 2.0
    """When to ask again for one that waits."""
    pid: int | None = None
    started: float | None = None
    """Its process' start time, epoch seconds."""
    gpus: tuple[str, ...] = ()
    estimate_bytes: int | None = None
    """What it was promised."""


@dataclass(frozen=True, slots=True)
class EngineUse:
    """What an engine says of itself."""

    pid: int
    requests: int = 0
    """Answered, also with an error."""
    active: int = 0
    """That it is answering."""
    used_at: float = 0.0
    """When it last began or ended one, epoch seconds; 0: never."""


@dataclass(frozen=True, slots=True)
class EngineFolder:
    """One of them; what is in it may be missing or half a record at any time, which is as if it were not there."""

    path: Path

    @property
    def name(self) -> str:
        """The engine's."""
        return self.path.name

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.path / LOG

    def make(self) -> None:
        """With what lies in it, for nobody but its owner."""
        for folder in (self.path.parent, self.path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(folder, 0o700)

    def alive(self) -> bool:
        """Whether an engine has this folder, whoever started it."""
        return worker_alive(self.path)

    def listen(self) -> socket.socket:
        """Of the engine, which holds the lock: a socket that another has left behind is of one that is gone."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.hang_up()
        with self.address() as address:
            listening.bind(address)
        os.chmod(self.path / "socket", 0o600)
        listening.listen(_BACKLOG)
        return listening

    def hang_up(self) -> None:
        """Nobody finds it any more."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / "socket").unlink()

    @contextlib.contextmanager
    def address(self) -> Iterator[str]:
        """Of the socket, short however deep the workspace lies: it may have 107 bytes. Raises OSError."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{descriptor}/socket"
        finally:
            os.close(descriptor)

    def want(self, wish: EngineWish) -> None:
        """Ask the daemon for it."""
        self.make()
        _write(self.path / "wanted.json", wish)

    def take_wish(self) -> EngineWish | None:
        """What the server has written since."""
        path = self.path / "wanted.json"
        wish = _read(path, EngineWish)
        path.unlink(missing_ok=True)
        return wish

    @property
    def state_file(self) -> Path:
        """Written anew whenever the daemon has decided."""
        return self.path / "state.json"

    def state(self) -> EngineState | None:
        """What the daemon has decided last."""
        return _read(self.state_file, EngineState)

    def put_state(self, state: EngineState) -> None:
        """Of the daemon."""
        _write(self.state_file, state)

    def use(self) -> EngineUse | None:
        """What the engine says of itself, or said before it died."""
        return _read(self.path / "use.json", EngineUse)

    def put_use(self, use: EngineUse) -> None:
        """Of the engine."""
        _write(self.path / "use.json", use)


def engine_folders(workspace: Workspace) -> list[EngineFolder]:
    """All that the server has ever asked for."""
    try:
        return [EngineFolder(path) for path in sorted((workspace.private / "engines").iterdir()) if path.is_dir()]
    except OSError:
        return []


@dataclass(frozen=True, slots=True)
class LiveEngine:
    """One that has a process."""

    name: str
    state: EngineState
    use: EngineUse

    def idle_seconds(self, now: float) -> float:
        """0 while it answers, or loads."""
        return 0.0 if self.use.active or not self.use.used_at else max(0.0, now - self.use.used_at)


def live_engines(workspace: Workspace) -> list[LiveEngine]:
    """Those that have a process, by the locks on their logs."""
    live = []
    for folder in engine_folders(workspace):
        if folder.alive() and (use := folder.use()):
            state = folder.state()
            known = state is not None and state.pid == use.pid
            live.append(LiveEngine(folder.name, state if state and known else EngineState("runs", folder.name), use))
    return live


def ask_to_leave(workspace: Workspace) -> None:
    """Let all of them leave when they have written what they are writing."""
    for engine in live_engines(workspace):
        with contextlib.suppress(OSError):
            os.kill(engine.use.pid, signal.SIGTERM)


def _write(path: Path, record: Any) -> None:
    atomic_write(path, json.dumps(asdict(record)))


def _read(path: Path, kind: type[Record]) -> Record | None:
    try:
        fields: dict[str, Any] = json.loads(path.read_bytes())
        make: Any = kind
        return make(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
