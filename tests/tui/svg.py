"""A terminal's picture as SVG, from the cells that pyte has: colours and all, and nobody else's markup in it."""

from collections import Counter
from html import escape
from itertools import groupby

import pyte
from pyte.screens import Char

WIDTH, HEIGHT, BASE = 8, 17, 13
PALETTE = {
    "default": "#d0d0d0", "black": "#000000", "red": "#cd0000", "green": "#00cd00", "brown": "#cdcd00",
    "blue": "#0000ee", "magenta": "#cd00cd", "cyan": "#00cdcd", "white": "#e5e5e5", "brightblack": "#7f7f7f",
    "brightred": "#ff0000", "brightgreen": "#00ff00", "brightbrown": "#ffff00", "brightblue": "#5c5cff",
    "brightmagenta": "#ff00ff", "brightcyan": "#00ffff", "brightwhite": "#ffffff",
}  # fmt: skip
"""xterm's; other terminals have others."""
GROUND = "#101010"


def svg(screen: pyte.Screen) -> str:
    """One line for each piece of a row in one style. What has no ink (blanks on the ground) is left out."""
    ground = Counter(_look(char)[1] for row in _rows(screen) for char in row).most_common(1)[0][0]
    size = f"0 0 {screen.columns * WIDTH} {screen.lines * HEIGHT}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" font-family="monospace" font-size="13">',
        f'<rect width="100%" height="100%" fill="{ground}"/>',
    ]
    for y, row in enumerate(_rows(screen)):
        for (ink, paper, more), cells in groupby(enumerate(row), key=lambda cell: _look(cell[1])):
            found = list(cells)
            x, wide = found[0][0], len(found)
            if paper != ground:
                place = f'x="{x * WIDTH}" y="{y * HEIGHT}" width="{wide * WIDTH}" height="{HEIGHT}"'
                lines.append(f'<rect {place} fill="{paper}"/>')
            text = "".join(char.data for _, char in found)
            shown = text.rstrip(" ")
            if shown:
                wide -= len(text) - len(shown)
                place = f'x="{x * WIDTH}" y="{y * HEIGHT + BASE}" textLength="{wide * WIDTH}"'
                lines.append(f'<text {place} fill="{ink}"{more} xml:space="preserve">{escape(shown)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _rows(screen: pyte.Screen) -> list[list[Char]]:
    """Every cell; a blank takes the ink of the cell before it, since none is seen."""
    rows = []
    for y in range(screen.lines):
        row: list[Char] = []
        for x in range(screen.columns):
            char = screen.buffer[y][x]
            if char.data == " " and row and not char.reverse and not char.underscore and not row[-1].reverse:
                before = row[-1]
                char = before._replace(data=" ") if before.bg == char.bg and not before.underscore else char
            row.append(char)
        rows.append(row)
    return rows


def _look(char: Char) -> tuple[str, str, str]:
    """Ink, paper, and the rest as attributes."""
    ink, paper = _colour(char.fg, PALETTE["default"]), _colour(char.bg, GROUND)
    if char.reverse:
        ink, paper = paper, ink
    more = ' font-weight="bold"' if char.bold else ""
    more += ' font-style="italic"' if char.italics else ""
    return ink, paper, more + (' text-decoration="underline"' if char.underscore else "")


def _colour(name: str, default: str) -> str:
    return default if name == "default" else PALETTE.get(name) or f"#{name}"
