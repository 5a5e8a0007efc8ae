"""What the settings under `eval.` need beside themselves, checked before anything is trained: schema and command."""

import os
from pathlib import Path

from engine.base.errors import InputError
from engine.metrics.json_schema import check_schema
from engine.metrics.scoring_command import check_command
from engine.settings.schema import EvalConfig

_LARGEST_SCHEMA = 4_000_000


def check_scores(config: EvalConfig) -> None:
    """Raises InputError for a schema or a command that cannot work."""
    read_schema(config)
    check_scoring_command(config)


def check_scoring_command(config: EvalConfig) -> None:
    """That the program of eval.command, if one is named, is there. Raises InputError."""
    if config.command:
        check_command(config.command, Path.cwd())


def read_schema(config: EvalConfig) -> str:
    """The text of eval.schema where json_schema is measured, else ''. Raises InputError where it cannot be used."""
    if "json_schema" not in config.metrics:
        return ""
    path = Path(config.schema).expanduser()
    try:
        if path.exists() and not path.is_file():
            raise ValueError("not a regular file")
        if path.exists() and os.path.getsize(path) > _LARGEST_SCHEMA:
            raise ValueError("too large for a JSON Schema")
        schema = path.read_text("utf-8-sig")
        check_schema(schema)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"eval.schema {config.schema}: {reason}", "Give a JSON Schema file.") from None
    return schema
