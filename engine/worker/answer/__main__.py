"""`python -m engine.worker.answer SOCKET_FD`: answer requests on a listening Unix socket, until the other side is gone.

One connection is one request: a JSON line in, JSON lines out, each with a `kind`:

    begun   prompt_tokens: of the prompt                     once, when its turn has come
    text    index, text, tokens, logprobs                    whenever an answer has grown
    end     index, finish_reason, tokens                     of each answer
    error   status, message, code, param                     instead of what is left
    done                                                     the last line

A connection that is closed cancels its request: its rows are free within a step. The model is run by the main thread,
sockets by another, so that a reader who is slow holds nobody up.
"""

import asyncio
import contextlib
import json
import os
import queue
import socket
import sys
import threading
from typing import Any

from engine.worker.runtime.environment import set_environment

IDLE_SECONDS = 300.0
_LONGEST_LINE = 64 * 2**20


class Connection:
    """Where a request came from."""

    def __init__(self, loop: asyncio.AbstractEventLoop, writer: asyncio.StreamWriter) -> None:
        self._loop, self._writer = loop, writer
        self.is_gone = False

    def send(self, *lines: dict[str, Any]) -> None:
        """From any thread."""
        data = b"".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for line in lines)
        with contextlib.suppress(RuntimeError):  # the loop has ended with the process
            self._loop.call_soon_threadsafe(self._write, data)

    def _write(self, data: bytes) -> None:
        if not self.is_gone:
            self._writer.write(data)


async def _serve(listening: socket.socket, waiting: "queue.SimpleQueue[tuple[Connection, dict[str, Any]]]") -> None:
    loop = asyncio.get_running_loop()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(loop, writer)
        try:
            line = await reader.readline()
            if line:
                waiting.put((connection, json.loads(line)))
                await reader.read()  # until the other side closes
        except (OSError, ValueError):
            pass
        finally:
            connection.is_gone = True
            writer.close()

    server = await asyncio.start_unix_server(connected, sock=listening, limit=_LONGEST_LINE)
    async with server:
        await server.serve_forever()


def _leave_with_server() -> None:
    """The server holds the other end of stdin: however it ends, this reads its end."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Serve until the process that started this one is gone."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    set_environment()
    sys.stdout = sys.stderr
    waiting: queue.SimpleQueue[tuple[Connection, dict[str, Any]]] = queue.SimpleQueue()
    threading.Thread(target=lambda: asyncio.run(_serve(listening, waiting)), daemon=True).start()
    threading.Thread(target=_leave_with_server, daemon=True).start()

    from engine.worker.answer.answering import Answering

    answering = Answering()
    while True:
        try:
            batch = [waiting.get(timeout=IDLE_SECONDS)]
        except queue.Empty:
            os._exit(0)  # its memory is for others; the server starts another at the next request
        with contextlib.suppress(queue.Empty):
            while len(batch) < answering.most_requests:
                batch.append(waiting.get_nowait())
        answering.answer(batch)


if __name__ == "__main__":
    main()
