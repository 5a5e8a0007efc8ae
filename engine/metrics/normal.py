"""What is disregarded when an answer is compared with its reference: a choice the user sees and makes by name."""

import unicodedata

NORMALISATIONS = {
    "none": "compared as they stand",
    "space": "white space at the ends dropped, within collapsed",
    "case": "as space, and Unicode NFKC (full-width letters and digits become plain ones) and no difference of case",
    "punctuation": "as case, and punctuation dropped, full-width and Chinese included",
}


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
        text = "".join(" " if unicodedata.category(char)[0] == "P" else char for char in text)
    return " ".join(text.split())
