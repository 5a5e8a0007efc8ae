"""Bytes on disk -> numbered lines of text, in the encoding the file turns out to have.

A first pass over the file hashes it and lets every line that is not plain ASCII vote: is it valid UTF-8, or else
convincing GB18030? The majority names the encoding of the whole file, so a UTF-8 file with some broken lines stays a
UTF-8 file with some broken lines. UTF-16 is recognised by its byte-order mark or by where its NUL bytes fall. The
second pass (`read_lines`) decodes line by line and says which lines do not fit.
"""

import os.path
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from engine.base.errors import DataError
from engine.base.messages import msg

HEAD_BYTES = 256 * 1024
_CHUNK_BYTES = 1 << 20
_ENOUGH_VOTES = 100_000
"""More lines would not change the outcome, and trying two decoders on each is the slow part of the first pass."""

_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)

_ASCII_RUNS = re.compile(r"[\x00-\x7f]+")
# GB2312 rows 1-3 (punctuation, full-width letters) and 16-55 (the 3,755 common characters): UTF-8 or Latin-1 bytes
# that happen to decode as GB18030 land elsewhere.
_COMMON_GB_LEADS = bytes([*range(0xA1, 0xA4), *range(0xB0, 0xD8)])
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1b\0"))

LineError = tuple[str, str]
"""(code, message) of a line that is not valid in the file's encoding."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What the first pass found out about a file."""

    path: str
    encoding: str
    """A Python codec name: utf-8, utf-8-sig, gb18030, utf-16-le, utf-16-be."""
    bom_bytes: int
    newline: bytes
    """The byte (or UTF-16 unit) that ends a line: line feed, or carriage return in files that have no line feed."""
    sha256: str
    size_bytes: int
    head: bytes
    """The first bytes after the byte-order mark, for recognising what the file contains."""

    @property
    def head_text(self) -> str:
        return self.head.decode(self.encoding, errors="replace")


def scan(path: str) -> Scan:
    """Hash the file and find its encoding in one streaming pass."""
    # 4 ms for OpenSSL, wanted only where a file is read.
    import hashlib

    digest = hashlib.sha256()
    votes = _Votes()
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
            file.seek(0)
            mark, encoding = next(((mark, name) for mark, name in _BOMS if head.startswith(mark)), (b"", ""))
            encoding = encoding or _guess_utf16(head)
            carry = b""
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                if encoding or votes.settled:
                    continue
                carry += chunk
                cut = max(carry.rfind(byte) for byte in (b"\n", b'"', b",", b" ")) + 1
                votes.add(carry[:cut])
                carry = carry[cut:]
            votes.add(carry)
            size_bytes = file.tell()
    except OSError as error:
        raise DataError(msg("{path} cannot be read: {strerror}", path=path, strerror=error.strerror or error)) from None
    if encoding == "utf-32":
        raise DataError(msg("{path} is in UTF-32, which is not supported", path=path), "Save it as UTF-8.")
    encoding = encoding or votes.winner
    head = head[len(mark) :]
    return Scan(path, encoding, len(mark), _newline(head, encoding), digest.hexdigest(), size_bytes, head)


class _Votes:
    """Lines that speak for UTF-8, and lines that speak for GB18030."""

    def __init__(self) -> None:
        self.utf8 = 0
        self.gb18030 = 0

    @property
    def settled(self) -> bool:
        return self.utf8 + self.gb18030 > _ENOUGH_VOTES

    @property
    def winner(self) -> str:
        return "gb18030" if self.gb18030 > self.utf8 else "utf-8"

    def add(self, chunk: bytes) -> None:
        if chunk.isascii():
            return
        lines = [line for line in chunk.split(b"\n") if not line.isascii()]
        if _is_valid(chunk, "utf-8"):
            self.utf8 += len(lines)
            return
        for line in lines:
            if _is_valid(line, "utf-8"):
                self.utf8 += 1
            elif looks_gb18030(line):
                self.gb18030 += 1


def _is_valid(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def looks_gb18030(line: bytes) -> bool:
    """Whether a line decodes as GB18030 into characters that people write, not just into any."""
    try:
        text = line.decode("gb18030")
    except UnicodeDecodeError:
        return False
    foreign = _ASCII_RUNS.sub("", text[:500])
    leads = foreign.encode("gb2312", errors="ignore")[::2]
    common = len(leads) - len(leads.translate(None, _COMMON_GB_LEADS))
    # Three in ten: traditional characters are outside GB2312, but the text around them is not.
    return bool(foreign) and common * 10 >= len(foreign) * 3


def _guess_utf16(head: bytes) -> str:
    """'utf-16-le' or 'utf-16-be' for a file that has no byte-order mark but NULs where ASCII in UTF-16 has them."""
    nuls_even, nuls_odd = head[::2].count(0), head[1::2].count(0)
    nuls = nuls_even + nuls_odd
    if nuls < 2 or min(nuls_even, nuls_odd) > nuls // 20:
        return ""
    encoding = "utf-16-le" if nuls_odd > nuls_even else "utf-16-be"
    if nuls * 4 >= len(head):
        return encoding
    # Few NULs: Chinese in UTF-16, or stray NULs in an 8-bit file. The 8-bit file makes sense line by line.
    lines = [line for line in head.split(b"\n")[:-1] or [head] if line.strip(b"\0\r ")]
    sensible = sum(line.isascii() or _is_valid(line, "utf-8") or looks_gb18030(line) for line in lines)
    if sensible * 2 >= len(lines):
        return ""
    return encoding if _is_valid(head[: len(head) // 2 * 2 - 2], encoding) else ""


def _newline(head: bytes, encoding: str) -> bytes:
    feed, carriage = "\n".encode(encoding.replace("-sig", "")), "\r".encode(encoding.replace("-sig", ""))
    return carriage if feed not in head and carriage in head else feed


def is_binary(scanned: Scan) -> bool:
    """Whether the file holds something other than text: more than one byte in ten is a control character."""
    if scanned.encoding.startswith("utf-16"):
        text = scanned.head_text
        return sum(char < " " and char not in "\t\n\r\f" for char in text) * 10 > len(text)
    controls = len(scanned.head) - len(scanned.head.translate(None, _CONTROLS))
    return controls * 10 > len(scanned.head) or scanned.head.count(0) * 4 > len(scanned.head)


def read_lines(
    scanned: Scan, advance: Callable[[int], None] | None = None
) -> Iterator[tuple[int, str, LineError | None]]:
    """Yield (line number, text with its line end, fault or None); a faulty line comes with U+FFFD in it.

    `advance` is called now and then with the bytes read so far.
    """
    encoding = scanned.encoding.replace("-sig", "")
    done_bytes, told_bytes = scanned.bom_bytes, 0
    with open(scanned.path, "rb") as file:
        file.seek(scanned.bom_bytes)
        # Iterating a binary file splits at line feeds in C.
        raw_lines = file if scanned.newline == b"\n" else _split(file, scanned.newline)
        for number, raw in enumerate(raw_lines, 1):
            fault = None
            try:
                text = raw.decode(encoding)
            except UnicodeDecodeError as error:
                fault = _describe(raw, encoding, error)
                text = raw.decode(encoding, errors="replace")
            if "\0" in text and fault is None:
                fault = ("nul-byte", msg("a NUL byte at column {chr}", chr=text.index(chr(0)) + 1))
            yield number, text, fault
            done_bytes += len(raw)
            if advance and done_bytes - told_bytes >= _CHUNK_BYTES:
                told_bytes = done_bytes
                advance(done_bytes)


def _split(file, newline: bytes) -> Iterator[bytes]:
    """Lines of a file whose line end is not a single line feed; UTF-16 units are only matched at even offsets."""
    width = len(newline)
    carry = b""
    while chunk := file.read(_CHUNK_BYTES):
        carry += chunk
        start = search = 0
        while (newline_at := carry.find(newline, search)) >= 0:
            if newline_at % width:
                search = newline_at + 1
                continue
            yield carry[start : newline_at + width]
            start = search = newline_at + width
        carry = carry[start:]
    if carry:
        yield carry


def _describe(raw: bytes, encoding: str, error: UnicodeDecodeError) -> LineError:
    column = len(raw[: error.start].decode(encoding, errors="replace")) + 1
    name = {"utf-8": "UTF-8", "gb18030": "GB18030"}.get(encoding, "UTF-16")
    guess = ""
    if encoding == "utf-8":
        guess = " (GB18030 among UTF-8 lines?)" if looks_gb18030(raw) else " (cut off, or saved as Windows-1252?)"
    return "bad-encoding", msg(
        "byte 0x{raw:02x} at column {column} is not {name}{guess}",
        raw=raw[error.start],
        column=column,
        name=name,
        guess=guess,
    )


def whole_text(scanned: Scan) -> bool:
    """Whether `head` is the whole file."""
    return scanned.size_bytes <= HEAD_BYTES


def suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()
