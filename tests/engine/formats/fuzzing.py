"""Data and config files as they get damaged, made from a seed: valid ones of every format, then torn, mixed and bent.

`run(seed, folder)` makes one case and drives what reads it. It returns a complaint where a promise is broken: anything
raised but an EngineError, more than SECONDS of processor time, a row that is neither read nor refused nor told.
"""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import random
import shutil
import signal
import traceback
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.base.errors import EngineError
from engine.data import check, clean, convert, split
from engine.formats import FORMATS, check_bad_share, files_told, read_data
from engine.runs.run_folder import check_data
from engine.settings.config_file import read_config_file
from engine.settings.resolve import Layer, resolve

SECONDS = 10
_WORDS = [
    "hi",
    "你好，世界",
    "",
    " ",
    "a\nb",
    'say "x"',
    "é",
    "\x00",
    "\ud800",
    "<image>",
    "x" * 5000,
    "🙂",
    "1",
    "null",
]
_VALUES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2.5,
    10**400,
    1e308,
    [],
    {},
    [[]],
    [None],
    {"a": {"b": []}},
    ["a", "b"],
    "[",
    "{}",
]
_PARTS = ["train", "test", "validation", "data", "rows", "dev"]
_ENCODINGS = ["utf-8"] * 6 + ["utf-8-sig", "gb18030", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "utf-32"]
_TOKENS = [
    b"\0", b'"', b"'", b"\n", b"\r", b"\r\n", b"{", b"}", b"[", b"]", b",", b":", b"\t", b"NaN", b"-Infinity", b"null",
    b"\\ud800", b"\\u0000", b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"1e999", b"\xef\xbb\xbf", b"\xff\xfe", b"\\",
    b"x" * 70_000, b"\n" * 70_000, b"\r" * 9000, b" 1" * 20_000, b"a@" * 20_000, b"<" * 20_000, b"Human:\n" * 5000,
    b"\x85", b"\x0c", b"\xef\xbf\xbe", b'{"a": 1, "a": 2}', b"-0", b"\xc0\x80", b"PK\x03\x04",
    b"sep=;\n", b"PAR1", b"\x1f\x8b", b"\xe2\x80\xa8", b'{"prompt": 1}\n', b"\x1b[31m", b'"prompt":',
]  # fmt: skip


def text(dice: random.Random) -> str:
    return dice.choice(_WORDS) if dice.random() < 0.3 else f"{dice.choice(['ask', '问题', 'Say'])} {dice.randrange(50)}"


def call(dice: random.Random) -> dict:
    return {"name": dice.choice(["f", "g", ""]), "arguments": dice.choice([{}, '{"a": 1}', "{", {"x": text(dice)}])}


def chat(dice: random.Random, role: str, content: str, names: tuple[str, str, str]) -> list[dict]:
    turns = [{role: names[0], content: text(dice)}, {role: names[1], content: text(dice)}]
    if dice.random() < 0.3:
        asks = {role: names[1], content: None, "tool_calls": [call(dice)]}
        turns = [turns[0], dice.choice([asks, {role: names[1], content: "<tool_call>{}</tool_call>"}])]
        turns += [{role: "tool", content: text(dice)}, {role: names[1], content: text(dice)}]
    if dice.random() < 0.3:
        turns.insert(0, {role: names[2], content: text(dice)})
    if dice.random() < 0.3:
        extra = dice.choice(["thinking", "reasoning", "weight", "images", "refusal", "name", "loss", "mood", "value"])
        dice.choice(turns)[extra] = dice.choice([text(dice), 0, 1, True, None, ["a.png"]])
    return turns


def row(dice: random.Random) -> Any:
    """A row of some format, sound in itself."""
    one, two = text(dice), text(dice)
    rows = [
        {"messages": chat(dice, "role", "content", ("user", "assistant", "system"))},
        {"conversations": chat(dice, "from", "value", ("human", "gpt", "system")), "tools": json.dumps([call(dice)])},
        {"instruction": one, "input": text(dice), "output": two, "history": [[one, two]]},
        {"prompt": one, "completion": two},
        {"question": one, "answer": two, "context": text(dice)},
        {"text": one, "label": dice.choice(["Card", "card", "café", "cafe\u0301", 3, None])},
        {"text": one},
        {"conversations": [one, two]},
        {"id": "1", "data": [one, two]},
        {"conversation": [{"human": one, "assistant": two}]},
        {"prompt": one, "chosen": two, "rejected": one},
        {"prompt": one, "completion": two, "label": dice.choice([True, False])},
        {"query": one, "tools": json.dumps([call(dice)]), "answers": json.dumps([call(dice)])},
        {"question": one, "choices": [one, two], "answer": dice.randrange(3)},
        {"question": one, "answers": {"text": [two], "answer_start": [0]}},
        {"row_idx": 0, "row": {"prompt": one, "completion": two}},
        chat(dice, "role", "content", ("user", "assistant", "developer")),
        {"system": [{"text": one}], "messages": [{"role": "user", "content": [part(dice), {"text": one}]}]},
        {"systemInstruction": {"parts": [part(dice)]}, "contents": [{"role": "user", "parts": [part(dice)]}]},
        {"prompt": f"Human: {one}\nAssistant: {two}\nHuman: {one}\nAssistant:", "response": two, "is_safe": True},
        {"input": one, "reasoning_content": dice.choice([two, None, ""]), "content": two},
        {"prompt": [{"role": "user", "content": one}], "completion": [{"role": "assistant", "content": two}]},
        {
            "conversation": [
                {"system": one, "input": one, "output": two, "output_with_loss": dice.choice([True, False])}
            ]
        },
        {"messages": chat(dice, "role", "content", ("user", "assistant", "system")), "tools": [json.dumps(call(dice))]},
        {
            "input": {"messages": [{"role": "user", "content": one}]},
            "preferred_output": [],
            "non_preferred_output": two,
        },
        {"text": f"### Human: {one}### Assistant: {two}"},
        {"text": one, "label": two, "answer": dice.choice(["accept", "reject", "ignore"])},
        {"instruction": one, "instances": [{"input": one, "output": two}]},
    ]
    return dice.choice(rows)


def part(dice: random.Random) -> Any:
    """A piece of a message, of which some are no text."""
    parts = [{"text": text(dice)}, {"type": "text", "text": text(dice)}, text(dice), {"functionCall": call(dice)}]
    parts += [
        {"inlineData": {"mimeType": "image/png"}},
        {"type": "tool_use", "name": "f"},
        {"text": "t", "thought": True},
    ]
    parts += [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "input_audio"}, {}, None, {"type": None}]
    return dice.choice(parts)


def rows(dice: random.Random) -> list:
    """Mostly of one format, with a split or another column beside."""
    seed = dice.random()
    made = []
    for _ in range(dice.randrange(1, 25)):
        made.append(row(dice if dice.random() < 0.1 else _Same(seed, dice)))
        if dice.random() < 0.1 and isinstance(made[-1], dict):
            made[-1][dice.choice(["split", "title", "image", "weight", "Prompt"])] = dice.choice([*_PARTS, *_VALUES])
        if dice.random() < 0.1:
            made[-1] = bent(dice, made[-1])
    return made


class _Same(random.Random):
    """Chooses the same format each time, and other words."""

    def __init__(self, seed: float, dice: random.Random) -> None:
        super().__init__(dice.random())
        self._format = seed

    def choice(self, seq):
        return seq[int(self._format * len(seq))] if len(seq) == 28 else super().choice(seq)


def bent(dice: random.Random, value: Any) -> Any:
    """The value with something in it replaced, left out, renamed or nested deep."""
    what = dice.randrange(6)
    if what == 0 or not isinstance(value, (dict, list)) or not value:
        return dice.choice([*_VALUES, *_WORDS])
    if isinstance(value, list):
        at = dice.randrange(len(value))
        return [*value[:at], bent(dice, value[at]), *value[at + (what == 1) :]]
    key = dice.choice(list(value))
    if what == 1:
        return {name: held for name, held in value.items() if name != key}
    if what == 2:
        return {
            dice.choice([key.upper(), key + " ", "x", "", *_PARTS]) if name == key else name: held
            for name, held in value.items()
        }
    if what == 3:
        deep: Any = value[key]
        for _ in range(dice.choice([3, 500])):
            deep = [deep] if dice.random() < 0.5 else {"a": deep}
        return {**value, key: deep}
    return {**value, key: bent(dice, value[key])}


def written(dice: random.Random, made: list) -> tuple[str, str]:
    """(text, ending) in one of the ways rows are written."""
    ascii_only = dice.random() < 0.3
    indent = dice.choice([None, None, 1, 2])

    def dumped(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=ascii_only, indent=indent)

    if dice.random() < 0.1:
        made = made[:3] * 50  # more than is looked at before the format is decided
    way = dice.randrange(10)
    if way <= 2:
        return "".join(dumped(one) + "\n" for one in made), ".jsonl"
    if way == 3:
        return dumped(made, indent), ".json"
    if way == 4:
        cut = dice.randrange(len(made) + 1)
        return dumped(
            {dice.choice(_PARTS): made[:cut], dice.choice(_PARTS): made[cut:], "note": text(dice)}, indent
        ), ".json"
    if way == 9:
        keys = dice.sample(["Positive Examples", "Negative Examples", "features", "rows", "Definition"], 3)
        return dumped({key: made for key in keys}, indent), ".json"
    if way == 5:
        return dumped({str(at): one for at, one in enumerate(made)}, indent), ".json"
    objects = [one for one in made if isinstance(one, dict)]
    names = list(dict.fromkeys(name for one in objects for name in one))
    if way == 6:
        return dumped({name: [one.get(name) for one in objects] for name in names}, indent), ".json"
    delimiter = dice.choice(",\t;|")
    cells = [names, *([one.get(name, "") for name in names] for one in objects)]
    lines = (delimiter.join('"' + f"{cell}".replace('"', '""') + '"' for cell in line) for line in cells)
    return dice.choice(["", "", "", "sep=;\n"]) + "\n".join(lines) + "\n", dice.choice([".csv", ".tsv", ""])


def damaged(dice: random.Random, data: bytes) -> bytes:
    content = bytearray(data)
    for _ in range(dice.choice([0, 0, 1, 1, 2, 4])):
        at = dice.randrange(len(content) + 1)
        what = dice.randrange(7)
        if what == 0:
            del content[at:]
        elif what == 1:
            content[at:at] = dice.randbytes(dice.randrange(9))
        elif what == 2:
            del content[at : at + dice.randrange(1, 30)]
        elif what == 3:
            content[at:at] = '混合 mixed é"\n'.encode(dice.choice(["utf-8", "gb18030", "utf-16", "big5"]), "replace")
        elif what == 4:
            content[at:at] = dice.choice(_TOKENS)
        elif what == 5:
            content[at:at] = content[dice.randrange(len(content) + 1) :][: dice.randrange(1, 500)]
        elif content:
            content[min(at, len(content) - 1)] ^= 1 << dice.randrange(8)
    return bytes(content)


def file_of(dice: random.Random) -> tuple[bytes, str]:
    content, ending = written(dice, rows(dice))
    if dice.random() < 0.1:
        content = content.replace("\n", dice.choice(["\r", "\r\n", "\n\r", "\u2028"]))
    encoding = dice.choice(_ENCODINGS)
    data = content.encode(encoding, errors="surrogatepass" if encoding.startswith("utf") else "replace")
    return damaged(dice, data), dice.choice([ending, ending, ending, "", ".txt", ".json", ".csv", ".parquet"])


def parquet_of(dice: random.Random) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    with contextlib.suppress(pyarrow.ArrowException, TypeError, OverflowError, UnicodeEncodeError, ValueError):
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist([one for one in rows(dice) if isinstance(one, dict)]), file
        )
    return damaged(dice, file.getvalue())


def packed(dice: random.Random, data: bytes) -> tuple[bytes, str]:
    """The data as it is compressed, archived, or kept by other programs."""
    how = dice.randrange(5)
    if how == 0:
        return gzip.compress(data, 1), dice.choice([".gz", ".jsonl"])
    if how == 1:
        return bz2.compress(data, 1), ".bz2"
    if how == 2:
        return lzma.compress(data, preset=0), ".xz"
    file = io.BytesIO()
    if how == 3:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(dice.choice(["data.jsonl", "xl/workbook.xml"]), data)
        return file.getvalue(), dice.choice([".zip", ".xlsx", ".csv"])
    import pyarrow

    table = pyarrow.table({"prompt": ["a"], "completion": ["b"], "raw": [data[:99]]})
    kind = dice.choice([pyarrow.ipc.new_file, pyarrow.ipc.new_stream])
    with kind(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue(), ".arrow"


def odd_parquet(dice: random.Random) -> bytes:
    """Types that JSON has no values for, columns of one name, no rows."""
    import pyarrow
    import pyarrow.parquet

    made = {
        "prompt": pyarrow.array(["a", None, "c"], dice.choice([pyarrow.string(), pyarrow.large_string()])),
        "completion": dice.choice(
            [
                pyarrow.array([b"x", b"\xff", None]),
                pyarrow.array([1, 2, None], pyarrow.decimal128(5)),
                pyarrow.array([0, 10**12, None], pyarrow.timestamp("s")),
                pyarrow.array(["x", "y", "x"]).dictionary_encode(),
                pyarrow.array([[("a", 1)], [], None], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
                pyarrow.array([float("nan"), 1.5, None]),
                pyarrow.nulls(3),
            ]
        ),
    }
    names = dice.choice([["prompt", "completion"], ["prompt", "prompt"], ["text", "label"], ["", "completion"]])
    table = pyarrow.Table.from_arrays(list(made.values()), names)
    file = io.BytesIO()
    pyarrow.parquet.write_table(table.slice(0, dice.choice([0, 3, 3])), file)
    return damaged(dice, file.getvalue()) if dice.random() < 0.5 else file.getvalue()


def source_of(dice: random.Random, folder: Path) -> str:
    """A file, a folder, or one part of either."""
    if dice.random() < 0.85:
        what = dice.random()
        data, ending = (parquet_of(dice), ".parquet") if what < 0.05 else file_of(dice)
        if 0.05 <= what < 0.08:
            data, ending = packed(dice, data)
        elif 0.08 <= what < 0.1:
            data, ending = odd_parquet(dice), ".parquet"
        path = folder / f"data{ending}"
        path.write_bytes(data)
    else:
        path = folder / "set"
        for _ in range(dice.randrange(1, 4)):
            data, ending = file_of(dice)
            name = dice.choice(["train", "test", "a", "b_dev", "data/train-00000-of-00001", "README", "dataset_dict"])
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / f"{name}{ending}").write_bytes(packed(dice, data)[0] if dice.random() < 0.05 else data)
        if dice.random() < 0.2:
            dice.choice(
                [
                    lambda: (path / "loop").symlink_to(path),
                    lambda: (path / "gone.jsonl").symlink_to(path / "nothing"),
                    lambda: os.mkfifo(path / "pipe.jsonl"),
                    lambda: (path / "more" / "x.csv").mkdir(parents=True),
                    lambda: (path / "data-00000-of-00001.arrow").write_bytes(b"ARROW1"),
                ]
            )()
    return f"{path}:{dice.choice(_PARTS)}" if dice.random() < 0.05 else str(path)


def options_of(dice: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if dice.random() < 0.15:
        options["format"] = dice.choice(FORMATS)
    if dice.random() < 0.15:
        names = ["prompt", "completion", "text", "label", "messages", "question", "answer", "conversations", "nope"]
        roles = dice.sample(
            ["prompt", "completion", "text", "label", "messages", "tools", "system"], dice.randrange(1, 3)
        )
        options["mapping"] = {role: dice.choice(names) for role in roles}
    return options


def read(dice: random.Random, source: str, options: dict) -> None:
    use = dice.choice(["training", "training", "training-only", "validation", "evaluation", "all"])
    objective = dice.choice(["sft", "sft", "pretrain"])
    try:
        report = read_data(source, objective=objective, use=use, system=dice.choice([None, "s"]), **options)
    except EngineError as error:
        str(error).encode()
        report = getattr(error, "report", None)
        if report is None:
            return
    account(report)
    with contextlib.suppress(EngineError):
        check_bad_share(report, 0.05)
    files = [{"path": file.path, "notes": file.notes, "ignored": file.ignored} for file in report.files]
    told = files_told({"files": files, "left_out": report.left_out})
    for line in [*told, *map(str, report.problems)]:
        assert not any(char in "\0\r\x1b" for char in line), line


def account(report: Any) -> None:
    for file in report.files:
        assert file.rows == file.read_rows + file.bad_rows + file.set_aside, file
        if file.container == "jsonl" and file.encoding == "utf-8":
            lines = Path(file.path).read_bytes().split(b"\n")
            filled = sum(bool(line.decode(errors="replace").strip(" \t\r\n\ufeff")) for line in lines)
            assert file.rows == filled or len(lines) == 1, f"{file.rows} rows of {filled} lines"
        elif file.container == "json" and (listed := whole_list(file.path, file.encoding)) is not None:
            assert file.rows == len(listed), f"{file.rows} rows of {len(listed)} in the list"
        elif file.container == "parquet":
            assert file.rows == parquet_rows(file.path), f"{file.rows} rows of {parquet_rows(file.path)}"
    assert len(report.examples) + len(report.validation) == report.read_rows
    assert sum(
        count for code, count in report.problem_counts.items() if code not in ("trailing-turn", "broken-line")
    ) == (report.bad_rows)


def whole_list(path: str, encoding: str) -> list | None:
    """The rows of a file that is one sound list, as the standard library reads it."""
    try:
        held = json.loads(Path(path).read_bytes().decode(encoding).strip(" \t\r\n\ufeff"))
    except (ValueError, RecursionError):
        return None
    return held if isinstance(held, list) else None


def parquet_rows(path: str) -> int:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path).metadata.num_rows


def rewrite(dice: random.Random, source: str, options: dict, folder: Path) -> None:
    what = dice.randrange(4)
    if what == 0:
        found = check(source, **options)
        assert found.rows == sum(file.rows for file in found.files)
    elif what == 1:
        to = dice.choice(["openai", "sharegpt", "alpaca", "text"])
        out = folder / f"out{dice.choice(['.jsonl', '.json', '.csv'])}"
        convert(source, out, to, skip_bad=dice.random() < 0.7, sample=dice.choice([0, 0, 3]), **options)
    elif what == 2:
        clean(source, folder / "clean.jsonl", **options)
    else:
        split(source, val=0.3, test=dice.choice([0.0, 0.2]), by_label=dice.random() < 0.3, folder=folder, **options)


_CONFIGS = [
    '[train]\nepochs = 3\nbatch_size = 4\n[optim]\nlearning_rate = 1e-4\n[data]\nfiles = ["FILE"]\n[run]\nname="名"',
    '{"train": {"epochs": 3}, "optim.learning_rate": 1e-4, "data": {"files": ["FILE"], "map": {"prompt": "a"}}}',
]
_BOMBS = (
    "a" + ".a" * 5000, "[" * 2000, "[[a" + ".b" * 2000 + "]]", "train.epochs", "data.map." + "x." * 500 + "y", "data",
    "__class__", "train.__init__", "x = " + "[" * 3000, '"" = 1', "a.b = 1\na.b.c = 2", "\u202etrain", "TRAIN.EPOCHS",
)  # fmt: skip
"""Keys and lines that nest, repeat or reach for what is no setting."""


def bombed(dice: random.Random, config: str, is_json: bool) -> str:
    bomb = dice.choice(_BOMBS)
    if is_json:
        value = dice.choice(["1", "{}", "null", '{"a":' * 2000 + "1" + "}" * 2000, "9" * 5000, '"\\ud800"'])
        return config[:-1] + f", {json.dumps(bomb)}: {value}}}"
    return dice.choice([f"{bomb} = 1\n{config}", f"{config}\n{bomb} = 1", f"[{bomb}]\n{config}", f"{bomb}\n{config}"])


def configure(dice: random.Random, source: str, folder: Path) -> None:
    """A damaged config that names the data, as far as a plan goes before the model is needed."""
    which = dice.randrange(2)
    path = folder / ("run.toml", "run.json")[which]
    config = _CONFIGS[which].replace("FILE", source.replace("\\", "/"))
    config = bombed(dice, config, which == 1) if dice.random() < 0.3 else config
    path.write_bytes(damaged(dice, config.encode(dice.choice(["utf-8"] * 4 + ["utf-16", "utf-8-sig"]), "replace")))
    check_data(resolve([Layer(str(path), read_config_file(path))]).config)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """TimeoutError after so many seconds of processor time, whatever else the machine does."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def run(seed: int, folder: Path) -> str:
    """'' where every promise was kept."""
    dice = random.Random(seed)
    folder = folder / "case"
    folder.mkdir()
    try:
        source, options = source_of(dice, folder), options_of(dice)
        for act in (read, rewrite, configure):
            more = {"rewrite": (options, folder), "read": (options,), "configure": (folder,)}[act.__name__]
            try:
                with limited(SECONDS):
                    act(dice, source, *more)
            except EngineError as error:
                assert error.message and "Traceback" not in str(error)
                str(error).encode()
        return ""
    except Exception:
        told = f"case {seed}:\n{traceback.format_exc()}"
        return told.encode("ascii", "backslashreplace").decode()  # pytest's processes cannot tell lone surrogates
    finally:
        shutil.rmtree(folder)
