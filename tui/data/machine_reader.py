"""The machine as the screen measures it, where no daemon does: somebody may open it to see the GPUs.

A driver may hang, so a helper process asks it (`python -m tui.data.machine_reader WORKSPACE`): a line of JSON a second,
as `finetop top --json` has it. Where there are no GPUs it tells what the machine has and ends: what nobody looks at
again must not look like a figure of now.
"""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.base.workspace import Workspace
from engine.monitor.samples import Snapshot, as_plain
from tui.data.helper_process import HelperProcess
from tui.data.snapshot import machine_of

_PERIOD_SECONDS = 1.0
_FIRST_SECONDS = 5.0
"""How long the first look may take; after that it is told what does not answer."""


class MachineReader:
    """Measures from the first time that `latest` is asked until `stop`. For one thread."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._helper: HelperProcess | None = None
        self._content: Mapping[str, Any] | None = None

    def latest(self, now: float) -> Snapshot | None:
        """What was read last; None before that."""
        if self._helper is None:
            self._helper = HelperProcess()
            threading.Thread(target=self._read, args=(self._helper,), name="machine", daemon=True).start()
        content = self._content
        return None if content is None else machine_of(content, now)

    def stop(self) -> None:
        """Measure no more: a daemon does, or the screen is closed."""
        helper, self._helper, self._content = self._helper, None, None
        if helper is not None:
            helper.close()

    def _read(self, helper: HelperProcess) -> None:
        with contextlib.suppress(OSError):
            for line in helper.lines([sys.executable, "-m", "tui.data.machine_reader", str(self._workspace.root)]):
                content = json.loads(line)
                if helper is self._helper:
                    self._content = content


def main() -> int:
    """The helper process. It ends with the screen: nobody takes its next line then."""
    from engine.monitor.monitor import Monitor
    from engine.store.live_runs import live_runs

    workspace = Workspace(Path(sys.argv[1]))
    monitor = Monitor(workspace.root, period=_PERIOD_SECONDS)
    monitor.watch(live_runs(workspace))
    monitor.start()
    has_answered = monitor.wait(1, _FIRST_SECONDS)
    while True:
        machine = monitor.latest()
        if has_answered and not machine.gpus:
            print(json.dumps(as_plain(lasting(machine))), flush=True)
            return 0
        print(json.dumps(as_plain(machine)), flush=True)
        time.sleep(_PERIOD_SECONDS)
        monitor.watch(live_runs(workspace))
        has_answered = monitor.wait(1, 0.0)


def lasting(machine: Snapshot) -> Snapshot:
    """What of a machine without GPUs is still so in an hour."""
    host = machine.host and replace(
        machine.host,
        age_seconds=None,
        cpu_percent=None,
        load_1min=None,
        memory_used_bytes=None,
        memory_free_bytes=None,
        memory_limit_used_bytes=None,
        swap_used_bytes=None,
    )
    return replace(machine, host=host, disk=None, runs={})


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        sys.exit(main())
