"""Settings files, TOML or JSON, read into values by path."""

import json
from pathlib import Path
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.workspace import META_KEY
from engine.settings.coerce import kind_of_value, quoted_name
from engine.settings.schema import SETTINGS

_MAX_CONFIG_BYTES = 4_000_000
"""No config is this large; a data file given by mistake often is."""


def read_config_file(path: Path) -> dict[str, Any]:
    """The settings of a JSON or TOML file by path. Raises InputError naming file and line when it cannot be read."""
    return by_path(read_groups(path), path)


def read_groups(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content_bytes = file.read(_MAX_CONFIG_BYTES + 1)
        raw = content_bytes.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            msg("{path}: not UTF-8 text (byte {start})", path=path, start=error.start), "Save the file as UTF-8."
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: {reason}", "Give --config the path of a JSON or TOML file.") from None
    if len(content_bytes) > _MAX_CONFIG_BYTES:
        raise InputError(msg("{path}: too large for a file of settings", path=path), _NOT_DATA)
    if not raw.strip():
        raise InputError(
            msg("{path}: the file is empty", path=path),
            "A config holds groups of settings, such as [train] epochs = 3.",
        )
    if path.suffix.lower() in (".yaml", ".yml") and not raw.lstrip().startswith("{"):
        raise InputError(
            msg("{path}: YAML, which finetop does not read as settings", path=path), _NOT_YAML.format(path=path)
        )
    is_json = path.suffix != ".toml" and (path.suffix == ".json" or raw.lstrip().startswith("{"))
    try:
        content = json.loads(raw, object_pairs_hook=_no_key_twice) if is_json else parse_toml(raw)
    except json.JSONDecodeError as error:
        # A second value after the first is what a data file of one JSON object a line looks like.
        hint = _NOT_DATA if error.msg == "Extra data" else ""
        raise InputError(
            msg(
                "{path}:{line}: not JSON: {reason} (column {column})",
                path=path,
                line=error.lineno,
                reason=error.msg,
                column=error.colno,
            ),
            hint,
        ) from None
    except RecursionError:
        raise InputError(msg("{path}: values are nested too deep", path=path)) from None
    except ValueError as error:
        hint = _NOT_DATA if path.suffix in (".jsonl", ".ndjson", ".csv", ".tsv", ".txt") else ""
        raise InputError(
            msg("{path}: not {form}: {error}", path=path, form="JSON" if is_json else "TOML", error=error), hint
        ) from None
    if not isinstance(content, dict):
        raise InputError(
            msg(
                "{path}: a config holds groups of settings, such as [train], not a {kind}",
                path=path,
                kind=kind_of_value(content),
            ),
            _NOT_DATA,
        )
    return content


def by_path(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Settings by path from the groups of the file `path`. Raises InputError where one stands in it twice."""
    flat: dict[str, Any] = {}
    for group, values in content.items():
        if group == META_KEY:
            continue
        named = {f"{group}.{name}": value for name, value in values.items()} if isinstance(values, dict) else {}
        if group in SETTINGS or not isinstance(values, dict):
            named = {group: values}
        if twice := sorted(named.keys() & flat.keys()):
            raise InputError(msg("{path}: {setting} stands in it twice", path=path, setting=quoted_name(twice[0])))
        flat |= named
    return flat


_NOT_YAML = (
    "Write it as TOML, [train] and below it epochs = 3, or turn it into JSON: python -c 'import json, yaml; "
    'print(json.dumps(yaml.safe_load(open("{path}"))))\' > config.json'
)


_NOT_DATA = "Settings are read with --config; a data file is given with --data-file."


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{quoted_name(next(name for name in names if names.count(name) > 1))} stands in it twice")
    return made


def parse_toml(raw: str) -> dict[str, Any]:
    import tomllib  # 10 ms, which --help need not pay

    return tomllib.loads(raw.replace("\r\n", "\n"))
