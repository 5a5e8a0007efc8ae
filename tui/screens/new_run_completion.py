"""How a text that is typed into a field may go on: words a setting may be, names, files."""

import os
from collections.abc import Sequence

from engine.settings.schema import PATHS
from tui.screens.new_run_form import choices

_FOLDERS = ("model.name", "model.checkpoint")
"""Settings whose paths are those of folders."""


def complete(path: str, text: str, offered: Sequence[str] = ()) -> tuple[str, list[str]]:
    """The text completed as far as it is certain, and what it may go on with. Reads folders: not for the event loop.

    `offered` are names that need not be files here: models. Where none begins with the text, those count whose last
    part does.
    """
    separator = max(text.rfind(","), text.rfind("|")) + 1
    typed, last = text[:separator], text[separator:].lstrip()
    names = [name for name in (*choices(path), *offered) if name.startswith(last)]
    names += _files(last, only_folders=path in _FOLDERS) if path in PATHS else []
    if not names:
        names = [name for name in offered if os.path.basename(name).startswith(last)]
        return (typed + names[0], names) if len(names) == 1 else (text, names)
    names = list(dict.fromkeys(names))
    return typed + os.path.commonprefix(names), names


def _files(text: str, only_folders: bool = False) -> list[str]:
    """Paths that begin so; folders end in a slash."""
    folder, _, start = text.rpartition("/")
    where = os.path.expanduser(folder) if folder else ("/" if text.startswith("/") else ".")
    try:
        with os.scandir(where) as listing:
            entries = sorted(
                (entry.name, entry.is_dir())
                for entry in listing
                if entry.name.startswith(start)
                and (start or not entry.name.startswith("."))
                and (entry.is_dir() or not only_folders)
            )
    except OSError:
        return []
    head = f"{folder}/" if folder or text.startswith("/") else ""
    return [f"{head}{name}{'/' if is_folder else ''}" for name, is_folder in entries[:500]]
