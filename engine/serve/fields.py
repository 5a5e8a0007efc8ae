"""The fields of a JSON body, each read once by the type and bounds the API has for it; none is passed over in silence.

What no route reads is an `unsupported_parameter`, unless it is known to change nothing here: then it is named in the
answer's header `x-finetop-ignored`.
"""

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from starlette.requests import Request

from engine.base.errors import is_utf8
from engine.serve.api_errors import ApiError, invalid, unsupported

MOST_BYTES = 32 * 2**20
_DEEPEST = 64
IGNORED_HEADER = "x-finetop-ignored"


async def read_body(request: Request, most: int = MOST_BYTES) -> bytes:
    """The body of a request, of at most so many bytes."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise ApiError(413, f"The body is larger than {most // 2**20} MiB.", code="request_too_large")
        chunks.append(chunk)
    return b"".join(chunks)


async def read_fields(request: Request, optional: bool = False) -> "Fields":
    """The JSON object that a request holds; with `optional`, none is an empty one."""
    raw = await read_body(request)
    if optional and not raw.strip():
        return Fields({})
    return Fields(parse_object(raw))


def parse_object(raw: bytes) -> dict[str, Any]:
    """A JSON object. Raises ApiError, also for one that is nested deeper than any request needs."""
    try:
        value = json.loads(raw, parse_constant=_no_constant)
    except RecursionError:
        raise ApiError(400, "The body is nested too deep.", code="invalid_json") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise ApiError(400, f"The body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "The body must be a JSON object.", code="invalid_json")
    _check_depth(value)
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _check_depth(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return
    raise ApiError(400, f"The body is nested deeper than {_DEEPEST} levels.", code="invalid_json")


class Fields:
    """An object of a request. `path`: where it stands in the body, for messages."""

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._values, self._path = values, path
        self._read: set[str] = set()
        self.ignored: list[str] = []

    def name(self, key: str) -> str:
        """The parameter as messages name it."""
        return f"{self._path}.{key}" if self._path else key

    def has(self, key: str) -> bool:
        """Whether it is there and not null; it counts as read."""
        return self.any(key) is not None

    def any(self, key: str) -> Any:
        """Whatever stands there; None: nothing, or null."""
        self._read.add(key)
        return self._values.get(key)

    def text(self, key: str, *, shortest: int = 0, longest: int = 2**20) -> str | None:
        value = self.any(key)
        if value is None:
            return None
        if not isinstance(value, str) or not is_utf8(value):
            raise invalid(self.name(key), f"'{self.name(key)}' must be a string.", "invalid_type")
        if not shortest <= len(value) <= longest:
            raise invalid(self.name(key), f"'{self.name(key)}' must have {shortest} to {longest} characters.")
        return value

    def required_text(self, key: str, longest: int = 2**20) -> str:
        value = self.text(key, shortest=1, longest=longest)
        if value is None:
            raise ApiError(
                400, f"'{self.name(key)}' is missing.", code="missing_required_parameter", param=self.name(key)
            )
        return value

    def choice(self, key: str, choices: Collection[str]) -> str | None:
        value = self.text(key)
        if value is not None and value not in choices:
            raise invalid(self.name(key), f"'{self.name(key)}' must be one of {', '.join(sorted(choices))}.")
        return value

    def integer(self, key: str, low: int, high: int) -> int | None:
        value = self.any(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid(self.name(key), f"'{self.name(key)}' must be an integer.", "invalid_type")
        if not low <= value <= high:
            raise invalid(self.name(key), f"'{self.name(key)}' must be between {low} and {high}.")
        return value

    def number(self, key: str, low: float, high: float) -> float | None:
        value = self.any(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid(self.name(key), f"'{self.name(key)}' must be a number.", "invalid_type")
        if (isinstance(value, int) and abs(value) > 2**53) or not math.isfinite(value) or not low <= value <= high:
            raise invalid(self.name(key), f"'{self.name(key)}' must be between {low:g} and {high:g}.")
        return float(value)

    def flag(self, key: str) -> bool | None:
        value = self.any(key)
        if value is not None and not isinstance(value, bool):
            raise invalid(self.name(key), f"'{self.name(key)}' must be true or false.", "invalid_type")
        return value

    def texts(self, key: str, most: int) -> list[str] | None:
        """One text or several."""
        value = self.any(key)
        if value is None:
            return None
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(text, str) and is_utf8(text) for text in values):
            raise invalid(self.name(key), f"'{self.name(key)}' must be a string or a list of strings.", "invalid_type")
        if len(values) > most:
            raise invalid(self.name(key), f"'{self.name(key)}' has {len(values)} entries; {most} are the most.")
        return values

    def listed(self, key: str, most: int) -> list[Any] | None:
        value = self.any(key)
        if value is not None and not isinstance(value, list):
            raise invalid(self.name(key), f"'{self.name(key)}' must be a list.", "invalid_type")
        if value is not None and len(value) > most:
            raise invalid(self.name(key), f"'{self.name(key)}' has {len(value)} entries; {most} are the most.")
        return value

    def object(self, key: str) -> "Fields | None":
        value = self.any(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise invalid(self.name(key), f"'{self.name(key)}' must be an object.", "invalid_type")
        return Fields(value, self.name(key))

    def without(self, *keys: str) -> "Fields":
        """The same object for a reader that knows these keys by another meaning; what it reads counts as read here."""
        view = Fields({key: value for key, value in self._values.items() if key not in keys}, self._path)
        view._read, view.ignored = self._read, self.ignored
        return view

    def metadata(self) -> dict[str, str] | None:
        """Up to 16 texts of 512 characters, by names of 64."""
        pairs = self.object("metadata")
        if pairs is None:
            return None
        values = pairs._values
        name = self.name("metadata")
        if len(values) > 16:
            raise invalid(name, f"'{name}' has {len(values)} pairs; 16 are the most.")
        for key, value in values.items():
            if not isinstance(value, str) or len(value) > 512 or len(key) > 64 or not is_utf8(key + value):
                raise invalid(name, f"'{name}' must map strings of up to 64 characters to strings of up to 512.")
        return dict(values)

    def items(self) -> list[tuple[str, Any]]:
        """All of them, which so count as read."""
        self._read |= set(self._values)
        return list(self._values.items())

    def ignore(self, *keys: str) -> None:
        """These change nothing here: the answer's header names those that are there."""
        for key in keys:
            if self.has(key):
                self.ignored.append(self.name(key))

    def finish(self) -> None:
        """Refuse what nobody has read."""
        unknown = sorted(key for key in self._values.keys() - self._read if self._values[key] is not None)
        if unknown:
            key = self.name(unknown[0])[:100]
            raise unsupported(key, f"Unsupported parameter: '{key}'.")

    @property
    def headers(self) -> dict[str, str]:
        """For the answer."""
        return {IGNORED_HEADER: ", ".join(self.ignored)} if self.ignored else {}
