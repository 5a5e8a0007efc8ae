"""What stands before every route, as plain ASGI: host, origin, key and kind of content are checked, bodies that do not
come are cut off, and whatever goes wrong is answered in OpenAI's form.

Not starlette's BaseHTTPMiddleware: it hides that a client has gone, and costs time for every piece of a stream.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Collection

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.serve.api_errors import ApiError
from engine.serve.keys import Keys, set_caller

OPEN_PATHS = frozenset({"/health"})
"""Answered without a key."""
BODY_SECONDS = 30.0
"""How long the server waits for the rest of a body, all its waits together."""
SLOWEST_BYTES = 16 * 1024
"""A second; a body that comes faster than this may take longer."""
_UPLOADS = frozenset({"/v1/files"})
_LOG = logging.getLogger("finetop.serve")


class Access:
    """Around the application."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        hosts: Collection[str],
        origins: Collection[str] = (),
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        """`hosts`: what a request's Host may be, with the port; `origins`: pages that may ask."""
        self._app, self._keys = app, keys
        self._hosts, self._origins, self._body_seconds = frozenset(hosts), frozenset(origins), body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return
        request_id = f"req_{secrets.token_hex(12)}"
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, _patient(receive, self._body_seconds), sending)
        except ApiError as error:
            if not begun:
                await _refuse(error, sending)
        except HTTPException as error:  # of a route that there is not, or not with this method
            if not begun:
                await _refuse(_as_api_error(error, scope), sending)
        except Exception:
            _LOG.exception("%s %s (%s)", scope["method"], scope["path"][:200], request_id)
            if not begun:
                await _refuse(ApiError(500, f"The server failed at this request ({request_id})."), sending)

    def _check(self, scope: Scope) -> None:
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            if name in headers and name in ("host", "origin", "authorization", "content-type"):
                raise ApiError(400, f"The header {name} is given twice.")
            headers[name] = value
        if headers.get("host", "").lower() not in self._hosts:
            raise ApiError(
                403,
                "This host name is not the server's own; `finetop serve --allow-host` names others.",
                code="bad_host",
            )
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins:
            raise ApiError(403, "Requests from web pages are refused.", code="bad_origin")
        if scope["path"] in OPEN_PATHS:
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        caller = self._keys.caller(key.strip()) if scheme.lower() == "bearer" else None
        if caller is None:
            raise ApiError(
                401,
                "Incorrect API key provided; `finetop serve env` prints the right one."
                if key
                else "You didn't provide an API key: send Authorization: Bearer KEY; `finetop serve env` prints it.",
                code="invalid_api_key",
            )
        set_caller(scope, caller)
        self._check_content(scope, headers)

    def _check_content(self, scope: Scope, headers: dict[str, str]) -> None:
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        if scope["method"] in ("GET", "HEAD", "DELETE") or not has_body:
            return
        expected = "multipart/form-data" if scope["path"].rstrip("/") in _UPLOADS else "application/json"
        sent = headers.get("content-type", "").partition(";")[0].strip().lower()
        if sent != expected:
            raise ApiError(
                415,
                f"Content-Type must be {expected}, and is {sent[:80] or 'missing'}.",
                code="unsupported_content_type",
            )


def _patient(receive: Receive, seconds: float) -> Receive:
    """`receive` that gives up on a body that comes too slowly."""
    complete, left = False, seconds

    async def receiving() -> Message:
        nonlocal complete, left
        if complete:
            return await receive()  # the client's leaving, whenever that is
        began = time.monotonic()
        try:
            message = await asyncio.wait_for(receive(), left)
        except TimeoutError:
            raise ApiError(408, "The request's body came too slowly.", code="request_timeout") from None
        left = min(seconds, left - (time.monotonic() - began) + len(message.get("body", b"")) / SLOWEST_BYTES)
        complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return receiving


def _as_api_error(error: HTTPException, scope: Scope) -> ApiError:
    where = f"{scope['method']} {scope['path'][:200]}"
    if error.status_code == 404:
        return ApiError(404, f"Unknown request URL: {where}.", code="unknown_url")
    if error.status_code == 405:
        return ApiError(405, f"Not allowed method: {where}.", code="method_not_supported", headers=error.headers)
    return ApiError(error.status_code, str(error.detail), headers=error.headers)


async def _refuse(error: ApiError, send: Send) -> None:
    body = json.dumps(error.body).encode()
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    headers += [(name.encode(), value.encode("latin-1", "replace")) for name, value in error.headers.items()]
    if error.status >= 400 and error.status not in (408, 409, 429, 503):
        headers.append((b"x-should-retry", b"false"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
