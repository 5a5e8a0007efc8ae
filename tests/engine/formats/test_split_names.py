"""Splits within files and folders, what is left out of them, and the account of every row: read + refused + told."""

import json
import random

import pytest

from engine.base.errors import DataError
from engine.formats import check_bad_share, files_told, read_data
from engine.formats.sources import find_origins
from engine.formats.split_names import part_of_name
from tests.engine.formats.formatkit import PAIR, writer

CSV = "prompt,completion\nq,a\nr,b\n"


def pairs(count, start=0):
    return [{"prompt": f"q{n}", "completion": f"a{n}"} for n in range(start, start + count)]


@pytest.fixture
def write(tmp_path):
    return writer(tmp_path, "data.json")


def asked(examples):
    return [example.messages[0]["content"] for example in examples]


def counted(report):
    assert report.rows == report.read_rows + report.bad_rows + report.set_aside
    assert report.read_rows == len(report.examples) + len(report.validation)
    return report.rows, len(report.examples), len(report.validation), report.bad_rows, report.set_aside


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train", "train"), ("squad_test", "test"), ("dev-00000-of-00002", "validation"), ("test2", "test"),
        ("Validation", "validation"), ("my.val", "validation"), ("test-00001-of-00003-0f3b5d17", "test"),
        ("测试集", "test"), ("heldout", "test"), ("held_out_questions", "test"), ("hold-out", "test"),
        ("latest", ""), ("unit-test-questions", ""), ("contest", ""), ("trainer", ""), ("devices", ""), ("data", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_a_name_says_its_split_at_its_beginning_or_its_end(name, part):
    assert part_of_name(name) == part


# ---- within a file -------------------------------------------------------------------------------------------------

SPLITS = {"test": pairs(3, 50), "train": pairs(5), "validation": pairs(2, 40)}


def by_column(parts):
    return "".join(json.dumps({**row, "split": part}) + "\n" for part, rows in parts.items() for row in rows)


def by_any_column(parts):
    return by_column(parts).replace('"split"', '"usage"')


def columnwise(parts):
    return json.dumps({part: {key: [row[key] for row in rows] for key in PAIR} for part, rows in parts.items()})


@pytest.mark.parametrize(
    "written",
    [json.dumps(SPLITS), json.dumps(SPLITS, indent=1), by_column(SPLITS), by_any_column(SPLITS), columnwise(SPLITS)],
    ids=["one-line", "indented", "column", "any-column", "columnwise"],
)
def test_the_training_split_is_trained_on_and_the_test_split_never(write, written):
    path = write(written)
    report = read_data(path)
    assert (asked(report.examples), asked(report.validation)) == (asked_of("train"), asked_of("validation"))
    assert counted(report) == (10, 5, 2, 0, 3)
    assert f"3 rows of the split 'test' set aside; {path}:test reads them" in report.files[0].notes
    assert "2 rows of the split 'validation', used for validation" in report.files[0].notes

    assert counted(read_data(path, use="training-only")) == (10, 5, 0, 0, 5)
    assert asked(read_data(path, use="validation").examples) == asked_of("validation")
    assert asked(read_data(path, use="evaluation").examples) == asked_of("test")
    for part in SPLITS:
        assert asked(read_data(f"{path}:{part}").examples) == asked_of(part)


def test_rows_under_a_key_that_names_no_split_are_told_where_others_are_in_splits(write):
    report = read_data(write({"train": pairs(5), "bonus": pairs(2, 70), "test": pairs(3, 50)}))
    assert counted(report) == (10, 7, 0, 0, 3)
    assert "2 rows under 'bonus', which names no split, read as training rows" in report.files[0].notes
    assert not read_data(write({"one": pairs(5), "two": pairs(2, 70)})).files[0].notes


def asked_of(part):
    return [row["prompt"] for row in SPLITS[part]]


def test_a_file_of_nothing_but_a_test_split_is_not_trained_on(write):
    for content in ({"test": pairs(3)}, by_column({"test": pairs(3)})):
        path = write(content)
        with pytest.raises(DataError, match="no training split, only 'test'") as caught:
            read_data(path)
        assert f"{path}:test" in caught.value.hint
        assert len(read_data(path, use="evaluation").examples) == len(read_data(f"{path}:test").examples) == 3


def test_bad_rows_of_a_split_that_is_set_aside_do_not_count_as_bad(write):
    report = read_data(write({"train": pairs(4), "test": [{"prompt": ""}] * 4}))
    assert counted(report) == (8, 4, 0, 0, 4)
    check_bad_share(report, 0.0)


def test_lists_under_other_names_are_all_read_and_what_stands_beside_is_told(write):
    report = read_data(write({"licence": "free", "english": pairs(2), "german": pairs(2, 9), "version": 3}))
    assert counted(report) == (4, 4, 0, 0, 0)
    assert report.files[0].notes == ("beside its rows the file holds 'licence', from which nothing is learnt",)


def test_a_split_is_named_whether_relative_or_not(write, monkeypatch, tmp_path):
    from engine.runs.run_folder import absolute

    path = write(SPLITS)
    monkeypatch.chdir(tmp_path)
    assert absolute({"data.files": ["data.json:test"]})["data.files"] == [f"{path}:test"]
    assert [origin.name for origin in find_origins(f"{path}:test", plain_text=False)] == [path]


# ---- folders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "train", "validation"),
    [
        (["train.csv", "test.csv"], ["train.csv"], []),
        (["train.csv", "dev.csv", "test.csv"], ["train.csv"], ["dev.csv"]),
        (["intents.csv", "intents_test.csv"], ["intents.csv"], []),
        (["data/train-00000-of-00002.csv", "data/train-00001-of-00002.csv", "data/test-00000-of-00001.csv"],
         ["data/train-00000-of-00002.csv", "data/train-00001-of-00002.csv"], []),
        (["train/a.csv", "val/a.csv", "test/a.csv"], ["train/a.csv"], ["val/a.csv"]),
        (["en/train.csv", "de/train.csv", "en/test.csv"], ["de/train.csv", "en/train.csv"], []),
        (["a.csv", "b.csv"], ["a.csv", "b.csv"], []),
    ],
)  # fmt: skip
def test_the_names_in_a_folder_say_what_is_trained_on(write, tmp_path, names, train, validation):
    for name in names:
        write(CSV.replace("q,", f"{name},"), f"set/{name}")
    report = read_data(str(tmp_path / "set"))
    assert asked(report.examples)[::2] == train
    assert asked(report.validation)[::2] == validation
    unread = [name for name in names if name not in (*train, *validation)]
    assert bool(unread) == bool(report.left_out) and all(name in report.left_out[0] for name in unread)
    if unread:
        assert f"give {tmp_path / 'set'}:test" in report.left_out[0]
        assert asked(read_data(f"{tmp_path / 'set'}:test").examples)[::2] == unread


def test_a_folder_of_test_files_alone_is_refused_for_training_and_read_for_evaluation(write, tmp_path):
    write(CSV, "set/test.csv")
    with pytest.raises(DataError, match="holds no training data") as caught:
        read_data(str(tmp_path / "set"))
    assert f"{tmp_path / 'set'}:test" in caught.value.hint
    assert len(read_data(str(tmp_path / "set"), use="evaluation").examples) == 2
    with pytest.raises(DataError, match="no files of the split 'validation'"):
        read_data(f"{tmp_path / 'set'}:validation")


def test_files_of_other_kinds_and_subfolders_are_named(write, tmp_path):
    for name in ("a.txt", "b.md", "c.rst", "d.html", "sub/e.txt", "dataset_info.json"):
        write("text", f"set/{name}")
    report = read_data(str(tmp_path / "set"), objective="pretrain")
    assert report.left_out == (
        f"{tmp_path / 'set'}: 4 files of other kinds left out: b.md, c.rst, d.html, dataset_info.json",
        f"{tmp_path / 'set'}: 1 subfolder left out: sub; name those that are data",
    )
    write("[]", "arrow/state.json")
    write("x", "arrow/data-00000-of-00001.arrow")
    with pytest.raises(DataError, match="save_to_disk"):
        read_data(str(tmp_path / "arrow"))


def test_columns_of_any_name_can_be_said(write):
    row = {"\ud800a": "x", "rejected\0": "y", "b\x1b": "z"}
    path = write(json.dumps(row) + "\n")
    for mapping in (None, {"prompt": "nope"}, {"prompt": "\ud800a"}):
        with pytest.raises(DataError) as caught:
            read_data(path, mapping=mapping)
        str(caught.value).encode()
        assert not any(char in "\0\x1b" for char in str(caught.value))


def test_a_name_that_no_file_can_have_does_not_exist(tmp_path):
    for name in ("\ud800.jsonl", f"{tmp_path}/\ud800/a.jsonl", "\ud800:test"):
        with pytest.raises(DataError, match="does not exist"):
            read_data(name)


def test_what_is_told_is_told_in_one_place():
    file = {"path": "/d/a.csv", "notes": ("a note",), "ignored": {"title": 1200, "id": 1}}
    assert files_told({"files": [file], "left_out": ["x left out"]}) == [
        "x left out", "a note", "nothing is learnt from title (1,200 rows), id (1 row)",
    ]  # fmt: skip
    assert files_told({"files": [{"path": "old journal", "rows": 1}]}) == []


# ---- a list that breaks in the middle ------------------------------------------------------------------------------


def one_line(rows):
    return "[" + ", ".join(rows) + "]"


@pytest.mark.parametrize("kind", ["pairs", "chats"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda row: row.replace(", ", " ", 1),
        lambda row: row.replace('": "', '": ', 1),
        lambda row: row[:-3] + "}",
        lambda row: row.replace(":", "", 1),
        lambda row: row.replace('"', "", 1),
        lambda row: "garbage",
    ],
    ids=["comma", "open-quote", "close-quote", "colon", "key-quote", "garbage"],
)
def test_after_a_break_in_a_list_on_one_line_the_rows_are_found_again(write, kind, damage):
    rows = pairs(90)
    if kind == "chats":
        rows = [{"messages": [{"role": "user", "content": row["prompt"]}, SAID], "id": "x"} for row in rows]
    texts = [json.dumps(row) for row in rows]
    texts[30] = damage(texts[30])
    report = read_data(write(one_line(texts)))
    rows_given, read, _, bad, _ = counted(report)
    assert asked(report.examples) == [f"q{n}" for n in range(90) if n != 30]
    assert (rows_given, read, bad) == (90, 89, 1)
    assert report.problems[0].code == "bad-json"


SAID = {"role": "assistant", "content": "yes"}


def test_several_broken_rows_in_a_row_are_counted(write):
    texts = [json.dumps(row) for row in pairs(90)]
    for at in range(30, 50):
        texts[at] = texts[at].replace(", ", " ")
    report = read_data(write(one_line(texts)))
    assert counted(report)[:4] == (90, 70, 0, 20)
    with pytest.raises(DataError, match=r"22\.2% of the rows are bad"):
        check_bad_share(report, 0.05)


def test_a_rest_that_cannot_be_read_counts_with_all_its_rows(write):
    texts = [json.dumps(row) for row in pairs(400)]
    broken = [text.replace(", ", " ") for text in texts[200:]]
    report = read_data(write(one_line(texts[:200] + broken)))
    assert counted(report)[:4] == (400, 200, 0, 200)
    assert "about 199 rows after it could not be read" in report.problems[0].message
    with pytest.raises(DataError, match="50% of the rows are bad"):
        check_bad_share(report, 0.05)


def test_objects_inside_rows_are_no_rows(write):
    rows = [{"id": str(n), "messages": [{"role": "user", "content": "hi"}, SAID]} for n in range(9)]
    texts = [json.dumps(row) for row in rows]
    texts[4] = texts[4].replace('"role": "user", ', '"role": "user" ')
    report = read_data(write(one_line(texts)))
    assert counted(report)[:4] == (9, 8, 0, 1)


# ---- the account of every row --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_every_row_given_is_read_refused_or_told(write, tmp_path, seed):
    """Files of known numbers of rows, some of them bad, in every way to write them."""
    dice = random.Random(seed)
    parts = {part: dice.randrange(1, 30) for part in dice.sample(["train", "validation", "test"], dice.randrange(1, 4))}
    parts["train"] = parts.get("train", 7)
    bad = 0
    rows = {}
    for part, count in parts.items():
        rows[part] = pairs(count)
        for row in dice.sample(rows[part], dice.randrange(count)):
            row.update(dice.choice([{"completion": ""}, {"prompt": " "}, {"label": False}, {"images": ["a.png"]}]))
            bad += part != "test"
    how = dice.choice(["object", "objects", "column", "csv", "folder", "parquet"])
    if how in ("object", "objects"):
        source = write(json.dumps(rows, indent=dice.choice([None, 1, 2])))
    elif how == "column":
        source = write(by_column(rows), "data.jsonl")
    elif how == "csv":
        lines = [f'"{row["prompt"]}",{row["completion"]},{part}' for part in rows for row in rows[part]]
        source = write("\n".join(["prompt,completion,split", *lines]) + "\n", "data.csv")
        bad = sum(not row[key].strip() for part in rows if part != "test" for row in rows[part] for key in PAIR)
    elif how == "parquet":
        source = write_parquet(tmp_path, rows)
    else:
        for part in rows:
            write("".join(json.dumps(row) + "\n" for row in rows[part]), f"set/{part}.jsonl")
        source = str(tmp_path / "set")
    try:
        report = read_data(source)
    except DataError as error:
        report = error.report
    given = sum(count for part, count in parts.items() if how != "folder" or part != "test")
    aside = parts.get("test", 0) if how != "folder" else 0
    counted(report)
    assert (report.rows, report.bad_rows, report.set_aside) == (given, bad, aside), how


def write_parquet(folder, rows):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = [{"label": None, "images": None, **row, "split": part} for part in rows for row in rows[part]]
    parquet.write_table(pyarrow.Table.from_pylist(table), folder / "data.parquet")
    return str(folder / "data.parquet")
