"""The daemon's side of the warm process (engine/worker/forkserver.py): start it, ask it for workers, learn how they
ended.

It is only ever a way to start sooner. Whenever it is not there, does not answer, or says that a fork would not be safe,
runs are spawned, and `state` says why.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from engine.base.messages import msg
from engine.base.units import duration
from engine.base.worker_process import worker_command, worker_environment

_MESSAGE_BYTES = 1 << 17
_ANSWER_SECONDS = 5.0
"""A fork takes milliseconds; on a machine that swaps, a second."""
NO_THREADS = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "TORCH_WARM_POOL": "0",
}
"""Keeps OpenBLAS (numpy, scipy), Arrow's allocator and inductor's pool of compilers (where Triton is installed) from
starting a thread when they are imported: a fork has none of them. transformers imports the first two by way of
scikit-learn, where that is installed."""
_MOST_STARTS = 5
"""A warm process that has died so often (the OOM killer, a broken library) is not started again."""


class ForkServerUnavailable(Exception):
    """Why no worker was forked; it can be spawned instead."""


class ForkServer:
    """At most one warm process, started when needed and again when it has died."""

    def __init__(self, off: str = "") -> None:
        self._off = off or _unsupported()
        self._process: subprocess.Popen | None = None
        self._channel: socket.socket | None = None
        self._ready = False
        self._began = 0.0
        self._deaths = 0
        self._leaving = False
        self.ended: dict[int, int] = {}
        """Workers it has seen end: pid to wait status. Whoever reads one takes it out."""
        self.news: list[str] = []
        """What happened to it, in words, for the log. Whoever reads them clears the list."""

    @property
    def state(self) -> str:
        """'ready', 'loading', 'idle' (not wanted now) or 'off: <reason>'."""
        if self._off:
            return f"off: {self._off}"
        if self._channel is None:
            return "idle"
        return "ready" if self._ready else "loading"

    def loading_seconds(self) -> float:
        """How long it has been loading; 0 when it is not."""
        return time.monotonic() - self._began if self.state == "loading" else 0.0

    def ensure_started(self) -> None:
        """Load it in the background unless it is there."""
        if self._off or self._process:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = worker_environment() | NO_THREADS
        try:
            with theirs:
                self._process = subprocess.Popen(
                    worker_command(str(theirs.fileno()), module="engine.worker.forkserver"),
                    stdin=subprocess.DEVNULL,
                    env=environment,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            self._turn_off(msg("it cannot be started: {strerror}", strerror=error.strerror))
            return
        ours.setblocking(False)
        self._channel, self._ready, self._began, self._leaving = ours, False, time.monotonic(), False

    def leave(self) -> None:
        """Let it go; its workers go on, and their ends are the daemon's to wait for."""
        if self._channel:
            self._leaving = True
            self._hang_up()

    def fileno(self) -> int:
        """To wait for its news; -1 when there is none to come."""
        return self._channel.fileno() if self._channel else -1

    def reaped(self, pid: int, status: int) -> bool:
        """Record its own death, reported by whoever reaps the daemon's children. True if it was it."""
        if not self._process or pid != self._process.pid:
            return False
        self._process.returncode = status
        self.listen()
        self._hang_up()
        self._process = None
        if not self._leaving and not self._off:
            self._deaths += 1
            self.news.append(msg("the warm process has died (wait status {status})", status=status))
            if self._deaths >= _MOST_STARTS:
                self._turn_off(msg("it has died {deaths:,} times", deaths=self._deaths))
        return True

    def listen(self) -> None:
        """Read its messages since."""
        for message in self._messages():
            self._handle(message)

    def start(self, module: str, words: Sequence[str], environment: Mapping[str, str], cwd: Path, log: BinaryIO) -> int:
        """Fork a worker with its folder's locked log; its pid. `words`: the folder first, as `python -m MODULE` takes
        them. Raises ForkServerUnavailable."""
        channel = self._channel
        if channel is None or self.state != "ready":
            raise ForkServerUnavailable(self.state)
        request = {"module": module, "words": list(words), "environment": dict(environment), "cwd": str(cwd)}
        try:
            socket.send_fds(channel, [json.dumps(request).encode()], [log.fileno()])
        except OSError as error:
            raise ForkServerUnavailable(msg("it cannot be asked: {strerror}", strerror=error.strerror)) from None
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline:
            with selectors.DefaultSelector() as selector:
                selector.register(channel, selectors.EVENT_READ)
                selector.select(0.1)
            for message in self._messages():
                if "pid" in message:
                    return message["pid"]
                if "error" in message:
                    raise ForkServerUnavailable(message["error"])
                self._handle(message)
            if self._channel is None:
                raise ForkServerUnavailable("it has died")
        self._kill()
        raise ForkServerUnavailable(msg("it has not answered for {silence}", silence=duration(_ANSWER_SECONDS)))

    def _handle(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self._ready = True
            self.news.append(msg("the warm process is ready after {duration}", duration=duration(message["ready"])))
        elif "off" in message:
            self._turn_off(message["off"])
        elif "exited" in message:
            self.ended[message["exited"]] = message["status"]

    def _messages(self) -> list[dict[str, Any]]:
        messages = []
        while self._channel:
            try:
                data = self._channel.recv(_MESSAGE_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._hang_up()
                break
            messages.append(json.loads(data))
        return messages

    def _hang_up(self) -> None:
        if self._channel:
            self._channel.close()
        self._channel, self._ready = None, False

    def _turn_off(self, reason: str) -> None:
        self._off = reason
        self.news.append(msg("runs are spawned, not forked: {reason}", reason=reason))

    def _kill(self) -> None:
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)


def _unsupported() -> str:
    """Why this system cannot fork safely; empty if it can."""
    if not sys.platform.startswith("linux"):
        return "libraries of this system do not survive a fork"
    if not hasattr(os, "pidfd_open"):
        return "this Python cannot wait for a process by descriptor"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return "this kernel cannot wait for a process by descriptor (Linux 5.3 can)"
    return ""
