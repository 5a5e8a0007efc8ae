"""Rows about a picture, a recording or a film: without it their text means nothing."""

import re
from collections.abc import Callable, Sequence

from engine.base.messages import msg
from engine.formats.columns import normalise
from engine.formats.row_errors import RowRejected, excerpt

_MEDIUM = re.compile(
    r"(image|img|picture|photo|audio|video|frame)s?(?:_(?:path|url|uri|file|name|id|byte|base64|b64|bytes)s?)?$"
)
_SURE = re.compile(r"(image|img|picture|audio|video)s?$")
_PLACEHOLDER = re.compile(r"<\|?/?(?:\w+_)?(image|img|audio|video)s?(?:_\w+)?\|?>", re.IGNORECASE)
_PLURAL = {"audio": "audio", "img": "images", "picture": "images", "photo": "images", "frame": "videos"}


def media_columns(columns: Sequence[str]) -> list[str]:
    return [column for column in columns if _MEDIUM.match(normalise(column))]


def media_guard(columns: Sequence[str]) -> Callable[[dict], None] | None:
    """Raises RowRejected for rows with something in `images` and the like; None where there are no such columns.

    A column that may only be a link beside the text (`image_url`) counts where the text has a place for the picture.
    """
    media = media_columns(columns)
    if not media:
        return None

    def guard(row: dict) -> None:
        for column in media:
            if row.get(column) in (None, "", [], {}):
                continue
            name = normalise(column)
            if _SURE.match(name) or _has_place(row):
                raise RowRejected("not-text", _words(column, name), {column: row[column]})

    return guard


def _words(column: str, name: str) -> str:
    match = _MEDIUM.match(name)
    medium = match[1] if match else name
    plural = _PLURAL.get(medium, f"{medium}s")
    return msg(
        "{plural} are not supported ('{column}'); where the text stands without, leave the column out",
        plural=plural,
        column=column,
    )


def refuse_media(item: dict, where: str) -> None:
    """RowRejected where a message carries pictures beside its text (Ollama's `images`)."""
    for key in media_columns([key for key in item if isinstance(key, str)]):
        if item[key] not in (None, "", [], {}) and _SURE.match(normalise(key)):
            raise RowRejected("not-text", _words(f"{where}.{key}", normalise(key)), {key: excerpt(item[key])})


def _has_place(row: dict) -> bool:
    try:
        return bool(_PLACEHOLDER.search(str(row)))
    except RecursionError:
        return False
