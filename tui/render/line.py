"""A line on the screen: a list of spans, `(text, role)`; `theme` knows what a role looks like.

Text that was made elsewhere (names, logs, answers, messages) goes through `one_line` once, where it enters a line.
"""

from collections.abc import Iterable

from engine.present.text import cells, char_cells, cut

Span = tuple[str, str]
"""Text and the role it plays: 'text', 'dim', 'failed', ... (see `theme.ROLES`)."""
Line = list[Span]


def line_cells(line: Iterable[Span]) -> int:
    return sum(cells(text) for text, _ in line)


def fit_line(line: Iterable[Span], width: int, role: str = "text") -> Line:
    """A line cut or padded to exactly so many cells."""
    fitted: Line = []
    room = width
    spans = [span for span in line if span[0]]
    for index, (text, span_role) in enumerate(spans):
        taken = cells(text)
        if taken > room or (taken == room and any(later for later, _ in spans[index + 1 :])):
            fitted.append((cut(text + "  ", room), span_role))
            room -= cells(fitted[-1][0])
            break
        fitted.append((text, span_role))
        room -= taken
        if room == 0:
            break
    if room > 0:
        fitted.append((" " * room, role))
    return fitted


def crop_line(line: Iterable[Span], start: int, width: int) -> Line:
    """The cells from `start` on, padded to `width`: horizontal scrolling. Half a wide character becomes a space."""
    cropped: Line = []
    position = 0
    for text, role in line:
        kept = []
        for char in text:
            size = char_cells(char)
            if position >= start:
                kept.append(char)
            elif position + size > start:
                kept.append(" " * (position + size - start))
            position += size
        if kept:
            cropped.append(("".join(kept), role))
    return fit_line(cropped, width)
