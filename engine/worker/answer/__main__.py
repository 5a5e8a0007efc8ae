"""`python -m engine.worker.answer FOLDER`: an engine; it answers requests on the socket in its folder, until it is
asked to leave or nobody has asked it for a while.

One connection is one request: a JSON line in, JSON lines out, each with a `kind`:

    begun   prompt_tokens: of the prompt                     once, when its turn has come
    text    index, text, tokens, logprobs                    whenever an answer has grown
    end     index, finish_reason, tokens                     of each answer
    error   status, message, code, param                     instead of what is left
    done                                                     the last line

A connection that is closed cancels its request: its rows are free within a step. One that is closed without a line was
not begun, and may be asked again elsewhere. The model is run by the main thread, sockets by another, so that a reader
who is slow holds nobody up.
"""

import argparse
import asyncio
import contextlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from engine.base.engine_folder import EngineFolder, EngineUse
from engine.worker.runtime.environment import set_environment

IDLE_SECONDS = 300.0
"""An engine that nobody has asked for so long leaves: its memory is for others."""
_LONGEST_LINE = 64 * 2**20
_LAST_LINES_SECONDS = 5.0
_OOM_SCORE = "500"
"""Where the machine's memory runs out the kernel is to end an engine, which comes back, and no run."""


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

    def unsent(self) -> int:
        """Bytes that the other side has not taken yet."""
        return 0 if self.is_gone else self._writer.transport.get_write_buffer_size()


Request = tuple[Connection, dict[str, Any]]


class Sockets(threading.Thread):
    """Puts requests into `waiting`, None where the process is to leave."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(daemon=True)
        self.waiting: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._listening, self._loop = listening, asyncio.new_event_loop()
        self._connections: set[Connection] = set()

    def run(self) -> None:
        """The thread."""
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_unix_server(self._connected, sock=self._listening, limit=_LONGEST_LINE)
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self._loop, writer)
        self._connections.add(connection)
        try:
            line = await reader.readline()
            if line:
                self.waiting.put((connection, json.loads(line)))
                await reader.read()  # until the other side closes
        except (OSError, ValueError):
            pass
        finally:
            connection.is_gone = True
            self._connections.discard(connection)
            writer.close()

    def flush(self) -> None:
        """Wait for the last lines to be taken, but not for ever."""

        async def flushed() -> None:
            while any(connection.unsent() for connection in self._connections):
                await asyncio.sleep(0.01)

        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(flushed(), self._loop).result(_LAST_LINES_SECONDS)


def _next_batch(waiting: "queue.SimpleQueue[Request | None]", most: int) -> tuple[list[Request], bool]:
    """The requests that wait, and whether to leave then."""
    batch: list[Request] = []
    try:
        item = waiting.get(timeout=IDLE_SECONDS)
        while item is not None:
            batch.append(item)
            if len(batch) == most:
                return batch, False
            item = waiting.get_nowait()
    except queue.Empty:
        return batch, not batch
    return batch, True


def main(arguments: list[str] | None = None) -> int:
    """Answer; ends with the process."""
    parser = argparse.ArgumentParser(prog="python -m engine.worker.answer")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--memory-bytes", type=int, help="of the device: what the engine was promised")
    parser.add_argument("--cache-bytes", type=int, help="keys and values may take")
    options = parser.parse_args(arguments)
    folder = EngineFolder(options.folder)
    sockets = Sockets(folder.listen())
    signal.signal(signal.SIGTERM, lambda number, frame: sockets.waiting.put(None))
    pid, answered, used_at = os.getpid(), 0, 0.0
    folder.put_use(EngineUse(pid))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    set_environment()
    sys.stdout = sys.stderr
    sockets.start()

    from engine.worker.answer.answering import Answering

    limit_memory(options.memory_bytes)
    answering = Answering(options.cache_bytes)
    leaving = False
    while not leaving:
        batch, leaving = _next_batch(sockets.waiting, answering.most_requests)
        if batch:
            folder.put_use(EngineUse(pid, answered, len(batch), time.time()))
            answering.answer(batch)
            answered, used_at = answered + len(batch), time.time()
            folder.put_use(EngineUse(pid, answered, 0, used_at))
    folder.hang_up()
    sockets.flush()
    os._exit(0)  # whoever has connected meanwhile asks again elsewhere


def limit_memory(promised_bytes: int | None) -> None:
    """On a GPU, no more than was promised, and a tenth for what fragments: beyond it torch says that memory is out."""
    import torch

    if promised_bytes is None or not torch.cuda.is_available():
        return
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, 1.1 * promised_bytes / total))


if __name__ == "__main__":
    sys.exit(main())
