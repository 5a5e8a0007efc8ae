"""Answers that programs read: JSON, and the number a calculation ends in. Each score is 0 or 1."""

import json
import re
import unicodedata
from decimal import Decimal, InvalidOperation
from typing import Any

from engine.metrics.json_schema import allows
from engine.metrics.normalisation import is_minus

_NUMBER = re.compile(
    r"(?:\d{1,3}(?:[,'’_]\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+−]?\d{1,3}(?!\w))?"
    r"|(?<![\d.])\.\d+"  # not the end of 1.2.3 or 15.01.2024
)
_GROUPS = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
"""Spaces that do not part lines: where they stand between digits, they part thousands."""
_CURRENCY = "$€£¥₩₹"
_MARK = "####"
"""Before the final result in GSM8K's answers (Cobbe et al. 2021, arXiv 2110.14168)."""
_REFUSED = object()


def json_valid(answer: str) -> float:
    """1 when the whole answer is one JSON object or array: nothing around it, no NaN, no trailing comma."""
    return float(_read_json(answer) is not _REFUSED)


def json_schema(answer: str, schema: str) -> float:
    """1 when the answer is JSON that the JSON Schema in the text `schema` allows."""
    content = _read_json(answer)
    return float(content is not _REFUSED and allows(schema, content))


def _read_json(answer: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    try:
        content = json.loads(answer, parse_constant=refuse)
    except (ValueError, RecursionError):
        return _REFUSED
    return content if isinstance(content, dict | list) else _REFUSED


def final_number(text: str) -> Decimal | None:
    """The number after the last `####`, else the last number: `1,234`, `-0.5`, `１２`, `-$3.00`. None without one.

    What stands between two numbers, or between a word and a number, is a dash and no sign: `pages 3-7`, `2024-01-15`.
    """
    text = unicodedata.normalize("NFKC", _without_raised(_GROUPS.sub(",", text)))
    _, mark, behind_mark = text.rpartition(_MARK)
    if mark and (marked := _NUMBER.search(behind_mark)):
        number, text = marked, behind_mark
    elif numbers := list(_NUMBER.finditer(text)):
        number = numbers[-1]
    else:
        return None
    preceding = text[: number.start()]
    if preceding[-1:] and preceding[-1] in _CURRENCY:
        preceding = preceding[:-1]
    digits = re.sub("[,'’_]", "", number[0]).replace("−", "-")
    try:
        return Decimal("-" + digits if is_minus(preceding, len(preceding) - 1) else digits)
    except InvalidOperation:
        return None


def _without_raised(text: str) -> str:
    """Without raised and lowered digits, of which NFKC would make plain ones: 12 m² does not end in 2."""
    if text.isascii():
        return text
    return "".join(" " if unicodedata.decomposition(char).startswith(("<super>", "<sub>")) else char for char in text)


def number_match(answer: str, reference: str) -> float | None:
    """1 when both end in the same number. None when the reference holds none, so that nothing can be said."""
    expected = final_number(reference)
    return None if expected is None else float(final_number(answer) == expected)
