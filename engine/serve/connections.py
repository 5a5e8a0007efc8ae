"""Connections: how many there may be, how long a client may take to send a request's head and to read its answer, and
every refusal on this floor in OpenAI's form, too.

uvicorn waits for ever for the first byte of a request and for a client that reads nothing, and says what it refuses as
plain text.
"""

import asyncio
import contextlib
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from engine.serve.api_errors import ApiError

MOST_CONNECTIONS = 1000
HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 10.0
"""From the connection, or the first byte of a further request, to the end of its head."""
READ_SECONDS = 30.0
"""A client that has not taken what was sent to it for so long is cut off, and what it asked for ends; so is one that
after its answer still sends a body."""


class Connection(H11Protocol):
    """One client's."""

    most_connections = MOST_CONNECTIONS
    head_seconds = HEAD_SECONDS
    read_seconds = READ_SECONDS
    _head_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None
    _rest_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self._refuse(
                ApiError(
                    503,
                    f"The server has {self.most_connections} connections already; ask again.",
                    code="too_many_connections",
                    headers={"retry-after": "1"},
                )
            )
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():  # it was refused
            return
        if self._head_timer is None and self.conn.their_state is h11.IDLE:
            self._await_head()
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state is not h11.IDLE:  # the head is here
            self._head_timer = _stopped(self._head_timer)
        if self.conn.their_state is not h11.SEND_BODY:
            self._rest_timer = _stopped(self._rest_timer)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and self._rest_timer is None:
            self._rest_timer = self.loop.call_later(self.read_seconds, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Of a head that is not HTTP, or too long."""
        self._refuse(ApiError(400, msg, code="invalid_request"))

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._read_timer is None:
            self._read_timer = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._read_timer = _stopped(self._read_timer)
        super().resume_writing()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._head_late)

    def _head_late(self) -> None:
        self._refuse(
            ApiError(408, f"The request's head took more than {self.head_seconds:g} seconds.", code="request_timeout")
        )

    def _refuse(self, error: ApiError) -> None:
        if self.transport.is_closing():
            return
        body = json.dumps(error.body).encode()
        headers: list[tuple[bytes, bytes]] = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *((name.encode(), value.encode()) for name, value in error.headers.items()),
        ]
        events: list[Any] = [
            h11.Response(status_code=error.status, headers=headers, reason=STATUS_PHRASES[error.status]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        with contextlib.suppress(h11.LocalProtocolError):  # an answer had begun
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
        self._stop_timers()
        self.transport.close()

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._read_timer, self._rest_timer):
            _stopped(timer)


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """None, in the place of a timer that is not to fire."""
    if timer is not None:
        timer.cancel()
    return None
