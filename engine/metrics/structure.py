"""Answers that programs read: JSON, and the number a calculation ends in. Each score is 0 or 1."""

import functools
import json
import re
import unicodedata
from decimal import Decimal, InvalidOperation
from typing import Any

_NUMBER = re.compile(r"[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\w))?|[-−]?\.\d+")
_MARK = "####"
"""Before the final result in GSM8K's answers (Cobbe et al. 2021, arXiv 2110.14168)."""
_REFUSED = object()


def json_valid(answer: str) -> float:
    """1 when the whole answer is one JSON object or array: nothing around it, no NaN, no trailing comma."""
    return float(_read_json(answer) is not _REFUSED)


def json_schema(answer: str, schema: str) -> float:
    """1 when the answer is JSON that the JSON Schema in the text `schema` allows."""
    content = _read_json(answer)
    return float(content is not _REFUSED and _validator(schema).is_valid(content))


def check_schema(schema: str) -> None:
    """ValueError when the text is no JSON Schema."""
    from jsonschema.exceptions import SchemaError

    try:
        _validator(schema)
    except SchemaError as error:
        raise ValueError(f"no JSON Schema: {error.message}") from None


@functools.lru_cache(8)
def _validator(schema: str) -> Any:
    from jsonschema.validators import validator_for  # 50 ms, wanted only where there is a schema

    content = json.loads(schema)
    kind = validator_for(content)
    kind.check_schema(content)
    return kind(content)


def _read_json(answer: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    try:
        content = json.loads(answer, parse_constant=refuse)
    except (ValueError, RecursionError):
        return _REFUSED
    return content if isinstance(content, dict | list) else _REFUSED


def final_number(text: str) -> Decimal | None:
    """The number after the last `####`, else the last number: `1,234`, `-0.5`, `１２`, `$3.00`. None without one."""
    text = unicodedata.normalize("NFKC", text)
    _, mark, after = text.rpartition(_MARK)
    marked = _NUMBER.search(after) if mark else None
    found = [marked[0]] if marked else _NUMBER.findall(text)
    try:
        return Decimal(found[-1].replace(",", "").replace("−", "-")) if found else None
    except InvalidOperation:
        return None


def number_match(answer: str, reference: str) -> float | None:
    """1 when both end in the same number. None when the reference holds none, so that nothing can be said."""
    wanted = final_number(reference)
    return None if wanted is None else float(final_number(answer) == wanted)
