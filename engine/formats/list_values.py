"""Values that are lists, as JSON or Python wrote them, and whether there is anything to read in a value."""

from typing import Any

from engine.base.messages import msg
from engine.formats.json_lines import parse
from engine.formats.row_errors import RowRejected, kind


def as_list(value: Any, column: str) -> list:
    """A list, also where it is written as JSON inside a text (in CSV cells)."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse(value)
        except ValueError as error:
            value = _python_list(value, column, error)
    if not isinstance(value, (list, tuple)):
        raise RowRejected(
            "wrong-type", msg("'{column}' is {kind}; it must be a list", column=column, kind=kind(value)), value
        )
    return list(value)


def _python_list(text: str, column: str, error: ValueError) -> list:
    """A list as Python writes it, which is what pandas puts into the cells of a CSV."""
    import ast
    import json
    import warnings

    try:
        with warnings.catch_warnings(action="ignore"):  # a backslash that escapes nothing stands for itself
            value = json.loads(json.dumps(ast.literal_eval(text.strip())))  # no sets, bytes or other things of Python
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        hint = " (NumPy's way of writing lists? save the table as Parquet or JSON lines)" if "'" in text[:40] else ""
        raise RowRejected(
            "bad-json",
            msg("'{column}' holds JSON that does not parse: {error}{hint}", column=column, error=error, hint=hint),
            text,
        ) from None
    if not isinstance(value, list):
        raise RowRejected(
            "bad-json", msg("'{column}' holds JSON that does not parse: {error}", column=column, error=error), text
        )
    return value


def holds_text(value: Any) -> bool:
    """Whether there is anything to read in a value: a text that is not blank, alone or somewhere inside."""
    if isinstance(value, str):
        return bool(value.strip())
    left = [value]  # no recursion: a value may be nested as deep as the parser could follow
    while left:
        inner = left.pop()
        if isinstance(inner, str):
            if inner.strip():
                return True
        elif isinstance(inner, dict):
            left.extend(inner.values())
        elif isinstance(inner, (list, tuple)):
            left.extend(inner)
    return False
