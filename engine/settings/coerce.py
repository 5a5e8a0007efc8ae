"""Values as people write them, into the types that the settings have; what is wrong, in a user's words."""

import json
import math
import types
import typing
from typing import Any, Literal

from engine.base.errors import InputError, is_utf8
from engine.base.messages import msg
from engine.settings.schema import PATHS, Setting


def parse_set(text: str) -> tuple[str, Any]:
    """`key=value` from `--set`: the value is JSON where it parses as such, else the text itself."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise InputError(msg("--set {text}: expected key=value, such as --set lora.r=8", text=quoted_name(text)))
    return path.strip(), parse_value(value.strip())


def parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def check_text(value: Any, path: str) -> None:
    """Text that no file, tokenizer or terminal can take is refused here; file names may hold any byte but NUL."""
    texts = [value]
    if isinstance(value, list | dict):
        texts = [*value, *(value.values() if isinstance(value, dict) else ())]
    for text in texts:
        if isinstance(text, str) and "\0" in text:
            raise ValueError("holds a NUL character")
        if isinstance(text, str) and path not in PATHS and not is_utf8(text):
            raise ValueError("is not UTF-8 text")


def coerce(value: Any, expected: Any) -> Any:
    """`value` as the type `expected`, or ValueError that says what is expected. Numbers never pass for booleans."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is Literal:
        if value in arguments and not isinstance(value, bool):
            return value
        raise ValueError(f"must be one of {', '.join(map(str, arguments))}")
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return coerce(value, option)
            except ValueError:
                continue
        raise ValueError("must be " + " or ".join(map(describe_type, arguments)))
    if origin is list:
        items = value.split(",") if isinstance(value, str) and value else value
        if not isinstance(items, list | tuple):
            if items == "":
                return []
            items = [items]
        try:
            return [coerce(item.strip() if isinstance(item, str) else item, arguments[0]) for item in items]
        except ValueError:
            raise ValueError(f"must be {describe_type(expected)}") from None
    if origin is dict:
        if isinstance(value, str):
            pairs = [part.partition("=") for part in value.split(",") if part]
            if not all(key.strip() and column for key, _, column in pairs):
                raise ValueError(f"must be {describe_type(expected)}")
            value = {key.strip(): column for key, _, column in pairs}
        if isinstance(value, dict) and all(isinstance(item, str) for item in [*value, *value.values()]):
            return value
        raise ValueError(f"must be {describe_type(expected)}")
    if expected is bool and isinstance(value, str) and value.lower() in ("true", "yes", "on", "false", "no", "off"):
        return value.lower() in ("true", "yes", "on")
    if expected is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return float(value)
    if expected is float and isinstance(value, str):  # TOML and shells like 1e-4, JSON does not always
        try:
            value = float(value)
        except ValueError:
            raise ValueError("must be a number") from None
    if expected is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if expected is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if type(value) is not expected or (expected is float and not math.isfinite(value)):
        raise ValueError(f"must be {describe_type(expected)}")
    return value


_LARGEST_COUNT = 2**31 - 1


def check_bounds(value: Any, setting: Setting) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if setting.at_least is not None and value < setting.at_least:
        raise ValueError(f"must be at least {setting.at_least:g}")
    if setting.at_most is not None and value > setting.at_most:
        raise ValueError(f"must be at most {setting.at_most:g}")
    # Bytes are counted from whole numbers, and SQLite holds 63 bits of them; a seed counts nothing.
    counts = isinstance(value, int) and not setting.path.endswith(".seed")
    if abs(value) > (_LARGEST_COUNT if counts else 2**62):
        raise ValueError("is larger than any machine can take")


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def describe_type(expected: Any) -> str:
    if expected in _WORDS:
        return _WORDS[expected]
    if typing.get_origin(expected) is Literal:
        return " or ".join(f"'{item}'" for item in typing.get_args(expected))
    if typing.get_origin(expected) is dict:
        return "pairs of texts, such as prompt=ask"
    (item,) = typing.get_args(expected)
    return "a list of " + ({str: "texts", float: "numbers"}.get(item) or describe_type(item))


def kind_of_value(value: Any) -> str:
    kinds = {list: "list", str: "text", int: "number", float: "number", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), type(value).__name__)


def as_text(value: Any) -> str:
    try:
        shown = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        shown = "a value nested too deep or too large to show"
    shown = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in shown[:61])
    return shown if len(shown) <= 60 else shown[:59] + "…"


def quoted_name(name: str) -> str:
    """A name from a file as it may be shown: in quotes, cut short, nothing in it for the terminal to obey."""
    shown = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in name[:60])
    return f"'{shown}{'…' if len(name) > 60 else ''}'"
