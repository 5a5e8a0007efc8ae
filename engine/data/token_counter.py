"""Examples counted in tokens by a worker process, which may import transformers; fed while the file is read."""

import contextlib
import json
import subprocess
import threading
from array import array
from typing import IO

from engine.base.errors import EngineError
from engine.base.messages import msg
from engine.base.oom_kills import OomWatch
from engine.base.worker_process import how_it_left, worker_command, worker_environment
from engine.formats.examples import Example


class TokenCounter:
    """Feed examples with `add`; `finish` waits for the rest and hands out what was counted."""

    def __init__(self, model: str, max_length: int) -> None:
        self._oom = OomWatch()
        self._process = subprocess.Popen(
            worker_command(model, "--max-length", str(max_length), module="engine.worker.count_tokens"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=worker_environment(),
        )
        self._examples = _pipe(self._process.stdin)
        self._lengths = array("i")
        self._left = array("i")
        self._notes: dict[int, list[list[str]]] = {}
        self._complaint = b""
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read, self._read_complaint)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        for line in _pipe(self._process.stdout):
            length, left, notes = line.split(None, 2)
            if notes.strip() != b"[]":
                self._notes[len(self._lengths)] = json.loads(notes)
            self._lengths.append(int(length))
            self._left.append(int(left))

    def _read_complaint(self) -> None:
        self._complaint = _pipe(self._process.stderr).read()

    def add(self, example: Example) -> None:
        try:
            self._examples.write(example_line(example))
        except BrokenPipeError:
            self.finish()

    def finish(self) -> tuple[array, array, dict[int, list[list[str]]]]:
        """(tokens, trained tokens left after cutting), one of each example, and the notes on some, by their position;
        see engine/worker/count_tokens.py."""
        with contextlib.suppress(BrokenPipeError):
            self._examples.close()
        for reader in self._readers:
            reader.join()
        code = self._process.wait()
        if code:
            raise worker_error(code, self._complaint, self._oom)
        return self._lengths, self._left, self._notes

    def stop(self) -> None:
        """End the process where the check itself ended early."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("the process was started without this pipe")
    return stream


def example_line(example: Example) -> bytes:
    """An example as one line of a worker's stdin."""
    row = {"messages": example.messages, "tools": example.tools, "text": example.text}
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def worker_error(code: int, complaint: bytes, oom: OomWatch) -> EngineError:
    """Why a worker process left with this code, by what it wrote to stderr, or what the kernel counted."""
    message = complaint.decode("utf-8", "replace").strip()
    if code < 0 or not message:
        message = msg("the tokenizer's process {code}", code=how_it_left(code))
    error = EngineError(message.splitlines()[-1] if code == 1 else message, oom.hint(code))
    error.exit_code = 2 if code == 2 else 1
    return error
