"""The screen's settings file, `~/.config/finetop/settings.toml`, and what the screen remembers by itself.

theme = "dark"          # auto, dark, light, ansi, mono
ascii = false
mouse = false

[keys]                  # docs/screen.md lists the names
"main.stop" = "ctrl+x"
"list.down" = ["j", "down", "ctrl+n"]
"""

import contextlib
import json
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.base.atomic_files import atomic_write
from engine.base.messages import msg
from engine.base.workspace import config_folder
from tui.render.theme import NAMES


@dataclass(frozen=True)
class Settings:
    """The user's settings of the screen."""

    theme: str = "auto"
    ascii: bool = False
    mouse: bool = False
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    """What in the file could not be used, in the user's words."""


def read(path: Path | None = None) -> Settings:
    """The settings; what is wrong in the file stands in `problems` and is skipped, so that the screen opens."""
    path = path or config_folder() / "settings.toml"
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return Settings(problems=(f"{path}: {reason}",))
    problems: list[str] = []
    settings: dict[str, Any] = {}
    for name, value in content.items():
        if (name == "theme" and value in NAMES) or (name in ("ascii", "mouse") and isinstance(value, bool)):
            settings[name] = value
        elif name == "keys" and isinstance(value, dict):
            settings[name] = _keys(value, problems)
        else:
            problems.append(f"{name} = {json.dumps(value, default=str)[:40]}")
    return Settings(
        **settings,
        problems=tuple(msg("{path}: cannot use {problem}", path=path, problem=problem) for problem in problems),
    )


def _keys(table: dict[str, Any], problems: list[str]) -> dict[str, tuple[str, ...]]:
    """`"main.stop" = "ctrl+x"`, or unquoted as a table in the table."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat |= {f"{name}.{verb}": keys for verb, keys in value.items()} if isinstance(value, dict) else {name: value}
    keys_of = {}
    for name, value in flat.items():
        keys = [value] if isinstance(value, str) else value
        if isinstance(keys, list) and all(isinstance(key, str) for key in keys):
            keys_of[name] = tuple(keys)
        else:
            problems.append(f"keys.{name}")
    return keys_of


class Memory:
    """What the screen remembers between two visits: sort, sizes. Losing it costs nothing."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or _state_file()
        self.values: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(self._path.read_text("utf-8"))
            self.values = content if isinstance(content, dict) else {}

    def save(self) -> None:
        """Write it; a disk that takes nothing is ignored."""
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self._path, json.dumps(self.values))


def _state_file() -> Path:
    base = os.path.expanduser(os.environ.get("XDG_STATE_HOME") or "~/.local/state")
    return Path(base) / "finetop" / "screen.json"
