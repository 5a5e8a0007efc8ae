"""Giving a folder its process, a run's or an engine's: forked from the warm process where possible, else spawned.

The lock on the folder's log is taken before the process is made, which inherits it and holds it until its last process
is gone.
"""

import logging
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.base.worker_process import RUN, locked_log, spawn_worker
from engine.daemon.forkserver_client import ForkServer, ForkServerUnavailable

log = logging.getLogger("daemon")


def launch(
    fork_server: ForkServer,
    folder: Path,
    words: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path,
    *,
    module: str = RUN,
    command: Sequence[str] | None = None,
) -> tuple[int, subprocess.Popen | None]:
    """Its pid, and its process where it was spawned. `command` stands in for `python -m MODULE`.

    Raises InputError where the folder has a process already, OSError where none can be made.
    """
    if fork_server.state == "ready":
        with locked_log(folder) as held:
            try:
                return fork_server.start(module, [str(folder), *words], environment, cwd, held), None
            except ForkServerUnavailable as reason:
                log.warning("%s is spawned, not forked: %s", folder.name, reason)
    process = spawn_worker(folder, words, module=module, command=command, environment=environment)
    return process.pid, process
