"""Lists by pages, as OpenAI's clients turn them: the next page is asked for after the last id of the one before."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.serve.api_errors import invalid


def page(
    request: Request,
    entries: Sequence[dict[str, Any]],
    *,
    default: int,
    most: int,
    ends: bool = False,
    ordered: bool = False,
) -> Response:
    """The part of `entries`, newest first, that the query's `after` and `limit` name, and with `ordered` its `order`.

    `ends`: the list names its first and last id. After an id that is not there nothing follows.
    """
    query = request.query_params
    limit = default
    if (limit_text := query.get("limit")) not in (None, ""):
        if not str(limit_text).isdecimal() or int(str(limit_text)[:9]) > most:
            raise invalid("limit", f"'limit' must be between 0 and {most}.")
        limit = int(str(limit_text))
    listed = list(entries)
    if ordered and (order := query.get("order")):
        if order not in ("asc", "desc"):
            raise invalid("order", "'order' must be asc or desc.")
        listed = listed[::-1] if order == "asc" else listed
    if after := query.get("after"):
        at = next((number for number, entry in enumerate(listed) if entry["id"] == after), len(listed))
        listed = listed[at + 1 :]
    shown = listed[:limit]
    body: dict[str, Any] = {"object": "list", "data": shown, "has_more": len(listed) > limit}
    if ends:
        body |= {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return JSONResponse(body)
