"""Text for the starter model: fetch free documentation packages, keep the readable prose.

Every source is a Debian package, so that anyone can fetch the same text with `apt-get download` and
read its licence in `/usr/share/doc/<package>/copyright`. Nothing is installed: the package is unpacked
into the working folder. A document is a run of paragraphs of one page, at most MAX_CHARS long, so that
it fits one training example; code blocks, tables, menus and repeated paragraphs are dropped.
"""

import gzip
import hashlib
import re
import subprocess
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

# About 350 tokens of the starter's tokenizer: a Chinese character costs four times a Latin letter.
MAX_CHARS = {"en": 1300, "zh": 480}


@dataclass(frozen=True)
class Source:
    """One package's pages in one language."""

    package: str
    """Debian package that holds the text."""
    lang: str
    """`en` or `zh`."""
    pages: str
    """Glob of the pages inside the unpacked package."""
    reader: str
    """Which reader turns a page into paragraphs: html, mallard, man, fortune, wordnet."""
    licence: str
    """Licence of the text, as the package's copyright file gives it."""
    about: str
    """What the text is, for the model card."""


SOURCES = (
    Source(
        "python3.11-doc", "en", "usr/share/doc/python3.11/html/**/*.html", "html", "PSF-2.0", "Python documentation"
    ),
    Source(
        "debian-handbook",
        "en",
        "usr/share/doc/debian-handbook/html/en-US/*.html",
        "html",
        "GPL-2.0+ or CC-BY-SA-3.0",
        "The Debian Administrator's Handbook",
    ),
    Source("debian-reference-en", "en", "usr/share/debian-reference/*.en.html", "html", "GPL-2+", "Debian Reference"),
    Source(
        "installation-guide-amd64",
        "en",
        "usr/share/doc/installation-guide-amd64/en/*.html",
        "html",
        "GPL-2",
        "Debian installation guide",
    ),
    Source("gnome-user-docs", "en", "usr/share/help/C/**/*.page", "mallard", "CC-BY-SA-3.0", "GNOME desktop help"),
    Source("git-doc", "en", "usr/share/doc/git-doc/*.html", "html", "GPL-2", "Git manual"),
    Source(
        "debmake-doc", "en", "usr/share/doc/debmake-doc/html/*.en.html", "html", "MIT", "Guide for Debian maintainers"
    ),
    Source(
        "wordnet-base",
        "en",
        "usr/share/wordnet/data.*",
        "wordnet",
        "WordNet 3.0 (BSD-like)",
        "Definitions and example sentences of WordNet",
    ),
    Source(
        "debian-handbook",
        "zh",
        "usr/share/doc/debian-handbook/html/zh-CN/*.html",
        "html",
        "GPL-2.0+ or CC-BY-SA-3.0",
        "The Debian Administrator's Handbook",
    ),
    Source(
        "debian-reference-zh-cn", "zh", "usr/share/debian-reference/*.zh-cn.html", "html", "GPL-2+", "Debian Reference"
    ),
    Source(
        "installation-guide-amd64",
        "zh",
        "usr/share/doc/installation-guide-amd64/zh_CN/*.html",
        "html",
        "GPL-2",
        "Debian installation guide",
    ),
    Source("gnome-user-docs", "zh", "usr/share/help/zh_CN/**/*.page", "mallard", "CC-BY-SA-3.0", "GNOME desktop help"),
    Source(
        "debmake-doc",
        "zh",
        "usr/share/doc/debmake-doc/html/*.zh-cn.html",
        "html",
        "MIT",
        "Guide for Debian maintainers",
    ),
    Source(
        "maint-guide-zh-cn",
        "zh",
        "usr/share/doc/maint-guide-zh-cn/html/*.html",
        "html",
        "GPL-2+",
        "Debian new maintainers' guide",
    ),
    Source("debian-faq-zh-cn", "zh", "usr/share/doc/debian/FAQ/zh-cn/*.html", "html", "its own", "Debian FAQ"),
    Source(
        "debian-edu-doc-zh-cn",
        "zh",
        "usr/share/doc/debian-edu-doc-zh-cn/*bookworm-manual.html",
        "html",
        "GPL-2+",
        "Debian Edu manual",
    ),
    Source(
        "libreoffice-help-zh-cn",
        "zh",
        "usr/share/libreoffice/help/zh-CN/text/**/*.html",
        "html",
        "MPL-2.0",
        "LibreOffice help",
    ),
    Source("gimp-help-zh-cn", "zh", "usr/share/gimp/2.0/help/zh_CN/*.html", "html", "GFDL-1.2+", "GIMP user manual"),
    Source("manpages-zh", "zh", "usr/share/man/zh_CN/man*/*.gz", "man", "GFDL-1.2+", "Chinese manual pages"),
    Source(
        "fortunes-zh",
        "zh",
        "usr/share/games/fortunes/*",
        "fortune",
        "public domain (Tang and Song dynasty poems)",
        "300 Tang poems, 100 Song poems",
    ),
)


def unpack(package: str, work: Path) -> Path:
    """The unpacked package, fetched with apt-get on first use."""
    target = work / "packages" / package
    if not target.is_dir():
        downloads = work / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", package], cwd=downloads, check=True)
        archive = max(downloads.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime)
        partial = target.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", archive, partial], check=True)
        partial.rename(target)
    return target


def documents(source: Source, work: Path) -> Iterator[str]:
    """Documents of one source: cleaned paragraphs, in page order, cut at MAX_CHARS."""
    root = unpack(source.package, work)
    for page in sorted(root.glob(source.pages)):
        if page.is_symlink() or page.is_dir():
            continue
        yield from _cut(
            [p for p in map(_tidy, READERS[source.reader](page)) if _is_prose(p, source.lang)], MAX_CHARS[source.lang]
        )


class Deduplicator:
    """Drops paragraphs seen before: menus, licence texts, the same warning on every page."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def keep(self, document: str) -> str:
        """The document without the paragraphs that an earlier one held."""
        fresh = []
        for paragraph in document.split("\n"):
            key = hashlib.blake2b(re.sub(r"[\W\d]+", "", paragraph.lower()).encode(), digest_size=8).digest()
            if key not in self._seen:
                self._seen.add(key)
                fresh.append(paragraph)
        return "\n".join(fresh)


def _cut(paragraphs: list[str], limit: int) -> Iterator[str]:
    held: list[str] = []
    for paragraph in paragraphs:
        for piece in _pieces(paragraph, limit):
            if held and sum(map(len, held)) + len(piece) > limit:
                yield "\n".join(held)
                held = []
            held.append(piece)
    if held:
        yield "\n".join(held)


def _pieces(paragraph: str, limit: int) -> Iterator[str]:
    """A paragraph longer than the limit, cut after sentences."""
    piece = ""
    for sentence in re.split(r"(?<=[.!?]) |(?<=[。！？；])", paragraph):
        if piece and len(piece) + len(sentence) > limit:
            yield piece.strip()
            piece = ""
        space = " " if piece and piece[-1] in ".!?" else ""
        piece = (piece + space + sentence)[: 2 * limit]
    if piece.strip():
        yield piece.strip()


def _tidy(text: str) -> str:
    text = unicodedata.normalize("NFC", text).replace("\u00ad", "").replace("¶", "").replace("\ufeff", "")
    text = re.sub(r"\s+", " ", text).strip()
    # Line ends inside a Chinese paragraph are layout, not spaces between words.
    return re.sub(
        r"(?<=[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]) (?=[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef])", "", text
    )


def _han(text: str) -> int:
    return len(re.findall(r"[\u4e00-\u9fff]", text))


def _is_prose(text: str, lang: str) -> bool:
    """Sentences a person would read, not an index line, a listing or a table of numbers."""
    if lang == "zh":
        return len(text) >= 8 and _han(text) >= 0.45 * len(text)
    letters = sum(c.isalpha() and c.isascii() for c in text)
    words = text.split()
    return len(words) >= 5 and letters >= 0.72 * len(text) and sum(map(len, words)) / len(words) < 9


class _Paragraphs(HTMLParser):
    """Text of the block elements of an HTML or Mallard page."""

    SKIP = {
        "script",
        "style",
        "pre",
        "nav",
        "footer",
        "table",
        "head",
        "screen",
        "info",
        "button",
        "select",
        "svg",
        "figure",
        "code-block",
    }
    BLOCK = {
        "p",
        "li",
        "dd",
        "dt",
        "h1",
        "h2",
        "h3",
        "h4",
        "div",
        "section",
        "title",
        "item",
        "body",
        "ul",
        "ol",
        "dl",
        "note",
        "steps",
        "list",
    }
    VOID = {"br", "img", "hr", "meta", "link", "input", "col", "wbr", "media"}
    # Sphinx and DocBook mark menus and signatures by class only.
    NOISE = re.compile(
        r"\b(sphinxsidebar|related|footer|navheader|navfooter|toc|indextable|sig|highlight|headerlink|docnav|breadcrumbs?)\b"
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.paragraphs: list[str] = []
        self._text: list[str] = []
        self._open: list[tuple[str, bool]] = []

    def _flush(self) -> None:
        self.paragraphs.append("".join(self._text))
        self._text = []

    def handle_starttag(self, tag, attrs):
        if tag in self.VOID:
            return
        if tag in self.BLOCK:
            self._flush()
        noise = tag in self.SKIP or any(k == "class" and v and self.NOISE.search(v) for k, v in attrs)
        self._open.append((tag, noise))

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag in self.BLOCK:
            self._flush()
        # Pages leave li, p and dd open; close whatever lies above the tag that ends.
        if any(name == tag for name, _ in self._open):
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data):
        if not any(noise for _, noise in self._open):
            self._text.append(data)


def _read_html(page: Path) -> list[str]:
    if page.name.startswith(("genindex", "py-modindex", "search", "bk01-toc")) or "whatsnew/changelog" in str(page):
        return []
    parser = _Paragraphs()
    parser.feed(page.read_text("utf-8", errors="ignore"))
    parser._flush()
    return parser.paragraphs


def _read_man(page: Path) -> list[str]:
    """Prose of a roff page: macros that set words keep them, those that lay out end a paragraph."""
    text = gzip.decompress(page.read_bytes()).decode("utf-8", errors="ignore")
    paragraphs, held, quiet = [], [], False
    for line in text.split("\n"):
        if re.match(r"\.\s*(nf|EX|TS|Bd)\b", line):
            quiet = True
        elif re.match(r"\.\s*(fi|EE|TE|Ed)\b", line):
            quiet = False
        elif quiet or line.startswith(
            ('.\\"', "'\\\"", ".TH", ".Dd", ".ds", ".de", ".if", ".ie", ".el", ".so", ".SH", ".SS")
        ):
            pass
        elif words := re.match(r"\.\s*(?:B|I|BR|BI|IR|RB|RI|IB|SM|Nm|Ar|Fl|Xr|Pa|Em)\s+(.*)", line):
            held.append(words[1].replace('"', ""))
            continue
        elif not line.startswith((".", "'")) and line.strip():
            held.append(line)
            continue
        paragraphs.append(" ".join(held))
        held = []
    paragraphs.append(" ".join(held))
    return [_unroff(p) for p in paragraphs]


def _unroff(text: str) -> str:
    text = re.sub(r"\\f(\[[^]]*\]|\(..|.)", "", text)
    text = (
        re.sub(r"\\s[-+]?\d", "", text).replace("\\-", "-").replace("\\&", "").replace("\\e", "\\").replace("\\ ", " ")
    )
    text = re.sub(r"\\\((lq|rq|aq|dq)", '"', text)
    return re.sub(r"\\(\((..)|\*\(..|\*.|[|^%:/,])", "", text)


def _read_fortune(page: Path) -> list[str]:
    """The poems; the package's other file repeats manuals that are read above."""
    if page.name not in {"tang300", "song100"}:
        return []
    text = re.sub(r"\x1b\[[\d;]*m", "", page.read_text("utf-8", errors="ignore"))
    return [" ".join(line.strip() for line in poem.split("\n")) for poem in text.split("\n%\n")]


def _read_wordnet(page: Path) -> list[str]:
    """One sentence per synset that most people know: its words, its gloss, its examples."""
    paragraphs = []
    for line in page.read_text("utf-8", errors="ignore").split("\n"):
        fields, bar, gloss = line.partition(" | ")
        if not bar or line.startswith(" "):
            continue
        parts = fields.split(" ")
        words = [w.replace("_", " ").split("(")[0] for w in parts[4 : 4 + 2 * int(parts[3], 16) : 2]]
        if any(c.isupper() or c.isdigit() for c in "".join(words)):
            continue
        gloss, *examples = re.split(r'; (?=")', gloss.strip())
        text = f"{', '.join(words)}: {gloss}."
        for example in examples:
            text += " " + example.strip().strip('"').strip().capitalize().rstrip(".;") + "."
        paragraphs.append((bool(examples), text))
    # Glosses with examples are the everyday words; the rest is mostly taxonomy, one in six is plenty.
    return [text for n, (common, text) in enumerate(paragraphs) if common or n % 6 == 0]


READERS = {
    "html": _read_html,
    "mallard": _read_html,
    "man": _read_man,
    "fortune": _read_fortune,
    "wordnet": _read_wordnet,
}
