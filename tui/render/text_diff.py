"""Where texts differ, marked word by word; in writing without spaces, character by character."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from engine.present.text import cells, cut, one_line
from tui.render.line import Line

_TOKEN = re.compile(
    r"\n|[^\S\n]+|[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|\w+|.", re.S
)
"""A line break, other space, one character of a script that puts no spaces between words, a word, or one sign."""
_MOST_TOKENS = 3000
"""Texts longer than this are compared and marked only this far: the comparison takes the square of it at worst."""

Marked = list[tuple[str, bool]]
"""Pieces of a text, and whether each differs."""


def tokens(text: str) -> list[str]:
    """The words of a text, its spaces and line breaks each a token."""
    return _TOKEN.findall(text)


def marked(texts: Sequence[str | None]) -> list[Marked | None]:
    """Each text in pieces: what the first says otherwise than any other is marked in it, in the others what they say
    otherwise than the first. None stays None."""
    split = [None if text is None else tokens(text) for text in texts]
    if not split or split[0] is None:
        return [None if words is None else [("".join(words), False)] for words in split]
    base = split[0]
    base_positions = _positions(base)
    base_differs = [False] * len(base)
    compared: list[Marked | None] = [None]
    for words in split[1:]:
        if words is None:
            compared.append(None)
            continue
        positions = _positions(words)
        differs = [False] * len(words)
        if words != base:
            for position in positions:
                differs[position] = True
            kept: set[int] = set()
            # Space is left out: it is half of all tokens, each matches each, and that is what takes the time.
            matcher = SequenceMatcher(
                None, [base[i] for i in base_positions], [words[i] for i in positions], autojunk=False
            )
            for start, other, size in matcher.get_matching_blocks():
                kept.update(base_positions[start : start + size])
                for position in positions[other : other + size]:
                    differs[position] = False
            for position in base_positions:
                base_differs[position] |= position not in kept
        compared.append(_pieces(words, _bridged(words, differs)))
    compared[0] = _pieces(base, _bridged(base, base_differs))
    return compared


def _positions(words: Sequence[str]) -> list[int]:
    """Where the tokens are that count: all but space, up to a limit."""
    return [index for index, word in enumerate(words) if word == "\n" or not word.isspace()][:_MOST_TOKENS]


def _bridged(words: Sequence[str], differs: Sequence[bool]) -> list[bool]:
    """Space between two words that differ is marked with them, so that a phrase is one mark."""
    bridged = list(differs)
    for index in range(1, len(words) - 1):
        if words[index].isspace() and words[index] != "\n":
            bridged[index] = differs[index - 1] and differs[index + 1]
    return bridged


def _pieces(words: Sequence[str], differs: Sequence[bool]) -> Marked:
    pieces: Marked = []
    for word, differ in zip(words, differs, strict=True):
        if pieces and pieces[-1][1] == differ:
            pieces[-1] = (pieces[-1][0] + word, differ)
        else:
            pieces.append((word, differ))
    return pieces


def wrapped(pieces: Marked, width: int, plain: str = "text", differing: str = "differs") -> list[Line]:
    """Pieces as lines of at most `width` cells, broken between words, or inside what is longer than a line."""
    lines: list[Line] = [[]]
    used = 0
    for text, differ in pieces:
        role = differing if differ else plain
        for word in tokens(text):
            if word == "\n":
                if differ:  # a line break that differs would else not be seen
                    lines[-1].append(("⏎", role))
                lines.append([])
                used = 0
                continue
            shown = one_line(word)
            if used + cells(shown) > width and used:
                lines.append([])
                used = 0
                if not differ:
                    shown = shown.lstrip(" ")
            while cells(shown) > width:
                head = cut(shown, width, "") or shown[:1]
                lines[-1].append((head, role))
                lines.append([])
                shown = shown[len(head) :]
                used = 0
            if shown:
                lines[-1].append((shown, role))
                used += cells(shown)
    return lines
