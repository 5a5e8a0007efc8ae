"""Clients that are too many, too slow or talk nonsense: answered in OpenAI's form, in bounded time and memory."""

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from engine.serve.access import Access
from engine.serve.connections import Connection
from tests.engine.serve.conftest import keys_of

KEY = "k" * 32
HEAD = (
    b"POST /v1/x HTTP/1.1\r\nhost: h:1\r\nauthorization: Bearer "
    + KEY.encode()
    + b"\r\ncontent-type: application/json\r\n"
)


class Hasty(Connection):
    most_connections = 3
    head_seconds = 0.3
    read_seconds = 0.3


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, and answers with as many bytes as it says."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(int(body or b"0")):
        await send({"type": "http.response.body", "body": b"x" * 2**16, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def serving(act: Callable[[int], Awaitable[None]]) -> None:
    """`act` with the port of a server that runs."""

    async def run() -> None:
        checked = Access(app, keys_of(Path(folder), KEY), ["h:1"], body_seconds=0.3)
        server = uvicorn.Server(
            uvicorn.Config(checked, port=0, http=Hasty, ws="none", lifespan="off", log_level="critical")
        )
        running = asyncio.get_running_loop().create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            await act(server.servers[0].sockets[0].getsockname()[1])
        finally:
            server.should_exit = True
            await running

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(asyncio.wait_for(run(), 30))


async def answer(port: int, sent: bytes, then: bytes = b"", every: float = 0.05) -> tuple[int, Any]:
    """(status, body) to these bytes, of which the last is followed by `then` again and again."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)

    async def trickle() -> None:
        while then:
            writer.write(then)
            await asyncio.sleep(every)

    trickling = asyncio.get_running_loop().create_task(trickle())
    try:
        received = await reader.read()
    finally:
        trickling.cancel()
        writer.close()
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("status", "sent", "then"),
    [
        (408, b"", b""),  # nothing at all
        (408, b"POST /v1/x HTTP/1.1\r\n", b"x-a: b\r\n"),  # a head without end
        (408, HEAD + b"content-length: 100\r\n\r\n", b""),  # no body
        (408, HEAD + b"content-length: 100000\r\n\r\n", b" "),  # one of a byte at a time
        (400, b"\x16\x03\x01 TLS\r\n\r\n", b""),
        (400, b"POST / HTTP/1.1\r\nx: " + b"y" * 70_000, b""),
    ],
)
def test_slow_and_broken_requests_are_refused_in_the_one_form(status: int, sent: bytes, then: bytes):
    async def act(port: int) -> None:
        got, body = await answer(port, sent, then)
        assert got == status and set(body["error"]) == {"message", "type", "param", "code"}

    serving(act)


def test_one_connection_too_many_is_told_to_come_again():
    async def act(port: int) -> None:
        taken = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        status, body = await answer(port, b"")
        assert status == 503 and body["error"]["code"] == "too_many_connections"
        for _, writer in taken:
            writer.close()

    serving(act)


def test_a_client_that_reads_nothing_is_cut_off_and_one_that_keeps_on_asking_is_not():
    async def act(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**12)
        writer.write(HEAD + b"content-length: 4\r\n\r\n4000")  # 250 MB that nobody takes
        await asyncio.sleep(1)
        with pytest.raises(ConnectionError):
            for _ in range(20):
                writer.write(b" " * 2**16)
                await writer.drain()
                await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(4):  # longer in all than a head may take
            writer.write(HEAD + b"content-length: 1\r\n\r\n0")
            assert b"200" in await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"0\r\n\r\n")
            await asyncio.sleep(0.15)
        writer.close()

    serving(act)
