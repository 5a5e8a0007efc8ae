"""What finetop promises about data files: every format, every container, every encoding, every kind of bad row."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from engine.base.errors import DataError, InputError
from engine.formats import check_bad_share, read_data
from tests.engine.formats.formatkit import CHAT, HI_HELLO, PAIR, lines, turns, writer

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture
def write(tmp_path):
    """Write a file without a telling name and return its path."""
    return writer(tmp_path, "data")


def problem(report):
    assert len(report.problems) == 1, report.problems
    return report.problems[0]


# ---- formats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "format"),
    [
        (CHAT, "openai"),
        ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}, "sharegpt"),
        ({"conversation": CHAT["messages"]}, "sharegpt"),
        ({"instruction": "hi", "input": "", "output": "hello"}, "alpaca"),
        (PAIR, "prompt-completion"),
        ({"prompt": CHAT["messages"][:1], "completion": CHAT["messages"][1:]}, "prompt-completion"),
        ({"question": "hi", "answer": "hello"}, "question-answer"),
        ({"questions": ["hi"], "answers": ["hello"]}, "question-answer"),
        ({"query": "hi", "response": "hello"}, "question-answer"),
        ({"title": "x", "ask": "hi", "answer": "hello"}, "question-answer"),
        ({"input": "hi", "output": "hello"}, "question-answer"),
        ({"instruction": "hi", "response": "hello"}, "question-answer"),
        ({"问题": "hi", "回答": "hello"}, "question-answer"),
        ({"问": "hi", "答": "hello"}, "question-answer"),
        ({"Question ": "hi", "ANSWER": "hello"}, "question-answer"),
        ({"text": "hi", "label": "hello"}, "classification"),
        ({"text": "hi", "category": "hello"}, "classification"),
        ({"文本": "hi", "标签": "hello"}, "classification"),
        ({"text": "hi", "label": 3, "label_text": "hello"}, "classification"),
    ],
)
def test_every_format_becomes_the_same_conversation(write, row, format):
    report = read_data(write(lines(row, row)))
    assert [turns(example) for example in report.examples] == [HI_HELLO] * 2
    assert report.files[0].format == format
    assert (report.rows, report.bad_rows, report.problem_counts) == (2, 0, {})


def test_a_tool_conversation_keeps_its_calls_with_arguments_as_objects(write):
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
        {"role": "assistant", "content": "two", "weight": 1},
    ]
    example = read_data(write(lines({"messages": messages, "tools": [tool]}))).examples[0]
    assert [message["role"] for message in example.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert example.messages[2]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert example.messages[3]["tool_call_id"] == "c1"
    assert example.messages[4]["weight"] == 1
    assert example.tools == (tool,)


def test_sharegpt_function_calls_and_observations_become_tool_messages(write):
    row = {
        "conversations": [
            {"from": "human", "value": "1+1?"},
            {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
            {"from": "observation", "value": "2"},
            {"from": "gpt", "value": "two"},
        ],
        "system": "be brief",
        "tools": '[{"name": "add", "parameters": {}}]',
    }
    example = read_data(write(lines(row))).examples[0]
    assert [message["role"] for message in example.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert example.messages[2]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    assert example.tools[0]["function"]["name"] == "add"


def test_alpaca_joins_input_history_and_system(write):
    row = {"instruction": "sum", "input": "1 2", "output": "3", "history": [["a", "b"]], "system": "s"}
    example = read_data(write(lines(row))).examples[0]
    assert turns(example) == [
        ("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "sum\n\n1 2"), ("assistant", "3"),
    ]  # fmt: skip


def test_text_parts_are_joined_and_images_are_refused(write):
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    good = {"messages": [{"role": "user", "content": parts}, CHAT["messages"][1]]}
    image = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, CHAT["messages"][1]]}
    report = read_data(write(lines(good, image)))
    assert turns(report.examples[0]) == HI_HELLO
    assert (problem(report).line, problem(report).code) == (2, "not-text")
    assert "images are not supported" in problem(report).message


def test_a_system_prompt_is_added_only_where_there_is_none(write):
    own = {"messages": [{"role": "system", "content": "own"}, *CHAT["messages"]]}
    report = read_data(write(lines(CHAT, own)), system="given")
    assert [example.messages[0]["content"] for example in report.examples] == ["given", "own"]


def test_a_number_as_label_is_kept_as_its_text(write):
    report = read_data(write(lines({"text": "a", "label": 0}, {"text": "b", "label": 2.0}, {"text": "c", "label": 1})))
    assert [example.messages[-1]["content"] for example in report.examples] == ["0", "2", "1"]


def test_plain_text_needs_pretrain_and_is_one_document(write):
    path = write("Once upon a time, there was.\r\nThe end, really.\n", "a.txt")
    with pytest.raises(DataError, match="--objective pretrain"):
        read_data(path)
    report = read_data(path, objective="pretrain")
    assert [example.text for example in report.examples] == ["Once upon a time, there was.\nThe end, really.\n"]
    assert (report.files[0].container, report.files[0].format) == ("txt", "text")


def test_a_text_column_is_one_document_per_row(write):
    path = write(lines({"text": "one", "url": "x"}, {"text": "two", "url": "y"}))
    with pytest.raises(DataError, match="pretrain"):
        read_data(path)
    assert [example.text for example in read_data(path, objective="pretrain").examples] == ["one", "two"]


def test_conversations_may_be_read_for_pretraining(write):
    assert turns(read_data(write(lines(CHAT)), objective="pretrain").examples[0]) == HI_HELLO


def test_rows_of_another_kind_of_conversation_in_the_same_file_are_read_too(write):
    report = read_data(write(lines(CHAT, CHAT, PAIR, {"text": "lost its answer"})))
    assert [turns(example) for example in report.examples] == [HI_HELLO] * 3
    assert (problem(report).line, problem(report).code) == (4, "missing-column")


def test_a_system_column_that_first_appears_late_is_not_lost(write):
    report = read_data(write(lines(*[PAIR] * 80, {**PAIR, "system": "s"})))
    assert turns(report.examples[-1]) == [("system", "s"), *HI_HELLO]


# ---- mapping and arguments -----------------------------------------------------------------------------------------


def test_mapped_columns_are_used(write):
    path = write("a,b,c\nhi,hello,x\n")
    report = read_data(path, mapping={"prompt": "a", "completion": "b", "system": "c"})
    assert turns(report.examples[0]) == [("system", "x"), *HI_HELLO]
    assert report.files[0].format == "mapped"
    assert report.files[0].columns == {"prompt": "a", "completion": "b", "system": "c"}
    assert turns(read_data(path, mapping={"text": "a", "label": "b"}).examples[0]) == HI_HELLO
    assert read_data(path, mapping={"text": "b"}, objective="pretrain").examples[0].text == "hello"


def test_what_a_mapping_leaves_open_is_found_by_name(write):
    path = write(lines({"title": "hi", "question": "no", "answer": "hello"}))
    assert turns(read_data(path, mapping={"prompt": "title"}).examples[0]) == HI_HELLO


def test_a_mapped_column_that_does_not_exist_is_refused_with_the_nearest_name(write):
    with pytest.raises(DataError) as caught:
        read_data(write("frage,antwort\nhi,hello\n", "x.csv"), mapping={"prompt": "fragen", "completion": "antwort"})
    assert "'fragen'" in str(caught.value) and "did you mean 'frage'" in str(caught.value)
    assert "frage, antwort" in str(caught.value)


def test_unknown_columns_are_listed_with_the_way_out(write):
    with pytest.raises(DataError, match="--map prompt=COLUMN") as caught:
        read_data(write("foo,bar\n1,2\n", "x.csv"))
    assert "foo, bar" in str(caught.value)


def test_preference_pairs_are_named_as_such(write):
    with pytest.raises(DataError, match="preference"):
        read_data(write(lines({"prompt": "a", "chosen": "b", "rejected": "c"})))


def test_wrong_arguments_are_the_users_fault(write):
    path = write(lines(PAIR))
    for wrong in ({"format": "yaml"}, {"objective": "dpo"}, {"mapping": {"promt": "x"}}):
        with pytest.raises(InputError):
            read_data(path, **wrong)
    with pytest.raises(DataError, match="format 'openai'"):
        read_data(path, format="openai")
    assert len(read_data(path, format="prompt-completion").examples) == 1


# ---- sources -------------------------------------------------------------------------------------------------------


def test_a_folder_is_read_in_order_of_names_and_leaves_notes_alone(write, tmp_path):
    write(lines({"prompt": "2", "completion": "b"}), "b.jsonl")
    write("prompt,completion\n1,a\n", "a.csv")
    write("about this data", "README.txt")
    write("licence", "LICENSE")
    report = read_data(str(tmp_path))
    assert [Path(file.path).name for file in report.files] == ["a.csv", "b.jsonl"]
    assert [example.messages[0]["content"] for example in report.examples] == ["1", "2"]
    files = [str(tmp_path / "b.jsonl"), str(tmp_path / "a.csv")]
    assert [Path(file.path).name for file in read_data(files).files] == ["b.jsonl", "a.csv"]


def test_a_missing_file_is_named_with_its_neighbours(write, tmp_path):
    write(lines(PAIR), "train.jsonl")
    with pytest.raises(DataError) as caught:
        read_data(str(tmp_path / "trian.jsonl"))
    assert "trian.jsonl does not exist" in caught.value.message
    assert "train.jsonl" in caught.value.hint
    with pytest.raises(DataError, match=r"no-such-folder"):
        read_data("no-such-folder/deep/x.csv")


def test_a_hub_name_is_loaded_by_split_with_class_names(monkeypatch):
    class Table(list):
        features = {"label": types.SimpleNamespace(names=["no", "yes"]), "text": object()}

    def load_dataset(name, config, split):
        assert (name, config, split) == ("org/name", "main", "test")
        return Table([{"text": "hi", "label": 1}, {"text": "ho", "label": -1}])

    fake = types.SimpleNamespace(load_dataset=load_dataset, disable_progress_bars=lambda: None)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    report = read_data("org/name:main:test")
    assert turns(report.examples[0]) == [("user", "hi"), ("assistant", "yes")]
    assert (problem(report).line, problem(report).code) == (2, "empty-label")
    assert report.files[0].container == "hub"


def test_a_hub_that_cannot_be_reached_is_said_plainly(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no route to host")

    fake = types.SimpleNamespace(load_dataset=load_dataset, disable_progress_bars=lambda: None)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    with pytest.raises(DataError, match="org/name could not be loaded from the hub: ConnectionError: no route"):
        read_data("org/name")


def test_the_hash_is_that_of_the_bytes_and_progress_reaches_the_end(write):
    import hashlib

    content = lines(*[{"prompt": str(n), "completion": "x" * 500} for n in range(5000)])
    seen = []
    report = read_data(write(content), progress=lambda done, total: seen.append((done, total)))
    assert report.files[0].sha256 == hashlib.sha256(content.encode()).hexdigest()
    assert len(seen) > 2 and seen == sorted(seen) and seen[-1] == (len(content), len(content))


# ---- containers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data", "data.txt", "data.csv", "data.jsonl"])
def test_the_content_decides_and_not_the_name(write, name):
    assert read_data(write(lines(PAIR, PAIR), name)).files[0].container == "jsonl"
    assert read_data(write(json.dumps([PAIR, PAIR], indent=1), name)).files[0].container == "json"
    assert read_data(write("question,answer\nhi,hello\n", name)).files[0].container == "csv"
    assert read_data(write("question\tanswer\nhi\thello\n", name)).files[0].container == "tsv"


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        (json.dumps([PAIR] * 3, indent=2), [2, 6, 10]),
        (json.dumps([PAIR] * 3), [1, 1, 1]),
        ("[\n" + ",\n".join([json.dumps(PAIR)] * 3) + "\n]\n", [2, 3, 4]),
        (json.dumps({"version": 1, "data": [PAIR] * 3, "more": {}}, indent=2), [4, 8, 12]),
        (json.dumps({"data": [PAIR] * 3}), [1, 1, 1]),
        ("\n".join([json.dumps(PAIR, indent=2)] * 3), [1, 5, 9]),
        ("\n\n".join([json.dumps(PAIR)] * 3), [1, 3, 5]),
        (",\n".join([json.dumps(PAIR)] * 3), [1, 2, 3]),
    ],
)
def test_json_rows_have_the_line_they_start_on(write, text, starts):
    report = read_data(write(text))
    assert [example.line for example in report.examples] == starts
    assert not report.problem_counts


def test_a_json_list_larger_than_the_reading_window_is_read_whole(write):
    rows = [{"prompt": str(n), "completion": "x" * (n % 7) * 50_000} for n in range(1, 60)]
    rows = [row for row in rows if row["completion"]]
    for indent in (None, 1):
        report = read_data(write(json.dumps(rows, indent=indent)))
        assert [example.messages[0]["content"] for example in report.examples] == [row["prompt"] for row in rows]
        assert not report.problem_counts


def test_an_error_inside_a_json_list_costs_one_row(write):
    text = json.dumps([PAIR] * 4, indent=2).split("\n")
    text[7] = text[7].replace('"hello"', '"hello')
    report = read_data(write("\n".join(text)))
    assert [example.line for example in report.examples] == [2, 10, 14]
    assert (problem(report).line, problem(report).code) == (8, "bad-json")
    assert report.rows == 4


def test_a_json_list_that_is_cut_off_keeps_the_rows_before(write):
    text = json.dumps([PAIR] * 4, indent=2)
    report = read_data(write(text[: text.rindex("hello") + 2]))
    assert len(report.examples) == 3
    assert problem(report).line == 16 and "middle of a string" in problem(report).message
    closed = read_data(write(text[: text.rindex("}") + 1]))
    assert len(closed.examples) == 4 and "before the list is closed" in problem(closed).message


def test_quoted_cells_may_hold_delimiters_quotes_and_line_breaks(write):
    report = read_data(write('text,label\r\n"a, ""b""\r\nc",x\r\nd,y\r\n'))
    assert [example.messages[0]["content"] for example in report.examples] == ['a, "b"\nc', "d"]
    assert [example.line for example in report.examples] == [2, 4]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_the_delimiter_is_found(write, delimiter):
    rows = [["question", "answer"], ["what, then?", "this; that"], ["a | b", "c"]]
    quoted = "\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    report = read_data(write(quoted))
    assert [turns(example)[0][1] for example in report.examples] == ["what, then?", "a | b"]


def test_backslash_quotes_and_spaces_after_commas_are_understood(write):
    spaced = read_data(write('question, answer\n"a, b", "c"\n"d", "e"\n'))
    assert turns(spaced.examples[0]) == [("user", "a, b"), ("assistant", "c")]
    escaped = read_data(write('question,answer\n"say \\"hi\\", please","c"\n"d","e"\n'))
    assert turns(escaped.examples[0])[0] == ("user", 'say "hi", please')


def test_quotes_in_a_tsv_that_does_not_quote_are_just_characters(write):
    report = read_data(write('question\tanswer\n"x\tb\nsay "hi\tyo\n'))
    assert [turns(example)[0][1] for example in report.examples] == ['"x', 'say "hi']


def test_a_quote_that_is_never_closed_is_located_and_the_rest_is_kept(write):
    good = "".join(f"question {n},answer {n}\n" for n in range(200))
    text = "question,answer\n" + good + '"never closed,oops\n' + good
    report = read_data(write(text))
    assert (problem(report).line, problem(report).code) == (202, "open-quote")
    assert len(report.examples) == 400
    assert report.examples[200].line == 203


def test_rows_with_the_wrong_number_of_columns_are_reported(write):
    report = read_data(write("text,label\na,x\nb,c,y\nd\n\ne,z\nf,w,\n"))
    assert [(p.line, p.code) for p in report.problems] == [(3, "wrong-columns"), (4, "wrong-columns")]
    assert "3 columns where the header has 2" in report.problems[0].message
    assert [example.line for example in report.examples] == [2, 6, 7]


def test_cells_longer_than_the_csv_modules_own_limit_are_read(write):
    report = read_data(write("question,answer\nq," + "x" * 200_000 + "\n"))
    assert len(report.examples[0].messages[1]["content"]) == 200_000


def test_parquet_is_read_with_class_names_and_row_numbers(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = {"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}
    table = pyarrow.table({"text": ["a", None, "c"], "label": [1, 0, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
    path = str(tmp_path / "part-0")
    parquet.write_table(table, path)
    report = read_data(path)
    assert [(example.line, example.messages[1]["content"]) for example in report.examples] == [(1, "yes"), (3, "no")]
    assert (problem(report).line, problem(report).code) == (2, "empty-prompt")
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="Parquet"):
        read_data(path)


def test_parquet_messages_with_empty_fields_are_conversations(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"messages": [[{**message, "tool_calls": None} for message in CHAT["messages"]]]})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert turns(read_data(str(tmp_path / "x.parquet")).examples[0]) == HI_HELLO


# ---- encodings -----------------------------------------------------------------------------------------------------

CHINESE = [("高血压可以吃党参吗？", "可以，请遵医嘱。"), ("感冒了怎么办", "多喝水，注意休息。"), ("ok", "好")]
CHINESE_CSV = "问题,回答\n" + "".join(f'"{ask}","{answer}"\n' for ask, answer in CHINESE)
CHINESE_JSONL = lines(*[{"ask": ask, "answer": answer} for ask, answer in CHINESE])
CHINESE_JSON = json.dumps([{"ask": ask, "answer": answer} for ask, answer in CHINESE], ensure_ascii=False, indent=1)


@pytest.mark.parametrize("text", [CHINESE_CSV, CHINESE_JSONL, CHINESE_JSON], ids=["csv", "jsonl", "json"])
@pytest.mark.parametrize(
    ("encoding", "mark", "found"),
    [
        ("utf-8", b"", "utf-8"),
        ("utf-8-sig", b"", "utf-8-sig"),
        ("gb18030", b"", "gb18030"),
        ("gbk", b"", "gb18030"),
        ("utf-16-le", b"", "utf-16-le"),
        ("utf-16-be", b"", "utf-16-be"),
        ("utf-16-le", b"\xff\xfe", "utf-16-le"),
        ("utf-16-be", b"\xfe\xff", "utf-16-be"),
    ],
)
def test_every_encoding_gives_the_same_text(write, text, encoding, mark, found):
    report = read_data(write(mark + text.encode(encoding)))
    assert [(turns(e)[0][1], turns(e)[1][1]) for e in report.examples] == CHINESE
    assert report.files[0].encoding == found
    assert not report.problem_counts


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_a_few_broken_lines_do_not_change_the_encoding_of_the_file(write, encoding):
    rows = CHINESE_JSONL.encode(encoding).splitlines(keepends=True) * 20
    rows[7] = "高血".encode(encoding)[:-1] + b'"\xff\n'
    rows[30] = b'{"ask": "\xff\xfe", "answer": "x"}\n'
    report = read_data(write(b"".join(rows)))
    assert report.files[0].encoding == encoding
    assert [(p.line, p.code) for p in report.problems] == [(8, "bad-encoding"), (31, "bad-encoding")]
    assert len(report.examples) == 58


@pytest.mark.parametrize("text", [CHINESE_CSV, CHINESE_JSON], ids=["csv", "json"])
def test_a_gb18030_line_among_utf8_lines_is_a_bad_line(write, text):
    parts = text.split("\n")
    index = next(n for n, line in enumerate(parts) if "感冒" in line)
    data = b"\n".join(line.encode("gb18030" if n == index else "utf-8") for n, line in enumerate(parts))
    report = read_data(write(data))
    assert (report.files[0].encoding, report.problem_counts) == ("utf-8", {"bad-encoding": 1})
    assert problem(report).line == index + 1
    assert "GB18030 among UTF-8" in problem(report).message
    assert len(report.examples) == 2


def test_windows_1252_is_reported_and_never_read_as_chinese(write):
    report = read_data(write("question,answer\ncafé is,x\nrésumés please,y\nok,fine\n", encoding="cp1252"))
    assert report.files[0].encoding == "utf-8"
    assert [p.line for p in report.problems] == [2, 3]
    assert "Windows-1252" in report.problems[0].message


def test_old_mac_line_ends_are_counted(write):
    report = read_data(write("question,answer\ra,b\rc\re,f\r"))
    assert [example.line for example in report.examples] == [2, 4]
    assert problem(report).line == 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\xff\xfe", "is empty"),
        (b"text,label\n", "has no rows"),
        (b"[]", "has no rows"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"PK\x03\x04....", "zip archive or an Excel"),
        (bytes(range(1, 32)) * 20, "not a text file"),
        ("x".encode("utf-32"), "UTF-32"),
    ],
)
def test_what_is_no_data_is_refused_in_words(write, content, says):
    with pytest.raises(DataError, match=says):
        read_data(write(content))


# ---- bad rows ------------------------------------------------------------------------------------------------------


def chat(*messages) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


BAD_CALL = {"function": {"name": "f", "arguments": "{"}}
BAD_ROWS = [
    ('{"prompt": "a", "completion": "b', "bad-json", "JSON ends in the middle of a string, column 33"),
    ('{"prompt": "a", "completion": "b"', "bad-json", "ends too early"),
    ("{'prompt': 'a'}", "bad-json", "single quotes"),
    ('{"prompt": "a",}', "bad-json", "a comma too many?"),
    ('{"prompt": "a" "completion": "b"}', "bad-json", "a comma or a closing bracket is missing"),
    ('{"prompt": "a\tb", "completion": "c"}', "bad-json", "a raw tab inside a string"),
    (r'{"prompt": "a\d", "completion": "c"}', "bad-json", "backslash"),
    (json.dumps(PAIR) * 2, "bad-json", "one row per line"),
    ("[" * 100_000, "too-deep", "nested too deeply"),
    ('{"prompt": "a\0b", "completion": "c"}', "nul-byte", "NUL byte at column 14"),
    (r'{"prompt": "a\u0000b", "completion": "c"}', "nul-byte", "NUL character"),
    (r'{"prompt": "\ud83d", "completion": "c"}', "lone-surrogate", r"half of a surrogate pair \(\\ud83d"),
    ('{"prompt": "a", "prompt": "b", "completion": "c"}', "duplicate-key", "'prompt' appears twice"),
    ("12", "wrong-type", "the row is a number"),
    ("1" * 5000, "wrong-type", "the row is a number"),
    ("[]", "wrong-type", "the row is a list"),
    ('{"prompt": "a"}', "missing-column", "'completion' is missing"),
    ('{"prompt": "", "completion": "b"}', "empty-prompt", "question is empty"),
    ('{"prompt": "a", "completion": " "}', "empty-answer", "the assistant's answer is empty"),
    ('{"prompt": "a", "completion": NaN}', "empty-answer", "the assistant's answer is empty"),
    ('{"prompt": "a", "completion": 1.5}', "wrong-type", "'completion' is a number"),
    ('{"prompt": "a", "completion": ["b", "c"]}', "wrong-type", "a list of 2"),
    ('{"messages": "x"}', "wrong-type", "'messages' is a text; it must be a list"),
    ('{"messages": []}', "no-messages", "'messages' is empty"),
    ('{"messages": [1]}', "wrong-type", r"'messages\[0\]' is a number"),
    ('{"messages": [{"content": "x"}]}', "no-role", r"'messages\[0\]' has no 'role'"),
    (chat(("user", "a"), ("assistant", "b"), ("bot", "c")), "bad-role", r"'messages\[2\].role' is 'bot'; use system,"),
    (chat(("user", "a")), "no-assistant", "nothing to learn from"),
    (chat(("assistant", "a")), "no-user", "nothing to answer"),
    (chat(("user", "a"), ("assistant", "")), "empty-answer", "answer is empty"),
    (chat(("user", ""), ("assistant", "a")), "empty-prompt", "message is empty"),
    (chat(("user", "a"), ("assistant", {"x": 1})), "wrong-type", "must be a text"),
    (chat(("user", "a"), ("system", "s"), ("assistant", "b")), "role-order", "only the first message"),
    (chat(("user", "a"), ("tool", "s"), ("assistant", "b")), "role-order", "no tool was called"),
    (
        {"messages": [CHAT["messages"][0], {**CHAT["messages"][1], "weight": 0}]},
        "no-weight",
        "every assistant message has weight 0",
    ),
    ({"messages": [CHAT["messages"][0], {**CHAT["messages"][1], "weight": 2}]}, "bad-weight", "must be 0 or 1"),
    (
        {"messages": [CHAT["messages"][0], {"role": "assistant", "tool_calls": [BAD_CALL]}]},
        "bad-tool-call",
        "arguments of 'f'",
    ),
    ({**CHAT, "tools": [1]}, "bad-tools", "describes no function"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "code", "says"), BAD_ROWS, ids=[f"{n}-{bad[1]}" for n, bad in enumerate(BAD_ROWS)])
def test_every_kind_of_bad_row_is_named_with_its_line_and_the_rest_is_kept(write, row, code, says):
    import re

    row = row if isinstance(row, str) else json.dumps(row)
    report = read_data(write(lines(PAIR, PAIR) + row + "\n" + lines(PAIR)))
    assert (problem(report).line, problem(report).code) == (3, code)
    assert re.search(says, problem(report).message), problem(report).message
    assert problem(report).excerpt.isprintable() and len(problem(report).excerpt) < 130
    assert [example.line for example in report.examples] == [1, 2, 4]
    assert (report.rows, report.bad_rows, report.problem_counts) == (4, 1, {code: 1})


def test_a_truncated_last_line_is_reported_with_its_number_and_the_rest_is_kept(write):
    report = read_data(write(lines(*[PAIR] * 99) + '{"prompt": "tru'))
    assert (problem(report).line, len(report.examples)) == (100, 99)
    assert str(problem(report)).startswith(problem(report).file + ":100: JSON ends in the middle of a string")


def test_the_offending_text_is_cut_short_around_the_error(write):
    row = '{"prompt": "' + "x" * 5000 + '" oops, "completion": "' + "y" * 5000 + '"}'
    shown = problem(read_data(write(lines(PAIR) + row + "\n" + lines(PAIR)))).excerpt
    assert "oops" in shown and shown.startswith("…") and shown.endswith("…")


def test_an_unanswered_last_turn_is_left_out_and_told_but_the_row_is_good(write):
    report = read_data(write(lines(chat(("user", "hi"), ("assistant", "hello"), ("user", "and?")))))
    assert turns(report.examples[0]) == HI_HELLO
    assert (report.bad_rows, report.problem_counts) == (0, {"trailing-turn": 1})
    check_bad_share(report, 0.0)


def test_all_problems_are_counted_though_only_the_first_are_kept(write):
    report = read_data(write(lines(PAIR) + "{\n" * 70 + "[]\n" * 30), max_problems=5)
    assert [p.line for p in report.problems] == [2, 3, 4, 5, 6]
    assert (report.bad_rows, report.problem_counts) == (100, {"bad-json": 70, "wrong-type": 30})


def test_broken_lines_of_a_text_document_are_left_out_and_told(write):
    path = write(b"".join(b"line %d\n" % n for n in range(50)) + b"br\xffken\n", "a.txt")
    report = read_data(path, objective="pretrain")
    assert report.examples[0].text.endswith("line 49\n")
    assert (problem(report).line, report.problem_counts) == (51, {"broken-line": 1})
    with pytest.raises(DataError, match="lines are broken"):
        read_data(write(b"br\xffken\nok\n" * 30, "b.txt"), objective="pretrain")


def test_too_many_bad_rows_are_refused_with_places_counts_and_the_setting(write):
    report = read_data(write(lines(*[PAIR] * 9) + "{\n"))
    check_bad_share(report, 0.1)
    with pytest.raises(DataError) as caught:
        check_bad_share(report, 0.05)
    said = str(caught.value)
    assert "data:10:" in said and "1 bad-json" in said and "data.max_bad_share" in said and "10%" in said


def test_a_file_without_one_good_row_is_refused_and_the_error_carries_the_report(write):
    with pytest.raises(DataError, match="no usable row") as caught:
        read_data(write(lines({**PAIR, "completion": ""}) * 2))
    assert caught.value.report.bad_rows == 2


# ---- the real files ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "banking77").is_dir(), reason="the banking77 data set is not on this machine")
def test_banking77_is_read_whole():
    for name, rows in (("train.csv", 10_003), ("test.csv", 3_080)):
        report = read_data(str(SHARED / "banking77" / name))
        assert (report.rows, report.bad_rows, len(report.examples)) == (rows, 0, rows)
        assert report.files[0].columns == {"text": "text", "label": "category"}


@pytest.mark.skipif(not (SHARED / "zh_medical").is_dir(), reason="the Chinese medical data set is not on this machine")
def test_the_chinese_medical_table_is_read_whole_from_gb18030():
    report = read_data(str(SHARED / "zh_medical" / "neike.csv"))
    assert report.files[0].encoding == "gb18030"
    assert report.files[0].columns == {"prompt": "ask", "completion": "answer"}
    assert (report.rows, report.bad_rows) == (7_644, 0)
    assert turns(report.examples[0])[0][1].startswith("我有高血压")


def test_reading_data_imports_neither_torch_nor_arrow(write):
    path = write(lines(PAIR))
    code = (
        "import sys, engine.formats; assert 'csv' not in sys.modules\n"
        f"engine.formats.read_data({path!r})\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'datasets', 'numpy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
