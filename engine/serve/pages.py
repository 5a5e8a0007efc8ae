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
    return one_page(*cut(request, entries, default=default, most=most, ordered=ordered), ends=ends)


def one_page(shown: Sequence[dict[str, Any]], has_more: bool, *, ends: bool = False) -> Response:
    """A list of the API."""
    body: dict[str, Any] = {"object": "list", "data": shown, "has_more": has_more}
    if ends:
        body |= {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return JSONResponse(body)


def page_limit(request: Request, *, default: int, most: int) -> int:
    """The query's `limit`."""
    limit = request.query_params.get("limit")
    if not limit:
        return default
    if not limit.isdecimal() or len(limit) > _MOST_DIGITS or int(limit) > most:
        raise invalid("limit", f"'limit' must be between 0 and {most}.")
    return int(limit)


def order(request: Request) -> str:
    """The query's `order`: asc, desc, or nothing."""
    order = request.query_params.get("order") or ""
    if order not in ("", "asc", "desc"):
        raise invalid("order", "'order' must be asc or desc.")
    return order


def cut(
    request: Request, entries: Sequence[dict[str, Any]], *, default: int, most: int, ordered: bool = False
) -> tuple[list[dict[str, Any]], bool]:
    """The part of `entries`, newest first, that the query's `after` and `limit` name, and with `ordered` its `order`;
    and whether more follow. After an id that is not there nothing follows."""
    query = request.query_params
    limit = page_limit(request, default=default, most=most)
    listed = list(entries)
    if ordered and order(request) == "asc":
        listed.reverse()
    if after := query.get("after"):
        at = next((number for number, entry in enumerate(listed) if entry["id"] == after), len(listed))
        listed = listed[at + 1 :]
    return listed[:limit], len(listed) > limit
