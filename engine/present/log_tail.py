"""The end of a log: read from its end, since a log may be long, and its lines as a terminal may show them."""

from pathlib import Path

from engine.present.text import visible

_BLOCK = 1 << 16
PIECE = 4_000
"""Characters of one line that are shown: a log may hold a megabyte without a line break."""


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a file; 0: all of them. Nothing of one that cannot be read."""
    try:
        with open(path, "rb") as file:
            position = file.seek(0, 2)
            data = b""
            while position and (lines == 0 or data.count(b"\n") <= lines):
                step = min(_BLOCK, position)
                position -= step
                file.seek(position)
                data = file.read(step) + data
    except OSError:
        return []
    found = data.decode("utf-8", "replace").removesuffix("\n").split("\n") if data else []
    return found[-lines:] if lines else found


def log_line(line: str) -> str:
    """What stands after the last carriage return is what a terminal would have been left with."""
    return visible(line.rstrip("\r").rsplit("\r", 1)[-1][:PIECE].expandtabs())
