"""The daemon starts a server again that was left running in the background and has died."""

import logging
import subprocess
import time

from engine.base.workspace import Workspace
from engine.daemon import server_state

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 2.0, 300.0
log = logging.getLogger("daemon")


class ServerWatch:
    """Of one workspace. Asked once a second."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._process: subprocess.Popen[bytes] | None = None
        self._wait = _FIRST_WAIT_SECONDS
        self._next_start = 0.0

    def check(self) -> None:
        """Start it where it should run and does not; the longer it keeps dying, the less often."""
        options = server_state.kept(self._workspace)
        if options is None:
            return
        now = time.monotonic()
        if self._process is not None and self._process.poll() is None and now < self._next_start:
            return
        if server_state.status(self._workspace) is not None:
            if now > self._next_start + _LONGEST_WAIT_SECONDS:
                self._wait = _FIRST_WAIT_SECONDS
            return
        if now < self._next_start:
            return
        log.warning("the server has died and is started again")
        self._process = server_state.spawn(self._workspace, options)
        self._next_start = now + self._wait
        self._wait = min(2 * self._wait, _LONGEST_WAIT_SECONDS)
