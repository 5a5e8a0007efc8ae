"""`serve.toml` in the workspace: which local models stand for the names that programs ask for.

default = "Qwen/Qwen2.5-7B-Instruct"      # trained and asked where a name is not known

[aliases]
"gpt-4o-mini" = "41@best"
"ft:gpt-4o-mini:org::abc" = "ft:qwen2.5-7b:work:support:41"
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


@dataclass(frozen=True)
class ServeConfig:
    """Defaults where the file is not there."""

    default: str = ""
    """Folder or hub name of the base that unknown names mean; empty: the newest run's, else the one that ships."""
    aliases: Mapping[str, str] = field(default_factory=dict)


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
    if unknown := sorted(content.keys() - {"default", "aliases"}):
        raise InputError(
            msg("{path}: there is no setting '{name}'", path=path, name=unknown[0]), "It holds default and [aliases]."
        )
    default, aliases = content.get("default", ""), content.get("aliases", {})
    if not isinstance(default, str):
        raise InputError(msg("{path}: default must be a text", path=path))
    if not isinstance(aliases, dict) or not all(isinstance(target, str) for target in aliases.values()):
        raise InputError(msg("{path}: [aliases] must map names to names", path=path))
    return ServeConfig(default, aliases)
