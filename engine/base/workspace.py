"""The workspace: where runs.db, run folders, locks and logs live."""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from engine.base.errors import InputError
from engine.base.messages import msg

DATABASE = "runs.db"
CONFIG = "config.json"
META_KEY = "finetop"
"""The one top-level key of a saved config that is not a group of settings: version, origins."""
LOG = "log.txt"
CHECKPOINTS = "checkpoints"
PINNED = "pinned"
"""A file of this name in a checkpoint's folder keeps it, whatever the retention settings say."""
STATE = ".finetop"
"""Holds the daemon's lock, log and beat, and the trash."""
ENVIRONMENT = "FINETOP_WORKSPACE"
PACKAGE_ROOT = Path(__file__).resolve().parents[2]
"""Holds engine/, tui/ and presets/, in a checkout as in an installed environment."""


@dataclass(frozen=True)
class Workspace:
    root: Path

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def database(self) -> Path:
        return self.root / DATABASE

    @property
    def trash(self) -> Path:
        """Removed runs (`41`) and checkpoints (`41@600`), until they are purged."""
        return self.root / STATE / "trash"

    @property
    def private(self) -> Path:
        """What is finetop's own: the daemon's lock, log and figures, and the trash."""
        return self.root / STATE

    @property
    def daemon_lock(self) -> Path:
        return self.private / "daemon.lock"

    @property
    def daemon_log(self) -> Path:
        return self.private / "daemon.log"

    @property
    def daemon_state(self) -> Path:
        """What the daemon says of itself, rewritten every second."""
        return self.private / "daemon.json"

    @property
    def machine_state(self) -> Path:
        """What GPUs and host are doing, rewritten every second."""
        return self.private / "machine.json"

    def run_ids(self) -> list[int]:
        """The ids of all run folders, ascending."""
        return folder_ids(self.runs)

    def run_folder(self, run_id: int) -> Path:
        """The folder of an existing run. Raises InputError naming the runs there are."""
        folder = self.runs / str(run_id)
        if not folder.is_dir():
            ids = self.run_ids()
            newest = msg("the newest is {ids}", ids=ids[-1]) if ids else "there are none yet"
            raise InputError(
                msg("there is no run {run_id} in {root}; {newest}", run_id=run_id, root=self.root, newest=newest),
                "Runs of another folder: --workspace DIR.",
            )
        return folder

    def place(self, run_id: int, trashed: bool) -> Path:
        """Where a run's folder lies, if it is there: among the others, or in the trash."""
        return (self.trash if trashed else self.runs) / str(run_id)

    def new_run(self, beyond: int = 0) -> tuple[int, Path]:
        """A new run's id, larger than `beyond`, and empty folder. mkdir is atomic: two processes never get the same."""
        try:
            self.runs.mkdir(mode=0o700, parents=True, exist_ok=True)
            run_id = max([beyond, *self.run_ids(), *folder_ids(self.trash)])
            while True:
                run_id += 1
                folder = self.runs / str(run_id)
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
                    return run_id, folder
        except OSError as error:
            raise InputError(
                msg("no run can be made in {runs}: {strerror}", runs=self.runs, strerror=error.strerror),
                "Choose another folder with --workspace DIR.",
            ) from None


def folder_ids(folder: Path) -> list[int]:
    """The ids of the run folders in a folder, ascending."""
    try:
        return sorted(int(name) for name in os.listdir(folder) if _RUN_ID.fullmatch(name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def folder_bytes(folder: Path) -> int:
    """Of all files in a folder; one with several names counts once, links are not followed."""
    total, seen, folders = 0, set(), [str(folder)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if (status.st_dev, status.st_ino) not in seen:
                        seen.add((status.st_dev, status.st_ino))
                        total += status.st_size
    return total


def find_workspace(option: str | None = None) -> Workspace:
    """`option` (--workspace), else $FINETOP_WORKSPACE, else the nearest folder upward that holds runs.db, else here.

    A folder called runs/ alone is no sign: other programs make such folders too.
    """
    chosen = option or os.environ.get(ENVIRONMENT)
    if chosen and "\0" in chosen:
        raise InputError("the workspace's name holds a NUL character", "Give --workspace the path of a folder.")
    if chosen:
        root = Path(os.path.realpath(os.path.expanduser(chosen)))
        if os.path.exists(root) and not root.is_dir():
            raise InputError(msg("the workspace {root} is a file, not a folder", root=root))
        return Workspace(root)
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise InputError(
            "the folder you are in no longer exists", "Change to another, or give --workspace DIR."
        ) from None
    for folder in (here, *here.parents):
        if (folder / DATABASE).exists():
            return Workspace(folder)
    return Workspace(here)


def config_folder() -> Path:
    """Where the user's own files for finetop lie: presets, prices, settings of the screen."""
    return Path(os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config")) / "finetop"


LARGEST_INTEGER = 2**63 - 1
"""That SQLite holds; larger ones raise an OverflowError there."""
_RUN_ID = re.compile("[1-9][0-9]{0,17}")
_CHECKPOINT = re.compile("(?P<run>[1-9][0-9]{0,17})(@(?P<point>best|latest|[0-9]{1,18}|epoch-[0-9]{1,18}))?")


def parse_checkpoint_name(text: str) -> tuple[int, str]:
    """`41@best`, `41@1200`, `41@epoch-3`, or `41` for its latest: the run's id and the checkpoint's name in it."""
    match = _CHECKPOINT.fullmatch(text)
    if not match:
        raise InputError(
            msg("'{text}' names no checkpoint", text=text[:60]),
            "Name one as 41@best, 41@latest, 41@1200 (a step) or 41@epoch-3.",
        )
    return int(match["run"]), match["point"] or "latest"
