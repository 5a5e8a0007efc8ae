"""Data files with faults planted in them, and where: the answer sheet for what a check must find, and nothing else."""

import csv
import io
import json
import random
from dataclasses import dataclass, field
from pathlib import Path

from stdnum import iban, luhn
from stdnum.cn import ric

_ENGLISH = (  # noqa: SIM905 - words read better than a list of them
    "card bank river window copper garden morning letter engine coffee paper bridge winter doctor market yellow silver "
    "travel ticket school mountain kitchen number station island village forest planet butter candle pencil ladder "
    "mirror orange pillow rocket saddle tunnel violin wallet anchor basket camera desert fabric guitar hammer jacket "
    "kettle lemon magnet needle office parcel quarter ribbon shadow temple urgent valley whistle harbour blanket"
).split()
_CHINESE = (
    "银行卡片河流窗户花园早晨信件引擎咖啡纸张桥梁冬天医生市场黄色旅行车票学校高山厨房号码车站岛屿村庄森林行星"
    "蜡烛铅笔镜子橙子枕头火箭隧道钱包篮子相机沙漠布料吉他锤子夹克水壶柠檬磁铁针线办公包裹丝带影子寺庙山谷毛毯"
)
_LABELS = ("arrival", "refund", "limit", "退款", "限额", "other")
FORMATS = ("chat", "pairs-csv", "labels-csv", "pairs-tsv", "pairs-json", "alpaca-json-indented")
ENCODINGS = ("utf-8", "utf-8-sig", "gb18030", "utf-16")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass
class Case:
    data: bytes
    name: str
    expected: set[tuple[str, int]] = field(default_factory=set)
    """(kind, line), all of them."""
    test: bytes = b""
    planted: tuple[str, ...] = ()


@dataclass
class _Row:
    question: str
    answer: str
    kinds: tuple[str, ...] = ()
    raw: str = ""
    """How the row is damaged in the file itself: 'bytes', 'json', 'columns', 'order' or ''."""


def make(seed: int) -> Case:
    """One file of 20 to 90 rows in some format and encoding; every fifth is clean."""
    chance = random.Random(seed)
    form, encoding = chance.choice(FORMATS), chance.choice(ENCODINGS)
    labels = form == "labels-csv"
    rows = [_row(chance, labels) for _ in range(chance.randrange(20, 90))]
    free = list(range(len(rows)))
    chance.shuffle(free)
    tested: list[_Row] = [_row(chance, labels) for _ in range(8)]
    added: list[tuple[int, _Row]] = []
    planted = ()
    if seed % 5:
        planted = tuple(chance.sample(_PLANTS, chance.randrange(1, 7)))
        for plant in planted:
            _plant(plant, chance, rows, free, tested, added, form, encoding)
    for place, row in sorted(added, key=lambda one: -one[0]):
        rows.insert(place, row)
    suffix = {"chat": "jsonl", "pairs-tsv": "tsv"}.get(form, "json" if "json" in form else "csv")
    data, lines = _written(rows, form, encoding, chance)
    expected = {(kind, line) for row, line in zip(rows, lines, strict=True) for kind in row.kinds}
    return Case(data, f"case{seed}.{suffix}", expected, _written(tested, form, encoding, chance)[0], planted)


_PLANTS = (
    "duplicate",
    "near-duplicate",
    "contradiction",
    "leak",
    "near-leak",
    "secret",
    "identity",
    "contact",
    "mojibake",
    "lost",
    "control",
    "empty",
    "bytes",
    "torn",
    "order",
)


def _plant(plant, chance, rows, free, tested, added, form, encoding) -> None:
    at = free.pop()
    row = rows[at]
    later = chance.randrange(at + 1, len(rows) + 1)
    if plant == "duplicate":
        question = row.question.upper() if chance.random() < 0.3 else row.question
        added.append((later, _Row(question, row.answer, ("duplicates",))))
    elif plant == "near-duplicate":
        added.append((later, _Row(_nearly(chance, row.question), row.answer, ("near-duplicates",))))
    elif plant == "contradiction":
        row.answer, other = ("refund", "limit") if form == "labels-csv" else ("yes, you can", "no, you cannot")
        row.kinds = ("contradictions",)
        if form != "labels-csv":
            row.kinds += ("short-answers",) if len(row.answer) < 3 else ()
        added.append((later, _Row(row.question, other, ("contradictions",))))
    elif plant == "leak":
        tested.append(_Row(row.question, row.answer))
        row.kinds = ("leaks",)
    elif plant == "near-leak":
        tested.append(_Row(_nearly(chance, row.question), row.answer))
        row.kinds = ("near-leaks",)
    elif plant == "secret":
        row.question += f" {secret(chance)} "
        row.kinds = ("secrets",)
    elif plant == "identity":
        row.question += f" {identity(chance)} "
        row.kinds = ("identity",)
    elif plant == "contact":
        row.question += chance.choice((" kim.lee@mail.dk ", " +49 30 901820 ", " 13812345678 ", " (212) 736-5000 "))
        row.kinds = ("contacts",)
    elif plant == "mojibake":
        row.question += " " + _mojibake(chance)
        row.kinds = ("encoding",)
    elif plant == "lost":
        row.question += " caf\ufffd "
        row.kinds = ("encoding",)
    elif plant == "control":
        row.question += " a" + chance.choice("\x07\x1b\u202e\x9b") + "b"
        row.kinds = ("controls",)
    elif plant == "empty":
        row.answer = chance.choice(("", "  "))
        row.kinds = ("unreadable",)
    elif plant == "bytes" and encoding.startswith("utf-8"):
        row.raw, row.kinds = "bytes", ("unreadable",)
    elif plant == "torn" and form in ("chat", "pairs-csv", "labels-csv"):
        row.raw, row.kinds = "torn", ("unreadable",)
    elif plant == "order" and form == "chat":
        row.raw = chance.choice(("order", "twice"))
        row.kinds = ("unreadable",) if row.raw == "order" else ("roles",)


def _row(chance: random.Random, labels: bool) -> _Row:
    if chance.random() < 0.5:
        question = " ".join(chance.choice(_ENGLISH) for _ in range(chance.randrange(7, 15))).capitalize() + "?"
    else:
        question = "".join(chance.choice(_CHINESE) for _ in range(chance.randrange(14, 40))) + "？"
    if chance.random() < 0.1:
        question = question[:6] + "\n" + question[6:]
    if labels:
        return _Row(question, chance.choice(_LABELS))
    words = " ".join(chance.choice(_ENGLISH) for _ in range(chance.randrange(12, 30)))
    return _Row(
        question, words if chance.random() < 0.5 else "".join(chance.choices(_CHINESE, k=chance.randrange(30, 90)))
    )


def _nearly(chance: random.Random, text: str) -> str:
    """The same question with another end, a letter less, or a character doubled."""
    at = chance.randrange(3, len(text) - 3)
    return chance.choice((text[:-1] + "!!", text[:at] + text[at + 1 :], text[:at] + text[at] + text[at:])) + "…"


def _mojibake(chance: random.Random) -> str:
    """A text in UTF-8 that was read as Latin-1, Windows-1252 or GBK, or one in GBK read as Latin-1."""
    wrong = chance.choice(("latin-1", "cp1252", "gbk", "from-gbk"))
    while True:
        text = chance.choice(("“Café” naïve", "straße für alle", "".join(chance.choices(_CHINESE, k=6))))
        try:
            if wrong == "cp1252":
                return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in text.encode())
            if wrong == "latin-1":
                return text.encode().decode("latin-1")
            if text[0] in _CHINESE:
                return text.encode().decode("gbk") if wrong == "gbk" else text.encode("gbk").decode("latin-1")
        except UnicodeDecodeError:
            continue  # six characters are nine of GBK's, if their bytes happen to pair


def secret(chance: random.Random) -> str:
    def some(count: int, alphabet: str = _ALPHABET) -> str:
        return "".join(chance.choices(alphabet, k=count))

    upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    return chance.choice(
        (
            f"AKIA{some(16, upper)}",
            f"ghp_{some(36)}",
            f"github_pat_{some(60)}",
            f"glpat-{some(20)}",
            f"hf_{some(34)}",
            f"sk-{some(48)}",
            f"sk-ant-api03-{some(60)}",
            f"xoxb-{some(12, '0123456789')}-{some(24)}",
            f"AIza{some(35)}",
            f"sk_live_{some(24)}",
            f"npm_{some(36)}",
            f"eyJ{some(30)}.eyJ{some(40)}.{some(43)}",
            f"LTAI{some(20)}",
            f"-----BEGIN RSA PRIVATE KEY----- {some(64)}",
            f"postgres://admin:{some(12)}@db.intern.net/main",
            f'api_key = "{some(31)}7"',
        )
    )


def identity(chance: random.Random) -> str:
    def digits(count: int) -> str:
        return "".join(chance.choices("0123456789", k=count))

    def card() -> str:
        number = f"4{digits(14)}"
        number += luhn.calc_check_digit(number)
        return chance.choice((number, " ".join(number[at : at + 4] for at in range(0, 16, 4))))

    def chinese() -> str:
        number = f"11010519{chance.randrange(50, 99)}0{chance.randrange(1, 9)}{chance.randrange(10, 28)}{digits(3)}"
        return number + ric.calc_check_digit(f"{number}0")

    def german_iban() -> str:
        account = f"37040044{digits(10)}"
        return f"DE{iban.calc_check_digits(f'DE00{account}')}{account}"

    return chance.choice(
        (card, chinese, german_iban, lambda: f"{chance.randrange(100, 600)}-{chance.randrange(10, 99)}-4321")
    )()


def _written(rows: list[_Row], form: str, encoding: str, chance: random.Random) -> tuple[bytes, list[int]]:
    """The file, and the line each row starts on."""
    pieces: list[str] = []
    if "csv" in form or "tsv" in form:
        names = ("text", "label") if form == "labels-csv" else ("question", "answer")
        delimiter = "\t" if "tsv" in form else ","
        pieces.append(_cells(names, delimiter))
        for row in rows:
            piece = _cells((row.question, row.answer), delimiter)
            pieces.append(f"one,{row.answer},{row.question.split()[0]},more\n" if row.raw == "torn" else piece)
        firsts = pieces[1:]
    elif form == "chat":
        for row in rows:
            asked, said = {"role": "user", "content": row.question}, {"role": "assistant", "content": row.answer}
            turns = {"order": [asked, said, {"role": "system", "content": "be good"}, asked, said]}.get(row.raw)
            turns = (
                [asked, {"role": "user", "content": "well?"}, said] if row.raw == "twice" else turns or [asked, said]
            )
            text = json.dumps({"messages": turns}, ensure_ascii=False)
            pieces.append((text[: len(text) // 2] if row.raw == "torn" else text) + "\n")
        firsts = pieces
    else:
        names = ("instruction", "output") if "alpaca" in form else ("prompt", "completion")
        pieces.append("[\n")
        for number, row in enumerate(rows):
            item = dict(zip(names, (row.question, row.answer), strict=True))
            indent = 2 if "indented" in form else None
            text = json.dumps(item, ensure_ascii=False, indent=indent)
            pieces.append(text + (",\n" if number < len(rows) - 1 else "\n]\n"))
        firsts = pieces[1:]
    offset = len(pieces) - len(firsts) if form != "chat" else 0
    line = 1 + sum(piece.count("\n") for piece in pieces[:offset])
    lines = []
    data = b"".join(piece.encode(encoding) for piece in pieces[:1]) if offset else b""
    mark = b"" if offset else "".encode(encoding)
    data = data or mark
    for row, piece in zip(rows, pieces[offset:], strict=True):
        fault_line = line
        raw = piece.encode({"utf-8-sig": "utf-8", "utf-16": "utf-16-le"}.get(encoding, encoding))
        if row.raw == "bytes":
            # In the first quoted text of the row; the line told is the line of the bytes.
            at = raw.rfind(row.answer[:1].encode())
            at = raw.index(row.question[:5].encode())
            fault_line = line + raw[:at].count(b"\n")
            raw = raw[:at] + b"\xff\xfe\xfa" + raw[at:]
        lines.append(fault_line)
        data += raw
        line += piece.count("\n")
    return data, lines


def _cells(cells: tuple[str, ...], delimiter: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerow(cells)
    return text.getvalue()


def faults_missed(case: Case, folder: Path) -> str:
    """'' when a check of the case finds exactly what was planted; else what it missed and what it made up."""
    from engine.data import check

    path, test = folder / case.name, folder / f"test-{case.name}"
    path.write_bytes(case.data)
    test.write_bytes(case.test)
    found = {(find.kind, find.line) for find in check(str(path), test=str(test), max_finds=None).finds}
    missed, made_up = sorted(case.expected - found), sorted(found - case.expected)
    if not missed and not made_up:
        return ""
    return f"{case.name} ({', '.join(case.planted)}): missed {missed}, made up {made_up}"
