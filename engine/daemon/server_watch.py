"""The daemon starts a server again that was left running in the background and has died."""

import logging
import subprocess

from engine.base.workspace import Workspace
from engine.daemon import server_state
from engine.daemon.backoff import Backoff

log = logging.getLogger("daemon")


class ServerWatch:
    """Of one workspace. Asked once a second."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._process: subprocess.Popen[bytes] | None = None
        self._backoff = Backoff()

    def check(self) -> bool:
        """Start it where it should run and does not, the longer it keeps dying the less often; whether there is one, or
        is to be one."""
        options = server_state.kept(self._workspace)
        if server_state.status(self._workspace) is not None:
            if self._backoff.settled():
                self._backoff.went_well()
            return True
        if options is None:
            return False
        if not self._backoff.seconds_left():
            log.warning("the server has died and is started again")
            self._process = server_state.spawn(self._workspace, options)
            self._backoff.failed()
        return True
