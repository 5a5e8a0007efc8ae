"""What convert, split and clean promise: nothing lost, nothing mixed, inputs never changed, results whole or absent."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.base.errors import DataError, EngineError, InputError
from engine.data import clean, convert, split
from engine.data.row_writer import Outputs
from engine.formats import read_data

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40).filter(str.strip)
NAME = st.from_regex(r"[a-z_]{1,10}", fullmatch=True)
VALUE = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | TEXT, lambda inner: st.lists(inner, max_size=2))
CALL = st.builds(
    lambda name, arguments, number: (
        {"type": "function", "function": {"name": name, "arguments": arguments}} | ({"id": number} if number else {})
    ),
    NAME,
    st.dictionaries(NAME, VALUE, max_size=2),
    st.none() | NAME,
)
SPOKEN = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": TEXT},
    optional={"reasoning_content": TEXT, "weight": st.just(1), "tool_calls": st.lists(CALL, min_size=1, max_size=2)},
)
CALLED = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none(), "tool_calls": st.lists(CALL, min_size=1, max_size=2)}
)
TOOL = st.fixed_dictionaries({"role": st.just("tool"), "content": TEXT}, optional={"tool_call_id": NAME, "name": NAME})
USER = st.fixed_dictionaries({"role": st.just("user"), "content": TEXT}, optional={"name": NAME})
SYSTEM = st.lists(st.builds(lambda text: {"role": "system", "content": text}, TEXT), max_size=1)
TURNS = st.one_of(
    st.tuples(USER, SPOKEN).map(list),
    st.tuples(USER, CALLED, TOOL, SPOKEN).map(list),
    st.tuples(USER, CALLED).map(list),
)
CHAT = st.builds(
    lambda system, turns, tools: (
        {"messages": system + [turn for part in turns for turn in part]} | ({"tools": tools} if tools else {})
    ),
    SYSTEM,
    st.lists(TURNS, min_size=1, max_size=3),
    st.lists(st.builds(lambda n: {"type": "function", "function": {"name": n, "parameters": {}}}, NAME), max_size=2),
)
SIMPLE = st.builds(
    lambda system, pairs: {
        "messages": system
        + [{"role": r, "content": c} for p in pairs for r, c in zip(("user", "assistant"), p, strict=True)]
    },
    SYSTEM,
    st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3),
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def content(path: Path | str, **reading) -> list:
    examples = read_data(str(path), objective="pretrain", **reading).examples
    return [(example.messages, example.tools, example.text) for example in examples]


@QUICK
@given(rows=st.lists(CHAT, min_size=1, max_size=4), ending=st.sampled_from(["jsonl", "json"]))
def test_openai_to_sharegpt_and_back_loses_nothing(tmp_path, rows, ending):
    source = write(tmp_path / "a.jsonl", rows)
    convert(source, tmp_path / f"b.{ending}", "sharegpt", force=True)
    convert(str(tmp_path / f"b.{ending}"), tmp_path / "c.jsonl", "openai", force=True)
    assert content(tmp_path / "c.jsonl") == content(tmp_path / f"b.{ending}") == content(source)


@QUICK
@given(rows=st.lists(SIMPLE, min_size=1, max_size=4), ending=st.sampled_from(["jsonl", "json", "csv"]))
def test_openai_to_alpaca_and_back_loses_nothing(tmp_path, rows, ending):
    source = write(tmp_path / "a.jsonl", rows)
    try:
        convert(source, tmp_path / f"b.{ending}", "alpaca", force=True)
    except DataError as error:
        # What a CSV cannot hold is refused by its line and not changed.
        assert ending == "csv" and "CSV keeps no" in error.message and "a.jsonl:" in error.message
        return
    convert(str(tmp_path / f"b.{ending}"), tmp_path / "c.jsonl", "sharegpt", force=True)
    assert content(tmp_path / "c.jsonl") == content(tmp_path / f"b.{ending}") == content(source)


PAIR = {"prompt": "hi", "completion": "hello"}
CALLING = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}


@pytest.mark.parametrize(
    ("row", "to", "said"),
    [
        ({"messages": [{"role": "user", "content": "q"}, CALLING]}, "alpaca", "tool_calls"),
        (
            {"messages": [{"role": "user", "content": "q"}] * 2 + [{"role": "assistant", "content": "a"}]},
            "alpaca",
            "turns",
        ),
        ({"text": "a document"}, "openai", "'prompt' is missing"),
        ({"prompt": "hi", "completion": ""}, "openai", "empty"),
    ],
)
def test_what_a_format_has_no_place_for_is_refused_by_its_line_and_nothing_is_written(tmp_path, row, to, said):
    source = write(tmp_path / "a.jsonl", [PAIR, row])
    with pytest.raises(DataError) as caught:
        convert(source, tmp_path / "out.jsonl", to)
    assert "a.jsonl:2:" in caught.value.message and said in caught.value.message
    assert os.listdir(tmp_path) == ["a.jsonl"]
    done = convert(source, tmp_path / "out.jsonl", to, skip_bad=True)
    assert (done.written, len(done.skipped)) == (1, 1)


def test_a_sample_is_the_same_for_a_seed_and_keeps_the_order(tmp_path):
    source = write(tmp_path / "a.jsonl", [{"prompt": f"q{n}", "completion": str(n)} for n in range(100)])
    chosen = []
    for name, seed in (("b", 1), ("c", 1), ("d", 2)):
        convert(source, tmp_path / f"{name}.jsonl", "openai", sample=10, seed=seed)
        chosen.append([int(messages[-1]["content"]) for messages, _, _ in content(tmp_path / f"{name}.jsonl")])
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(chosen[0]) == 10 and chosen[0] == sorted(chosen[0])


def labelled(path: Path) -> str:
    rows = ["text,id,label"]
    words = ["river", "window", "copper", "garden", "morning", "letter", "engine", "coffee", "paper", "bridge"]
    for n in range(120):
        text = f"{words[n % 10]} {words[n // 10 % 10]} {'abcdefghijkl'[n // 10] * 5}"
        rows.append(f'"{text}, please",{n},{"rare" if n % 6 == 0 else "usual"}')
        if n % 10 == 3:
            rows.append(f'"{text},  PLEASE!",copy of {n},{"rare" if n % 6 == 0 else "usual"}')
    path.write_text("\n".join(rows) + "\n", "gb18030")
    return str(path)


def test_split_keeps_every_row_and_column_and_like_questions_on_one_side(tmp_path):
    source = labelled(tmp_path / "a.csv")
    before = Path(source).read_bytes()
    parts = split(source, val=0.2, test=0.1, by_label=True)
    assert Path(source).read_bytes() == before
    texts = {part: path.read_text("utf-8").splitlines() for part, path in parts.files.items()}
    assert all(lines[0] == "text,id,label" for lines in texts.values())
    written = [line for lines in texts.values() for line in lines[1:]]
    assert sorted(written) == sorted(before.decode("gb18030").splitlines()[1:])
    side = {key: part for part, lines in texts.items() for key in [line.rsplit(",", 2)[1] for line in lines[1:]]}
    assert all(side[key.removeprefix("copy of ")] == part for key, part in side.items() if key.startswith("copy"))
    for label, total in (("rare", 22), ("usual", 110)):
        held = sum(line.endswith(f",{label}") for line in texts["val"])
        assert abs(held - 0.2 * total) <= 1.5


def test_split_follows_from_questions_and_seed_not_from_the_order(tmp_path):
    rows = [{"prompt": f"{n:b} and {n * n}", "completion": "x"} for n in range(50)]
    (tmp_path / "r").mkdir()
    one = split(write(tmp_path / "a.jsonl", rows), val=0.2)
    two = split(write(tmp_path / "r" / "a.jsonl", rows[::-1]), val=0.2)
    other = split(write(tmp_path / "a.jsonl", rows), val=0.2, seed=1, force=True, folder=tmp_path / "r" / "..")
    held = [set(Path(parts.files["val"]).read_text().splitlines()) for parts in (two, other)]
    assert one.rows == two.rows == {"train": 40, "val": 10}
    assert held[0] != held[1]


def test_clean_removes_the_kinds_asked_for_and_says_why(tmp_path):
    rows = [
        {"prompt": "first question of all", "completion": "yes", "id": 1},
        {"prompt": "first question of all", "completion": "yes", "id": 2},
        {"prompt": "another question here", "completion": "no", "id": 3},
        {"prompt": "another question here", "completion": "yes", "id": 4},
        {"prompt": f"my key is ghp_{'a1' * 18}", "completion": "ok", "id": 5},
        {"prompt": "", "completion": "ok", "id": 6},
        {"prompt": "call me at kim@mail.dk", "completion": "ok", "id": 7},
    ]
    source = write(tmp_path / "a.jsonl", rows)
    with open(source, "a") as file:
        file.write('{"prompt": "torn", "comp\n')
    done = clean(source, tmp_path / "b.jsonl")
    assert [json.loads(line)["id"] for line in (tmp_path / "b.jsonl").read_text().splitlines()] == [1, 7]
    removed = [json.loads(line) for line in done.removed_file.read_text().splitlines()]
    kinds = [(entry["line"], entry["reasons"][0]["kind"]) for entry in removed]
    told = ["duplicates", "contradictions", "contradictions", "secrets", "unreadable", "unreadable"]
    assert kinds == list(zip((2, 3, 4, 5, 6, 8), told, strict=True))
    assert removed[0]["row"] == rows[1]
    assert os.stat(done.removed_file).st_mode & 0o077 == 0
    assert done.left == {"contacts": 1}
    done = clean(source, tmp_path / "c.jsonl", remove=["contacts"])
    assert done.removed == {"contacts": 1, "unreadable": 1}
    assert (done.rows, done.kept) == (8, 6)


@pytest.mark.parametrize("kind", ["json", "tsv", "csv", "parquet"])
def test_clean_gives_the_same_container_back(tmp_path, kind):
    rows = [{"prompt": f'q {n}, "{n}"\nz', "completion": " a;b\t", "n": str(n)} for n in range(5)]
    rows.insert(2, rows[0])
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif kind == "json":
        path.write_text(json.dumps(rows), "utf-16")
    else:
        import csv

        with open(path, "w", encoding="gb18030", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
            table.writeheader()
            table.writerows(rows)
    done = clean(str(path), tmp_path / f"b.{kind}")
    assert done.removed == {"duplicates": 1}
    assert content(tmp_path / f"b.{kind}") == content(path)[:2] + content(path)[3:]
    assert read_data(str(tmp_path / f"b.{kind}")).files[0].container == kind


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_parquet_rows_that_do_not_fit_those_before_are_refused_and_nothing_is_written(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"prompt": f"q {n}", "completion": "a", "extra": None} for n in range(5000)]
    rows.append({"prompt": "the last", "completion": "a", "extra": 1})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="a later row does not fit"):
        clean(str(tmp_path / "a.parquet"), tmp_path / "b.parquet")
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_the_input_and_files_that_exist_are_never_written_over(tmp_path):
    source = write(tmp_path / "a.jsonl", [PAIR, PAIR])
    (tmp_path / "link.jsonl").symlink_to(source)
    for out in ("a.jsonl", "link.jsonl"):
        with pytest.raises(InputError, match="the input itself"):
            clean(source, tmp_path / out, force=True)
    (tmp_path / "b.jsonl").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        convert(source, tmp_path / "b.jsonl", "openai")
    assert (tmp_path / "b.jsonl").read_text() == "mine"


def test_results_appear_together_or_not_at_all(tmp_path):
    paths = {"one": tmp_path / "one", "two": tmp_path / "two"}
    with pytest.raises(KeyboardInterrupt), Outputs(paths, [], False) as outputs:
        outputs.temporary["one"].write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_nothing_left_is_an_error_and_no_empty_file(tmp_path):
    source = write(tmp_path / "a.jsonl", [{"prompt": "q", "completion": "yes"}, {"prompt": "q", "completion": "no"}])
    with pytest.raises(EngineError, match="nothing would be left"):
        clean(source, tmp_path / "b.jsonl")
    assert os.listdir(tmp_path) == ["a.jsonl"]
