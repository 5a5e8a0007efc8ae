"""Text that was decoded wrongly somewhere on its way, and characters that nobody sees."""

import re
import unicodedata

from engine.base.messages import msg

_LATIN_RUN = re.compile(
    "[\x80-\xff\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    "\u2013\u2014\u2018-\u201a\u201c-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]{2,}"
)
"""The characters of Windows-1252 beyond ASCII: Latin-1 and what Windows put into its empty places."""
_WIDE_RUN = re.compile(r"[\u0370-\uffef]{3,}")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_LOST = ("锟斤拷", "ï¿½", "烫烫烫", "屯屯屯")
"""U+FFFD in UTF-8 read as GBK and as Latin-1; Visual C++'s uninitialised memory (0xCC, 0xCD) read as GBK."""
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ue000-\uf8ff]"
)
_NAMES = {"\ufeff": "a byte-order mark inside the text", "\x1b": "an escape character (terminal colours?)"}


def find_mojibake(text: str) -> tuple[str, int] | None:
    """(what is wrong, position) where a text shows that it was decoded in the wrong encoding; None when it does not."""
    if text.isascii():
        return None
    at = text.find("\ufffd")
    if at >= 0:
        return "the replacement character U+FFFD: what stood here is lost", at
    for lost in _LOST:
        at = text.find(lost)
        if at >= 0:
            return msg("'{lost}', the trace of a wrong decoding", lost=lost), at
    for match in _LATIN_RUN.finditer(text):
        # Each character alone is one byte; words in which every accented letter stands alone have no such runs.
        mended = _as_utf8(_latin_bytes(match[0]))
        if mended and any(not unicodedata.category(char).startswith("C") for char in mended):
            return msg(
                "UTF-8 read as Latin-1: '{match}' was '{mended}'", match=match[0][:12], mended=mended[:12]
            ), match.start()
        mended = _as_gbk(match[0])
        if mended:
            return msg(
                "GBK read as Latin-1: '{match}' was '{mended}'", match=match[0][:12], mended=mended[:12]
            ), match.start()
    for match in _WIDE_RUN.finditer(text):
        mended = _was_utf8(match[0])
        if mended:
            return msg(
                "UTF-8 read as GBK: '{match}' was '{mended}'", match=match[0][:6], mended=mended[:6]
            ), match.start()
    return None


def find_control(text: str) -> tuple[str, int] | None:
    """(name, position) of the first character that nobody sees or that a program would obey."""
    match = _CONTROL.search(text)
    if not match:
        return None
    char = match[0]
    if "\u202a" <= char <= "\u2069":
        return msg("U+{char:04X}, which turns the direction of writing", char=ord(char)), match.start()
    if "\ue000" <= char <= "\uf8ff":
        return msg("U+{char:04X}, a private character that only one font knows", char=ord(char)), match.start()
    return _NAMES.get(char, msg("the control character U+{char:04X}", char=ord(char))), match.start()


def _latin_bytes(run: str) -> bytes:
    """The bytes a run of characters was before it was read as Windows-1252 (or Latin-1 where that has a gap)."""
    return b"".join(char.encode("cp1252") if ord(char) > 255 else bytes([ord(char)]) for char in run)


def _as_utf8(data: bytes) -> str:
    """Decoded, the last character left out where it is cut off; '' when it is no UTF-8."""
    for end in (len(data), len(data) - 1, len(data) - 2):
        if end < 2:
            break
        try:
            return data[:end].decode()
        except UnicodeDecodeError as error:
            if error.start < end - 3:
                break
    return ""


def _as_gbk(run: str) -> str:
    """Three Chinese characters or more, all of them common, in what looks like accented letters."""
    if len(run) < 6 or any(ord(char) > 255 for char in run):
        return ""
    from engine.formats.encoding import looks_gb18030

    data = _latin_bytes(run[: len(run) // 2 * 2])
    return data.decode("gb18030") if looks_gb18030(data) and len(_HAN.findall(data.decode("gb18030"))) >= 3 else ""


def _was_utf8(run: str) -> str:
    """The text before its UTF-8 bytes were read as GBK: three bytes of one character are one and a half of GBK's."""
    if not _HAN.search(run):
        return ""
    try:
        mended = _as_utf8(run[:200].encode("gbk"))
    except UnicodeEncodeError:
        return ""
    # Real Chinese hits two-byte sequences of UTF-8 by chance, hardly ever a row of its three-byte ones.
    return mended if len(mended) >= 2 and all("\u3000" <= char <= "\uffef" for char in mended) else ""
