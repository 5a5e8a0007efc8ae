"""`serve.toml` in the workspace: which local models stand for the names that programs ask for, and what is kept.

default = "Qwen/Qwen2.5-7B-Instruct"      # trained and asked where a name is not known

[aliases]
"gpt-4o-mini" = "41@best"
"ft:gpt-4o-mini:org::abc" = "ft:qwen2.5-7b:work:support:41"

[serve]
store = "asked"      # chat completions are kept where the request asks for it; "always": but where it says no
keep_days = 30       # and deleted so many days later; 0: kept
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import Workspace

NAME = "serve.toml"
_MOST_DAYS = 36525


@dataclass(frozen=True)
class ServeConfig:
    """Defaults where the file is not there."""

    default: str = ""
    """Folder or hub name of the base that unknown names mean; empty: the newest run's, else the one that ships."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    store: str = "asked"
    """Which chat completions are kept: those of requests that ask for it, or 'always', but where a request says no."""
    keep_days: float = 30.0
    """How long they are; 0: until they are deleted."""


def read_serve_config(workspace: Workspace) -> ServeConfig:
    """Raises InputError for what the file may not hold."""
    path = workspace.root / NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return ServeConfig()
    except OSError as error:
        raise InputError(msg("{path} cannot be read: {error}", path=path, error=error.strerror)) from None
    try:
        content = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(msg("{path} is not TOML: {error}", path=path, error=error)) from None
    return _checked(path, content)


def _checked(path: Path, content: dict[str, Any]) -> ServeConfig:
    _refuse_unknown(path, content, "", ("default", "aliases", "serve"))
    default, aliases, serve = content.get("default", ""), content.get("aliases", {}), content.get("serve", {})
    if not isinstance(default, str):
        raise InputError(msg("{path}: default must be a text", path=path))
    if not isinstance(aliases, dict) or not all(isinstance(target, str) for target in aliases.values()):
        raise InputError(msg("{path}: [aliases] must map names to names", path=path))
    if not isinstance(serve, dict):
        raise InputError(msg("{path}: serve must be a table", path=path), "Write [serve] and under it keep_days = 30.")
    _refuse_unknown(path, serve, "serve.", ("store", "keep_days"))
    store, keep_days = serve.get("store", ServeConfig.store), serve.get("keep_days", ServeConfig.keep_days)
    if store not in ("asked", "always"):
        raise InputError(msg("{path}: serve.store is {store!r}, not 'asked' or 'always'", path=path, store=store))
    if isinstance(keep_days, bool) or not isinstance(keep_days, int | float) or not 0 <= keep_days <= _MOST_DAYS:
        raise InputError(
            msg("{path}: serve.keep_days is {days!r}, not a number of days", path=path, days=keep_days),
            "0 keeps them until they are deleted.",
        )
    return ServeConfig(default, aliases, store, float(keep_days))


def _refuse_unknown(path: Path, table: dict[str, Any], group: str, names: tuple[str, ...]) -> None:
    if unknown := sorted(table.keys() - set(names)):
        raise InputError(
            msg("{path}: there is no setting '{name}'", path=path, name=group + unknown[0]),
            msg("There are {names}.", names=", ".join(group + name for name in names)),
        )
