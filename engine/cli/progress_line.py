"""One line at the lower end of a terminal that is written over as work goes on."""

import os
import shutil
from typing import TextIO

from engine.present.text import cut

_BEGIN = "\r\x1b[K"


class LiveLine:
    """Draws on a terminal only: elsewhere each picture would be a line of its own."""

    def __init__(self, out: TextIO) -> None:
        self.on = out.isatty() and os.environ.get("TERM") != "dumb"
        self._out = out
        self._shown = ""

    def draw(self, text: str) -> None:
        if self.on:
            self._shown = cut(text, shutil.get_terminal_size().columns - 1)
            self._write(_BEGIN + self._shown)

    def say(self, text: str) -> None:
        """Lines that stay, above the live one; on a terminal and elsewhere."""
        shown = self._shown
        self.clear()
        self._write(f"{text}\n")
        if shown:
            self.draw(shown)

    def clear(self) -> None:
        if self._shown:
            self._shown = ""
            self._write(_BEGIN)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
