"""Malformed data files: always a report with sensible line numbers or a DataError in words, never another exception."""

import json
import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.base.errors import EngineError, InputError
from engine.formats import check_bad_share, read_data, split_examples

SETTINGS = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

ROWS = [
    {"messages": [{"role": "user", "content": "高血压 hi"}, {"role": "assistant", "content": "可以 ok"}]},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "tools": "[]"},
    {"instruction": "i", "input": "n", "output": "o", "history": [["q", "a"]]},
    {"prompt": "p", "completion": "c"},
    {"text": "some text", "label": 7},
    {"questions": [["q"]], "answers": ["a"]},
]


def _jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _csv(rows):
    return 'question,answer\n"a, ""quoted""\ncell",b\n' + "高血压怎么办,多喝水\n" * len(rows)


VALID = [
    _jsonl,
    lambda rows: json.dumps(rows, indent=2, ensure_ascii=False),
    lambda rows: json.dumps({"data": rows}),
    lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows),
    _csv,
    lambda rows: _csv(rows).replace(",", "\t"),
]
ENCODINGS = ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-le", "utf-16-be"]


def check(path, data: bytes, **options):
    """The promise itself."""
    path.write_bytes(data)
    for objective in ("sft", "pretrain"):
        try:
            report = read_data(str(path), objective=objective, **options)
        except InputError as error:
            assert error.message and error.exit_code == 2
            error_report = getattr(error, "report", None)
            if error_report is None:
                continue
            report = error_report
        # A UTF-16 line end may be one byte of a character for a reader that was misled, hence bytes and not newlines.
        most = data.count(b"\n") + data.count(b"\r") + 1
        assert len(report.examples) == report.rows - report.bad_rows
        for place in (*report.problems, *report.examples):
            assert 1 <= place.line <= most, (place, most)
        for problem in report.problems:
            assert problem.code and problem.message
            assert not any(char in "\0\n\r\x1b" for char in problem.message + problem.excerpt)
            str(problem).encode()
        for row in report.examples:
            json.dumps([row.messages, row.tools, row.text], ensure_ascii=False).encode()
        split_examples(report.examples, 0.5)
        try:
            check_bad_share(report, 0.05)
        except EngineError as error:
            str(error).encode()


@st.composite
def mutated(draw):
    """A valid file with a few things done to it that happen to files, and some that do not."""
    rows = draw(st.lists(st.sampled_from(ROWS), min_size=1, max_size=6))
    data = bytearray(draw(st.sampled_from(VALID))(rows).encode(draw(st.sampled_from(ENCODINGS))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        what = draw(st.sampled_from(["cut", "insert", "delete", "mix", "token", "flip"]))
        if what == "cut":
            del data[at:]
        elif what == "insert":
            data[at:at] = draw(st.binary(max_size=8))
        elif what == "delete":
            del data[at : at + draw(st.integers(1, 20))]
        elif what == "mix":
            data[at:at] = '混合 mixed é"\n'.encode(draw(st.sampled_from([*ENCODINGS, "big5"])), errors="replace")
        elif what == "token":
            data[at:at] = draw(st.sampled_from(TOKENS))
        elif data:
            data[min(at, len(data) - 1)] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


TOKENS = [
    b"\0", b"\0" * 40, b'"', b"'", b"\n", b"\r", b"\r\n", b"{", b"}", b"[", b"]", b",", b"\t", b"NaN", b"-Infinity",
    b"null", b"\\ud800", b"\\u0000", b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"1e999", b"\xef\xbb\xbf", b"\xff\xfe",
    b"\xe2\x80\xa8", b"\\", b'"prompt": 1, ', b'{"prompt": {}, "completion": []}\n', b"\x1b[31m", b"x" * 70_000,
]  # fmt: skip


@SETTINGS
@given(data=mutated())
def test_a_damaged_file_gives_a_report_or_a_clear_error(tmp_path, data):
    check(tmp_path / "data", data)


@SETTINGS
@given(data=st.binary(max_size=300), suffix=st.sampled_from(["", ".csv", ".jsonl", ".json", ".txt", ".parquet"]))
def test_random_bytes_give_a_report_or_a_clear_error(tmp_path, data, suffix):
    check(tmp_path / f"data{suffix}", data)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
COLUMNS = st.sampled_from(
    ["messages", "conversations", "tools", "functions", "system", "prompt", "completion", "instruction", "input"]
) | st.sampled_from(["output", "history", "question", "answers", "text", "label", "content", "weight", "标签", ""])
MESSAGE = st.dictionaries(
    st.sampled_from(["role", "content", "from", "value", "tool_calls", "weight", "function_call", "name"]),
    JSON_VALUES | st.sampled_from(["user", "assistant", "system", "tool", "human", "gpt", "function_call", "{}"]),
    max_size=4,
)


@SETTINGS
@given(rows=st.lists(st.dictionaries(COLUMNS, JSON_VALUES | st.lists(MESSAGE, max_size=4), max_size=4), max_size=4))
@example(rows=[{"": "x", "prompt": "a", "completion": "b"}])
def test_values_of_the_wrong_type_give_a_report_or_a_clear_error(tmp_path, rows):
    check(tmp_path / "lines", "".join(json.dumps(row) + "\n" for row in rows).encode())
    check(tmp_path / "list", json.dumps(rows, indent=1).encode())


@SETTINGS
@given(
    data=mutated(),
    format=st.sampled_from(["auto", "openai", "alpaca", "text", "classification", "question-answer"]),
    mapping=st.dictionaries(
        st.sampled_from(["prompt", "completion", "text", "label", "messages", "system", "tools"]),
        st.sampled_from(["prompt", "question", "answer", "messages", "text", "tools", "nope"]),
        max_size=2,
    ),
)
def test_any_options_on_a_damaged_file_give_a_report_or_a_clear_error(tmp_path, data, format, mapping):
    check(tmp_path / "data", data, format=format, mapping=mapping, system="s")


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
        b'[{"prompt": ' + b"[" * 200_000,
        b'{"prompt": "a", "completion": ' + b"[" * 900 + b"]" * 900 + b"}\n",
        b'{"prompt": "a", "completion": ' + b"9" * 100_000 + b"}\n",
        b'{"messages": ' + json.dumps("[" * 100_000).encode() + b"}\n",
        b'{"prompt": "' + b"x" * 8_000_000 + b'", "completion": "b"}\n',
        b"x" * 8_000_000,
        b'"' * 300_001,
        b'text,label\n"' + b"a,b\n" * 51_000,
        b"," * 200_000 + b"\n" + b"," * 200_000,
        b"\n" * 500_000 + b"{",
        b"PAR1" + b"\0" * 100 + b"PAR1",
        b"PAR1",
        b"\xff\xfe" + b"\xd8" * 1001,
        b"\x00{\x00",
    ],
    ids=range(16),
)
def test_extreme_files_give_a_report_or_a_clear_error(tmp_path, data):
    check(tmp_path / "data", data)


# ---- planted faults ------------------------------------------------------------------------------------------------


def _clean_rows(generator, count):
    return [
        {
            "ask": f"问题 {n} " + "".join(generator.choices('高血压 怎么,办"?\\', k=generator.randrange(20))) + ".",
            "answer": f"答 {n}\n" + "字" * generator.randrange(30),
        }
        for n in range(count)
    ]


def _write_jsonl(rows):
    return [json.dumps(row, ensure_ascii=False) for row in rows]


def _write_json(rows):
    return ["[", *(json.dumps(row, ensure_ascii=False) + "," for row in rows[:-1]), json.dumps(rows[-1]), "]"]


PLANTS = {
    "bad-json": lambda line: line[: len(line) // 2].rstrip("\\"),
    "empty-answer": lambda line: line.replace('"answer": "答', '"answer": "", "x": "'),
    "lone-surrogate": lambda line: line.replace('"ask": "', '"ask": "\\udc00'),
    "nul-byte": lambda line: line.replace('"ask": "', '"ask": "\0'),
    "duplicate-key": lambda line: line.replace('"ask": "', '"ask": "x", "ask": "'),
    "wrong-type": lambda line: line.replace('"ask": "', '"ask": {}, "x": "'),
    "missing-column": lambda line: line.replace('"ask": "', '"asked": "'),
    "bad-encoding": lambda line: line.replace('"ask": "', '"ask": "\udcff'),
}


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize(("write", "first_line"), [(_write_jsonl, 1), (_write_json, 2)], ids=["jsonl", "json"])
def test_planted_faults_are_found_with_the_right_line_numbers(tmp_path, seed, write, first_line):
    generator = random.Random(seed)
    path = tmp_path / "data"
    rows = _clean_rows(generator, 120)
    texts = write(rows)
    path.write_text("\n".join(texts), encoding="utf-8")
    clean = read_data(str(path))
    assert (len(clean.examples), clean.problem_counts) == (120, {})

    planted = {}
    for row in sorted(generator.sample(range(1, 119), 8)):
        code = generator.choice(list(PLANTS))
        texts[row + first_line - 1] = PLANTS[code](texts[row + first_line - 1])
        planted[row + first_line] = code
    path.write_bytes("\n".join(texts).encode("utf-8", errors="surrogateescape"))
    report = read_data(str(path))
    found = {problem.line: problem.code for problem in report.problems}
    assert found == planted
    assert [e.messages[0]["content"] for e in report.examples] == [
        row["ask"] for n, row in enumerate(rows) if n + first_line not in planted
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
@pytest.mark.parametrize("seed", range(10))
def test_planted_faults_in_tables_are_found_with_the_right_line_numbers(tmp_path, seed, encoding):
    generator = random.Random(seed)
    path = tmp_path / "data"
    lines, planted = ["ask,answer\n"], {}
    for row in _clean_rows(generator, 100):
        line = sum(text.count("\n") for text in lines) + 1
        ask, answer = row["ask"].replace('"', '""'), row["answer"]
        fault = generator.choice([""] * 12 + ["wrong-columns", "open-quote", "empty-answer", "nul-byte"])
        planted |= {line: fault} if fault else {}
        if fault == "wrong-columns":
            lines.append("one,two,three\n")
        elif fault == "open-quote":
            lines.append('"never closed,x\n')
        elif fault == "empty-answer":
            lines.append(f'"{ask}",\n')
        elif fault == "nul-byte":
            lines.append("nul\0,x\n")
        else:
            lines.append(f'"{ask}","{answer}"\n')
    path.write_text("".join(lines), encoding=encoding, newline="")
    report = read_data(str(path), max_problems=1000)
    assert {problem.line: problem.code for problem in report.problems} == planted
    assert len(report.examples) == 100 - len(planted)
