"""Whether the terminal's background is light or dark: asked once when the screen opens (OSC 11), and answered by most
terminals.

Nothing waits for the answer. It comes among what is typed, and is taken out there (`input_reader`) before Textual's
parser, which does not know it, can make keys of it.
"""

import re
from collections.abc import Iterable

from textual.message import Message

QUESTION = "\x1b]11;?\x1b\\"
ANSWER_SECONDS = 5.0
"""An answer that begins later is no answer: nobody can work over a link as slow as that."""
_PART = "([0-9a-fA-F]{1,4})"
_ANSWER = re.compile(rf"\x1b\]11;rgba?:{_PART}/{_PART}/{_PART}[^\x07\x1b]*(?:\x07|\x1b\\)")
_LONGEST = 40


class BackgroundReport(Message):
    """The terminal has reported its background."""

    def __init__(self, light: bool) -> None:
        self.light = light
        super().__init__()


class ReportFilter:
    """Takes the report out of what comes from the terminal, however it is cut into pieces."""

    def __init__(self, now: float) -> None:
        self._until = now + ANSWER_SECONDS
        self._held = ""

    def take(self, data: str, now: float) -> tuple[str, bool | None]:
        """What is left for the keys, and whether the background is light; None: no report in this piece."""
        data, self._held = self._held + data, ""
        light = None
        if match := _ANSWER.search(data):
            light = is_light(match.groups())
            data = data[: match.start()] + data[match.end() :]
        elif now < self._until:
            start = data.rfind("\x1b]1")
            if start >= 0 and len(data) - start < _LONGEST:
                data, self._held = data[:start], data[start:]
        return data, light


def is_light(parts: Iterable[str]) -> bool:
    """Whether a colour, its red, green and blue in hex, is nearer to white than to black (luma of Rec. 601)."""
    red, green, blue = (int(part, 16) / (16 ** len(part) - 1) for part in parts)
    return 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
