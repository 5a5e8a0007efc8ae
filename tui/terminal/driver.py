"""Textual's terminal driver with a writer that never makes the event loop wait, and an input that sleeps until a key.

Textual's own writer takes 30 pieces and then blocks the event loop until the terminal has read some. Over a link that
stalls, the screen would be dead to keys. Here the writer takes everything, says how much it still holds, and calls
back when it is done, so that whoever paints can leave out pictures and send the newest one then. Textual's input asks
ten times a second whether there is a key, and reads an end of file as nothing and asks again at once, endlessly.
"""

import codecs
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from textual.constants import ESCAPE_DELAY

from tui.terminal.input_reader import InputReader
from tui.terminal.terminal_background import QUESTION
from tui.terminal.textual_private import PrivateDriver

_LAST_WRITE_SECONDS = 3.0
"""How long the screen has to leave in good order once its terminal is gone."""
_UNDECIDED_SECONDS = ESCAPE_DELAY + 0.4
"""For so long after a byte it may be open whether it was the key escape or the beginning of another's name: Textual's
parser decides that when it is asked after this delay (of the user's ESCDELAY, else 0.1 s)."""


class Writer(threading.Thread):
    """Writes to the terminal in the background."""

    def __init__(self, file: IO[str]) -> None:
        super().__init__(name="terminal-writer", daemon=True)
        self._fd = file.fileno()
        self._wake = threading.Condition()
        self._waiting: list[str] = []
        self._held = 0
        self._stopping = False
        self._gone = False
        self._then: list[Callable[[], object]] = []
        self.drained: Callable[[], object] | None = None
        """Called, from this thread, once everything has been written after `busy` was true."""
        self._reported_busy = False

    def write(self, text: str) -> None:
        """Take a text; never waits."""
        with self._wake:
            if not self._gone:
                self._waiting.append(text)
                self._held += len(text)
                self._wake.notify()

    def busy(self) -> bool:
        """Whether the terminal has not taken yet what it was sent; if so, `drained` will be called."""
        with self._wake:
            self._reported_busy = self._held > 0 and not self._gone
            return self._reported_busy

    def when_written(self, call: Callable[[], object]) -> None:
        """Call, from this thread, once the terminal has taken all that was written so far."""
        with self._wake:
            self._then.append(call)
            self._wake.notify()

    def flush(self) -> None:
        """Nothing to do: the thread writes as fast as the terminal takes it."""

    def isatty(self) -> bool:
        """It writes to a terminal."""
        return True

    def fileno(self) -> int:
        """The terminal's descriptor."""
        return self._fd

    def stop(self) -> None:
        """Write what is left, for at most a second: the terminal may be gone, or the link dead."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self.join(timeout=1.0)

    def run(self) -> None:
        """Write what is waiting until `stop`, then what is left."""
        while True:
            with self._wake:
                while not self._waiting and not self._then and not self._stopping:
                    self._wake.wait()
                if not self._waiting and not self._then:
                    return
                data = "".join(self._waiting).encode("utf-8", "replace")
                calls, self._then = self._then, []
                self._waiting.clear()
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except OSError:
                with self._wake:  # the terminal is gone; its end of file, or SIGHUP, ends the program
                    self._gone = True
                    self._waiting.clear()
            with self._wake:
                self._held = sum(map(len, self._waiting))
                if self.drained is not None and self._reported_busy and not self._held:
                    calls.append(self.drained)
                self._reported_busy = self._reported_busy and bool(self._held)
            for call in calls:
                call()


class InputExit(threading.Event):
    """Set when input is to end; it wakes who sleeps in poll()."""

    def __init__(self) -> None:
        super().__init__()
        self.wake, self._waker = os.pipe()
        os.set_blocking(self.wake, False)

    def set(self) -> None:
        """End the input, and wake it for that."""
        super().set()
        os.write(self._waker, b"\0")

    def clear(self) -> None:
        """Let input begin again."""
        super().clear()
        os.read(self.wake, 4096)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.wake)
        os.close(self._waker)


class Driver(PrivateDriver):
    """The driver of the screen. It draws on standard output: errors may be sent elsewhere without losing the screen."""

    writer_class = Writer

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.write_to(sys.__stdout__)
        self._exit = InputExit()
        self.exit_event = self._exit

    def start_application_mode(self) -> None:
        """Take the terminal over, and ask for its background where that decides between two palettes."""
        super().start_application_mode()
        if getattr(self.app, "asks_background", False):
            self.write(QUESTION)

    def stop_application_mode(self) -> None:
        """Give the terminal back."""
        self.write("\x1b[m")  # painting leaves its last colours set
        super().stop_application_mode()

    def close(self) -> None:
        """Also the pipe that wakes the input thread."""
        super().close()
        self._exit.close()

    @property
    def writer(self) -> Writer | None:
        """The writer, while the terminal is in application mode."""
        return self.started_writer()

    def run_input_thread(self) -> None:
        """Read keys until the screen closes or the terminal hangs up."""
        reader = InputReader(time.monotonic(), self.debug)
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        poll = select.poll()  # it reports a hang-up, too, and costs nothing until something comes
        poll.register(self.fileno, select.POLLIN)
        poll.register(self._exit.wake, select.POLLIN)
        last = time.monotonic()
        while not self.exit_event.is_set():
            for descriptor, mask in poll.poll(100 if time.monotonic() - last < _UNDECIDED_SECONDS else None):
                if descriptor != self.fileno:
                    continue
                data = self._read() if mask & select.POLLIN else b""
                if not data:
                    self._leave()
                    return
                last = time.monotonic()
                for message in reader.feed(decode(data), last):
                    self.process_message(message)
            for message in reader.tick(time.monotonic()):
                self.process_message(message)

    def _read(self) -> bytes:
        try:
            return os.read(self.fileno, 4096)
        except OSError:  # EIO: the terminal has gone
            return b""

    def _leave(self) -> None:
        """The terminal has hung up."""
        os.kill(os.getpid(), signal.SIGHUP)
        if not self.exit_event.wait(_LAST_WRITE_SECONDS):
            os._exit(128 + signal.SIGHUP)  # nobody sees the screen, and nothing that matters is in this process
