"""What the terminal sends, as keys and pasted text in the order in which they were typed.

A paste stands between two marks (bracketed paste, mode 2004), and all between them is text, whatever it looks like: the
output of a coloured `ls` holds escape sequences, and played as keys its letters would delete runs. So pastes are taken
out here, before Textual's parser, which reads what is inside them. Of the text escape sequences and control characters
are left out. What one read gave goes to the application in one message: 3,000 letters are one change of a line.
"""

import re
from collections.abc import Iterable, Iterator

from textual import events
from textual.constants import ESCAPE_DELAY
from textual.message import Message

from tui.terminal.terminal_background import BackgroundReport, ReportFilter
from tui.terminal.textual_private import XTermParser

PASTE_START, PASTE_END = "\x1b[200~", "\x1b[201~"
BROKEN_SECONDS = 5.0
"""A paste whose end has not come for so long, and then one single character: the end was lost, and that is a key."""
_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC, DCS, SOS, PM, APC with what they carry
    r"|\x1b[ -/]*[0-~]"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Typed(Message):
    """Keys and pastes, the first first."""

    def __init__(self, keys: Iterable[events.Key | events.Paste]) -> None:
        self.keys = tuple(keys)
        super().__init__()


def pasted_text(text: str) -> str:
    """What of a paste is text: no escape sequences, and of the control characters tabs and line ends (`\\n`)."""
    text = _SEQUENCES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("", text)


class InputReader:
    """Fed with what was read from the terminal; times are those of `time.monotonic`."""

    def __init__(self, now: float, debug: bool = False) -> None:
        self._parser = XTermParser(debug)
        self._reports = ReportFilter(now)
        self._first = True
        self._paste: list[str] | None = None
        """The pieces of a paste whose end has not come yet."""
        self._held = ""
        """The end of the last piece, which may be the beginning of a mark."""
        self._last = now

    def feed(self, chunk: str, now: float) -> Iterator[Message]:
        """The messages in a piece of what the terminal sent, in order."""
        if self._paste is not None and len(chunk) == 1 and now - self._last > BROKEN_SECONDS:
            broken, self._held = self._held, ""
            yield from self._messages([self._end_paste(broken)], now)
        self._last = now
        yield from self._messages(self._events(chunk, now), now)

    def tick(self, now: float) -> Iterator[Message]:
        """Called while nothing comes: what might have become a sequence was a key after all."""
        held = self._held
        if held and self._paste is None and now - self._last >= ESCAPE_DELAY:
            self._held = ""
            yield from self._messages([events.Key("escape", held)] if held == "\x1b" else self._parser.feed(held), now)
        yield from self._messages(self._parser.tick(), now)

    def _messages(self, parsed: Iterable[Message], now: float) -> Iterator[Message]:
        """Keys and pastes that follow each other as one message, all with the time at which they were read."""
        together: list[events.Key | events.Paste] = []
        for message in parsed:
            message.time = now
            if isinstance(message, (events.Key, events.Paste)):
                together.append(message)
                continue
            if together:
                yield Typed(together)
                together = []
            yield message
        if together:
            yield Typed(together)

    def _events(self, chunk: str, now: float) -> Iterator[Message]:
        received, self._held = self._held + chunk, ""
        while received:
            mark = PASTE_START if self._paste is None else PASTE_END
            part, marked, received = received.partition(mark)
            if not marked:
                part, self._held = _without_beginning(part, mark)
            if self._paste is None:
                yield from self._read_keys(part, now)
                self._paste = [] if marked else None
            elif marked:
                yield self._end_paste(part)
            else:
                self._paste.append(part)

    def _end_paste(self, last: str) -> events.Paste:
        pieces, self._paste = self._paste or [], None
        return events.Paste(pasted_text("".join([*pieces, last])))

    def _read_keys(self, chunk: str, now: float) -> Iterator[Message]:
        if chunk and self._first:  # typed while the terminal was the shell's, which makes a line feed of enter
            chunk, self._first = chunk.replace("\n", "\r"), False
        keys, light = self._reports.take(chunk, now)
        if light is not None:
            yield BackgroundReport(light)
        # An escape in front of a paste was the key: nothing that follows belongs to it.
        if sequences := keys.removesuffix("\x1b"):
            yield from self._parser.feed(sequences)
        if sequences != keys:
            yield events.Key("escape", "\x1b")


def _without_beginning(text: str, mark: str) -> tuple[str, str]:
    """A text without what at its end may be the beginning of a mark, and that."""
    size = next((size for size in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:size])), 0)
    return text[: len(text) - size], text[len(text) - size :]
