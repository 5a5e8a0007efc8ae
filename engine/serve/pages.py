"""Lists by pages, as OpenAI's clients turn them: the next page is asked for after the last id of the one before."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.serve.api_errors import invalid

_MOST_DIGITS = 9
"""Python refuses to read thousands of them, zeros too."""


def page(
    request: Request,
    entries: Sequence[dict[str, Any]],
    *,
    default: int,
    most: int,
    ends: bool = False,
    ordered: bool = False,
) -> Response:
    """The part of `entries` that `cut` gives, as a list of the API. `ends`: it names its first and last id."""
    shown, has_more = cut(request, entries, default=default, most=most, ordered=ordered)
    body: dict[str, Any] = {"object": "list", "data": shown, "has_more": has_more}
    if ends:
        body |= {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return JSONResponse(body)


def cut(
    request: Request, entries: Sequence[dict[str, Any]], *, default: int, most: int, ordered: bool = False
) -> tuple[list[dict[str, Any]], bool]:
    """The part of `entries`, newest first, that the query's `after` and `limit` name, and with `ordered` its `order`;
    and whether more follow. After an id that is not there nothing follows."""
    query = request.query_params
    limit = default
    if limit_text := query.get("limit"):
        if not limit_text.isdecimal() or len(limit_text) > _MOST_DIGITS or int(limit_text) > most:
            raise invalid("limit", f"'limit' must be between 0 and {most}.")
        limit = int(limit_text)
    listed = list(entries)
    if ordered and (order := query.get("order")):
        if order not in ("asc", "desc"):
            raise invalid("order", "'order' must be asc or desc.")
        listed = listed[::-1] if order == "asc" else listed
    if after := query.get("after"):
        at = next((number for number, entry in enumerate(listed) if entry["id"] == after), len(listed))
        listed = listed[at + 1 :]
    return listed[:limit], len(listed) > limit
