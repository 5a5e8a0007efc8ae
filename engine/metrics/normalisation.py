"""What is disregarded when an answer is compared with its reference: a choice the user sees and makes by name."""

import unicodedata

NORMALISATIONS = {
    "none": "compared as they stand",
    "space": "white space at the ends dropped, within collapsed",
    "case": "as space, and Unicode NFKC (full-width letters and digits become plain ones) and no difference of case",
    "punctuation": "as case, and punctuation dropped, full-width and Chinese included; not within a number",
}
_MINUS = "-−–‐‑‒－﹣"
_FIRST_WITHOUT_SPACES = "\u2e80"
"""From here on, scripts that put no space before a sign: 答案是-5."""


def normalise(text: str, how: str = "case") -> str:
    """`text` without what the normalisation of that name disregards. KeyError for a name that is none."""
    if how == "none":
        return text
    if how == "space":
        return " ".join(text.split())
    if how not in NORMALISATIONS:
        raise KeyError(how)
    text = unicodedata.normalize("NFKC", text).casefold()
    if how == "punctuation":
        # The categories P*: also 。，、？！「」《》 and the dashes. Symbols such as + < $ carry meaning and stay.
        text = "".join(_kept(text, index) for index in range(len(text)))
    return " ".join(text.split())


def is_minus(text: str, index: int) -> bool:
    """Whether the character there, before a number, is its sign. After a digit, a letter or a closing bracket it is a
    dash, as in 3-7 and COVID-19, and so are two in a row."""
    if index < 0 or text[index] not in _MINUS:
        return False
    preceding = text[index - 1] if index else " "
    if preceding.isalpha():
        return preceding >= _FIRST_WITHOUT_SPACES
    return not (preceding.isdigit() or preceding in _MINUS or preceding in ")]}%‰°_")


def _kept(text: str, index: int) -> str:
    """The character, or a space for punctuation; a number keeps its sign and its point."""
    char = text[index]
    if text[index + 1 : index + 2].isdigit():
        if is_minus(text, index):
            return "-"
        if char == "." and index and text[index - 1].isdigit():
            return char
    return " " if unicodedata.category(char)[0] == "P" else char
