"""The processes that hold models, one for each base, and asking them.

An engine listens on a Unix socket in a folder that nobody else may enter. It is started at the first request for its
base; when it dies, what it was answering ends with an error and the next request starts it anew.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from engine.base.worker_process import how_it_left, worker_command, worker_environment
from engine.base.workspace import Workspace
from engine.runs.model_refs import ModelRef
from engine.serve.api_errors import ApiError

RETRY_SECONDS = 2
_LONGEST_LINE = 64 * 2**20
_FAST_DEATHS, _FAST_SECONDS = 3, 60.0
"""An engine that dies so often in so short a time is left alone for as long."""


class Engines:
    """Of one server."""

    def __init__(self, workspace: Workspace) -> None:
        self._folder = workspace.private / "engines"
        self._engines: dict[str, _Engine] = {}

    async def ask(self, ref: ModelRef, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The engine's lines on this request, without `done`. Raises ApiError for `error`, and where it dies. Closing
        the generator cancels the request."""
        engine = self._engine(ref)
        reader, writer = await engine.connect()
        try:
            writer.write(json.dumps({"model": ref.to_json(), **request}).encode() + b"\n")
            while line := await reader.readline():
                event = json.loads(line)
                if event["kind"] == "done":
                    return
                if event["kind"] == "error":
                    raise _refusal(event)
                yield event
            raise engine.died()
        except (ConnectionError, asyncio.IncompleteReadError):
            raise engine.died() from None
        finally:
            writer.close()

    def stop(self) -> None:
        """End all of them."""
        for engine in self._engines.values():
            engine.stop()

    def pids(self) -> list[int]:
        """Of those that live."""
        return [engine.process.pid for engine in self._engines.values() if engine.lives]

    def _engine(self, ref: ModelRef) -> "_Engine":
        config = ref.config
        same = (ref.base, config.model.revision, config.method.kind == "qlora", config.model.dtype)
        key = hashlib.sha256(repr(same).encode()).hexdigest()[:16]
        engine = self._engines.get(key)
        if engine is None:
            engine = self._engines[key] = _Engine(self._folder, key)
        return engine


def _refusal(event: dict[str, Any]) -> ApiError:
    status = event["status"]
    headers = {"retry-after": str(RETRY_SECONDS)} if status == 503 else {}
    return ApiError(status, event["message"], code=event["code"], param=event["param"], headers=headers)


class _Engine:
    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._path = folder, folder / f"{key}.sock"
        self._folder_descriptor = -1
        self._deaths: list[float] = []
        self.process: subprocess.Popen[bytes] = None  # type: ignore[assignment]

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def _address(self) -> str:
        """Short, however deep the workspace lies: a socket's path may have 107 bytes."""
        return f"/proc/self/fd/{self._folder_descriptor}/{self._path.name}"

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not self.lives:
            self._start()
        try:
            return await asyncio.open_unix_connection(self._address, limit=_LONGEST_LINE)
        except OSError:
            raise self.died() from None

    def _start(self) -> None:
        if self.process is not None and self.process.poll() != 0:  # 0: it had been idle
            self._deaths = [*self._deaths, time.monotonic()][-_FAST_DEATHS:]
            if len(self._deaths) == _FAST_DEATHS and time.monotonic() - self._deaths[0] < _FAST_SECONDS:
                wait = _FAST_SECONDS - (time.monotonic() - self._deaths[0])
                raise self.died(wait)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(self._folder, 0o700)
        if self._folder_descriptor < 0:
            self._folder_descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        log = open(self._path.with_suffix(".log"), "ab", opener=_private)  # noqa: SIM115, closed below
        with listening, log:
            listening.bind(self._address)
            os.chmod(self._path, 0o600)
            listening.listen(256)
            self.process = subprocess.Popen(
                worker_command(str(listening.fileno()), module="engine.worker.answer"),
                stdin=subprocess.PIPE,  # its end is ours
                stdout=log,
                stderr=log,
                pass_fds=(listening.fileno(),),
                env=worker_environment(),
                start_new_session=True,
            )

    def died(self, wait: float = RETRY_SECONDS) -> ApiError:
        """Of a request that it can no longer answer."""
        code = self.process.poll() if self.process is not None else None
        how = f" It {how_it_left(code)}." if code is not None else ""
        hint = " The largest process is killed when memory runs out." if code == -signal.SIGKILL else ""
        log = self._path.with_suffix(".log")
        message = f"The model's process is gone and is started again at the next request.{how}{hint} Log: {log}"
        return ApiError(503, message, code="engine_unavailable", headers={"retry-after": f"{max(1, round(wait))}"})

    def stop(self) -> None:
        if self.lives:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2)
            self.process.kill()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
