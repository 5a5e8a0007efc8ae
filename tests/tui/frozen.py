"""The screen with clock and host name held still; it holds the daemon's lock too, so that one seems to run."""

import os
import sys
import time
from pathlib import Path

root = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(root))

if "FINETOP_NOW" in os.environ:
    time.time = lambda: float(os.environ["FINETOP_NOW"])

import platform  # noqa: E402

from engine.base.workspace import Workspace  # noqa: E402
from engine.daemon import daemon_client  # noqa: E402

platform.node = lambda: "a100-lab"
workspace = Workspace(Path(sys.argv[sys.argv.index("--workspace") + 1]))
if workspace.daemon_state.exists():
    lock = daemon_client.take_lock(workspace)
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"4242", 0)  # the pid that daemon.json names

from tui.__main__ import main  # noqa: E402

sys.exit(main())
