"""Asking a worker process to evaluate or to answer: the request goes in, its progress is shown, its lines come back."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from engine.base.errors import EngineError
from engine.base.log_tail import end_of, last_state
from engine.base.messages import msg
from engine.base.oom_kills import OomWatch
from engine.base.worker_process import how_it_left, worker_command, worker_environment
from engine.cli.progress_line import LiveLine
from engine.present.text import one_line, visible
from engine.runs.checkpoints import untrained_note
from engine.runs.model_refs import ModelRef

_PLAIN_LINE_SECONDS = 10.0
_LAST_LINES = 5
_STDERR_BYTES = 20_000


def ask_worker(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The worker's lines other than its progress, as they come. Raises EngineError with what the worker complains of.

    It shares our terminal's process group: Ctrl-C ends both.
    """
    import tempfile  # 10 ms, which --help need not pay

    progress = _Progress()
    oom = OomWatch()
    with tempfile.TemporaryFile() as stderr:
        worker = subprocess.Popen(
            worker_command(module="engine.worker.serve"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=worker_environment(),
        )
        assert worker.stdin and worker.stdout
        try:
            with contextlib.suppress(BrokenPipeError), worker.stdin:  # it died at once: reported below
                worker.stdin.write(json.dumps(request).encode())
            for line in worker.stdout:
                event = json.loads(line)
                if event["kind"] == "progress":
                    progress.show(event)
                    continue
                progress.clear()
                if event["kind"] == "note":
                    print(visible(event["message"]), file=sys.stderr)
                    continue
                if event["kind"] == "error":
                    error = EngineError(event["message"], event["hint"])
                    error.exit_code = event["exit_code"]
                    raise error
                yield event
            if worker.wait() != 0:
                raise _died(worker.returncode, stderr, oom)
        finally:
            progress.clear()
            if worker.poll() is None:
                worker.kill()
            worker.wait()
            worker.stdout.close()


def tell_untrained(targets: Sequence[ModelRef]) -> None:
    """On stderr, which of the checkpoints that are to be asked have learnt nothing."""
    for target in targets:
        if target.checkpoint and (note := untrained_note(target.checkpoint)):
            print(visible(f"{target.name}: {note}"), file=sys.stderr)


def _died(code: int, stderr: BinaryIO, oom: OomWatch) -> EngineError:
    lines = end_of(stderr, _LAST_LINES, _STDERR_BYTES)
    last_words = "\n".join([msg("the worker {code}", code=how_it_left(code)), *map(last_state, lines)])
    return EngineError(last_words, oom.hint(code))


class _Progress:
    """The worker's progress: on a terminal one line that is written over; elsewhere a line now and then."""

    def __init__(self) -> None:
        self._line = LiveLine(sys.stderr)
        self._last = 0.0

    def show(self, event: dict[str, Any]) -> None:
        text = one_line(event["doing"]) + (f" {event['done']:,} of {event['of']:,}" if event["of"] else " …")
        if self._line.on:
            self._line.draw(text)
        elif time.monotonic() - self._last >= _PLAIN_LINE_SECONDS:
            self._last = time.monotonic()
            self._line.say(text)

    def clear(self) -> None:
        self._line.clear()


def shown_path(path: str) -> str:
    """Relative to where the user stands, if it lies below."""
    here, full_path = Path.cwd(), Path(path)
    return str(full_path.relative_to(here)) if full_path.is_relative_to(here) else str(full_path)
