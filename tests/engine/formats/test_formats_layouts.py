"""How other projects write their data: read as meant, or refused in words that name the format and the way out."""

import json
import warnings

import pytest

from engine.base.errors import DataError
from engine.formats import check_bad_share, read_data
from tests.engine.formats.formatkit import ASKED, CHAT, HI_HELLO, PAIR, SAID, lines, turns, writer


@pytest.fixture
def write(tmp_path):
    return writer(tmp_path, "data.jsonl")


def accounted(report):
    assert report.rows == report.read_rows + report.bad_rows + report.set_aside
    return report


# ---- read ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"kind": "Cot", "input": "hi", "target": "hello"},
        {"conversation_id": 1, "conversation": [{"human": "hi", "assistant": "hello"}]},
        {"source": "s", "conversation": [{"input": "hi", "output": "hello"}]},
        {"conversations": ["hi", "hello"], "source": "lima"},
        {"id": "0", "data": ["hi", "hello"]},
        {"id": "0", "data": ["问：hi", "答：hello"]},
        {"messages": [{**ASKED, "content": [{"type": "text", "value": "hi"}]}, SAID]},
        {"contents": [{"role": "user", "parts": [{"text": "hi"}]}, {"role": "model", "parts": [{"text": "hello"}]}]},
        {"question": "hi", "answers": {"text": ["hello", "hello"], "answer_start": [1, 1]}},
        {"messages": "[{'role': 'user', 'content': 'hi'}, {'role': 'assistant', 'content': \"hello\"}]"},
        {"messages": [ASKED, {"role": "assistant", "content": None, "refusal": "hello"}]},
    ],
    ids=["firefly", "firefly-turns", "capybara", "lima", "ultrachat", "huatuo", "llamafactory-v1", "gemini", "squad",
         "pandas-list", "refusal"],
)  # fmt: skip
def test_layouts_of_other_projects_are_read(write, row):
    report = accounted(read_data(write(lines(row, row))))
    assert [turns(example) for example in report.examples] == [HI_HELLO] * 2
    assert not report.problem_counts


def test_a_backslash_in_a_list_as_python_writes_it_is_a_backslash_and_warns_nobody(write):
    cell = r"[{'role': 'user', 'content': 'what is \d\.\w in C:\Data?'}, {'role': 'assistant', 'content': 'a\400'}]"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (example,) = read_data(write(lines({"messages": cell}))).examples
    assert turns(example) == [("user", r"what is \d\.\w in C:\Data?"), ("assistant", "aĀ")]


ROW = {"prompt": "hi", "completion": "hello"}


@pytest.mark.parametrize(
    "table",
    [
        {"prompt": ["hi"] * 3, "completion": ["hello"] * 3},
        {"prompt": {"0": "hi", "1": "hi", "2": "hi"}, "completion": {"0": "hello", "1": "hello", "2": "hello"}},
        {"a1": ROW, "a2": ROW, "a3": ROW},
        {"columns": ["prompt", "completion"], "index": [0, 1, 2], "data": [["hi", "hello"]] * 3},
        {"messages": [[ASKED, SAID]] * 3},
        {"features": [{"name": "prompt"}], "rows": [{"row_idx": 0, "row": ROW, "truncated_cells": []}] * 3},
    ],
    ids=["lists", "pandas-columns", "object-of-rows", "pandas-split", "lists-of-chats", "hub-viewer"],
)
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_an_object_that_is_a_table_is_read_row_by_row(write, table, indent, name):
    report = accounted(read_data(write(json.dumps(table, indent=indent), name)))
    assert [turns(example) for example in report.examples] == [HI_HELLO] * 3
    assert report.rows == 3


def test_a_bad_row_of_a_table_by_columns_is_named_by_its_number_and_uneven_columns_are_refused(write):
    report = accounted(read_data(write({"prompt": ["a", "b"], "completion": ["x", " "]})))
    assert report.problems[0].message == "row 2: the assistant's answer is empty ('completion')"
    with pytest.raises(DataError, match="columns of different lengths: 'prompt' has 3, 'completion' has 2") as caught:
        read_data(write({"prompt": ["a", "b", "c"], "completion": ["x", "y"]}))
    assert caught.value.report.bad_rows == 3


def test_one_conversation_in_a_file_is_no_table(write):
    tools = [{"name": "f", "parameters": {}}, {"name": "g", "parameters": {}}]
    report = read_data(write({**CHAT, "tools": tools}, "one.json"))
    assert [turns(example) for example in report.examples] == [HI_HELLO]
    assert len(report.examples[0].tools) == 2


def test_a_lone_row_with_a_list_of_messages_under_another_name_is_a_row(write):
    row = {"id": "1", "items": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}
    report = read_data(write(lines(row)), mapping={"messages": "items"})
    assert [turns(example) for example in report.examples] == [HI_HELLO]


def test_a_large_table_on_one_line_is_known_by_its_beginning(write):
    text = "x" * 3000
    for table in (
        {"prompt": ["hi"] * 200, "completion": [text] * 200},
        {"train": [{**PAIR, "completion": text}] * 200},
    ):
        assert len(read_data(write(table)).examples) == 200


def test_excel_may_say_its_delimiter_first(write):
    report = accounted(read_data(write("sep=;\nquestion;answer\nhi;hello\nho;\n", "data.csv")))
    assert turns(report.examples[0]) == HI_HELLO
    assert (report.examples[0].line, report.problems[0].line, report.rows) == (3, 4, 2)
    many_commas = write("sep=;\na, b, c;question;answer\n1, 2, 3;hi;hello\n", "data.csv")
    assert turns(read_data(many_commas).examples[0]) == HI_HELLO


def test_weights_of_llamafactory_swift_and_axolotl_are_understood(write):
    for key, no, yes in (("weight", 0, 1), ("loss_weight", 0.0, 1.0), ("loss", False, True), ("train", False, True)):
        row = {"messages": [ASKED, {**SAID, key: no}, ASKED, {**SAID, key: yes}]}
        example = read_data(write(lines(row))).examples[0]
        assert [message.get("weight") for message in example.messages] == [None, 0, None, 1]


def test_a_system_message_alone_can_be_answered(write):
    row = {"messages": [{"role": "system", "content": "s"}, SAID]}
    assert turns(read_data(write(lines(row))).examples[0]) == [("system", "s"), ("assistant", "hello")]


@pytest.mark.parametrize(
    "call",
    [
        '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
        '<functioncall> {"name": "f", "arguments": \'{}\'}',
        '[Market Trends API(trend="x", country="us"), Other(a=1)]',
        '{"name": "f", "arguments": {}}',
        "Thought: look\nAction: search\nAction Input: x",
        '<|python_tag|>f.call(q="x")',
        '[TOOL_CALLS] [{"name": "f"}]',
    ],
)
def test_a_result_may_follow_a_call_that_is_written_as_text(write, call):
    chat = [("system", "s"), ("human", "q"), ("gpt", call), ("tool", "1"), ("tool", "2"), ("gpt", "one")]
    row = {"conversations": [{"from": role, "value": text} for role, text in chat]}
    example = read_data(write(lines(row))).examples[0]
    assert [message["role"] for message in example.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    assert example.messages[2]["content"] == call


def test_a_result_after_no_call_is_refused_with_the_way_out(write):
    row = {"messages": [ASKED, SAID, {"role": "tool", "content": "1"}, SAID]}
    problem = read_data(write(lines(CHAT, row))).problems[0]
    assert problem.code == "role-order" and "'tool_calls'" in problem.message and "role 'user'" in problem.message


def test_tools_beside_a_question_are_tools_and_the_answer_is_calls(write):
    call = {"name": "f", "arguments": {"x": 1}}
    row = {"query": "q", "tools": json.dumps([{"name": "f", "parameters": {}}]), "answers": json.dumps([call])}
    example = read_data(write(lines(row))).examples[0]
    assert example.tools[0]["function"]["name"] == "f"
    assert example.messages[1]["content"] is None
    assert example.messages[1]["tool_calls"] == [{"type": "function", "function": call}]
    other = read_data(write(lines({**row, "answers": json.dumps([{"name": "g", "arguments": {}}])}))).examples[0]
    assert "tool_calls" not in other.messages[1], "a call of what is not there is a text"
    told = read_data(write(lines({"question": "q", "answer": "a", "tools": "hammer, saw"})))
    assert (len(told.examples), told.files[0].ignored) == (1, {"tools": 1})


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"chat": {"turn_1": {"Human": "x", "MOSS": "y"}}}, "MOSS"),
        ({"message_tree_id": "1", "prompt": {"text": "x", "replies": []}}, "OpenAssistant"),
        ({"message_id": "1", "parent_id": None, "text": "x", "role": "prompter"}, "OpenAssistant"),
        ({"title": "t", "paragraphs": []}, "SQuAD"),
        ({"system": "SYSTEM: s", "chat": "USER: a\n\nASSISTANT: b"}, "glaive"),
        ({"query": "q", "pos": ["a"], "neg": ["b"]}, "embedding"),
        ({"prompt": "p", "completions": ["a", "b"], "labels": [True, False]}, "stepwise"),
        ({"problem": "p", "solution": "s"}, "--map prompt=problem,completion=solution"),
        ({"id": 1, "dialog": [ASKED, SAID]}, "--map messages=dialog"),
        ({"dialog": ["a", "b", "c"]}, "--map messages=dialog"),
        ({"premise": "a", "hypothesis": "b", "label": 0}, "text=COLUMN,label=COLUMN). Columns: premise"),
    ],
)
def test_what_is_not_read_is_named_with_what_to_do(write, row, says):
    with pytest.raises(DataError) as caught:
        read_data(write(lines(row, row)))
    assert says in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.hint


# ---- preference data -----------------------------------------------------------------------------------------------

WORSE = {"role": "assistant", "content": "go away"}


@pytest.mark.parametrize(
    ("row", "way_out"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "--map prompt=prompt,completion=chosen"),
        ({"chosen": "Human: a Assistant: b", "rejected": "Human: a Assistant: c"}, "messages"),
        ({"chosen": [ASKED, SAID], "rejected": [ASKED, WORSE]}, "--map messages=chosen"),
        ({"messages": [ASKED, SAID], "rejected_response": "c"}, "--map messages=messages"),
        ({"messages": [ASKED], "chosen": SAID, "rejected": WORSE}, "append 'chosen' to 'messages'"),
        ({"conversations": [ASKED], "chosen": SAID, "rejected": WORSE}, "append 'chosen' to 'conversations'"),
        ({"instruction": "a", "input": "", "output": "b", "rejected": "c"}, "completion=output"),
        ({"text": "t", "label": "l", "chosen": "b", "rejected": "c"}, "without 'rejected'"),
        ({"input": {"messages": [ASKED]}, "preferred_output": [SAID], "non_preferred_output": [WORSE]}, "messages"),
        ({"prompt": "a", "response_a": "b", "response_b": "c", "winner": "a"}, "better answer"),
        ({"prompt": "a", "output_1": "b", "output_2": "c", "preference": 1}, "better answer"),
        ({"instruction": "a", "completions": [{"response": "b"}]}, "best completion"),
    ],
)
def test_preference_pairs_in_any_form_are_refused_by_name(write, row, way_out):
    with pytest.raises(DataError, match="preference") as caught:
        read_data(write(lines(*[row] * 4)))
    assert way_out in caught.value.hint


def test_one_pair_among_good_rows_is_a_bad_row_and_a_mapping_says_which_is_meant(write):
    pair = {"prompt": "a", "completion": "b", "rejected": "c"}
    report = accounted(read_data(write(lines(*[PAIR] * 9, pair))))
    assert (report.problem_counts, report.problems[0].line) == ({"preference": 1}, 10)
    assert len(read_data(write(lines({**pair, "rejected": ""}))).examples) == 1
    mapped = read_data(write(lines({"q": "hi", "chosen": "hello", "rejected": "c"})), mapping={"completion": "chosen"})
    assert turns(mapped.examples[0]) == HI_HELLO


@pytest.mark.parametrize(
    "beside", [PAIR, CHAT, {"instruction": "hi", "output": "hello"}, {"question": "a", "answer": "b"}]
)
@pytest.mark.parametrize(
    ("column", "bad", "good"),
    [
        ("label", False, True),
        ("label", "false", "true"),
        ("kto_tag", False, True),
        ("is_good", "no", "yes"),
        ("label", 0, 1),
        ("is_correct", 0.0, 1.0),
    ],
)
def test_answers_that_are_called_bad_are_never_trained(write, beside, column, bad, good):
    rows = [{**beside, column: bad if n % 3 == 0 else good} for n in range(9)]
    report = accounted(read_data(write(lines(*rows))))
    assert [example.line for example in report.examples] == [2, 3, 5, 6, 8, 9]
    assert report.problem_counts == {"preference": 3}
    assert "KTO" in report.problems[0].message and "Keep only" in report.problems[0].message
    with pytest.raises(DataError, match="KTO"):
        check_bad_share(report, 0.05)
    with pytest.raises(DataError, match="no usable row"):
        read_data(write(lines(*[{**beside, column: bad}] * 6)))


def test_numbers_that_are_classes_and_labels_of_texts_call_nothing_bad(write):
    assert len(read_data(write(lines(*[{**PAIR, "label": n} for n in range(4)]))).examples) == 4
    labelled = read_data(write(lines({"text": "a", "label": False}, {"text": "b", "label": True})))
    assert [turns(example)[1][1] for example in labelled.examples] == ["false", "true"]


def test_ranked_answers_are_named(write):
    ranked = {"prompt": "a", "answers": [{"answer": "b", "rank": 1}, {"answer": "c", "rank": 2}]}
    listed = {"instruction": "a", "output": ["good", "bad"]}
    for row, says in ((ranked, "several ranked answers"), (listed, "from best to worst")):
        with pytest.raises(DataError, match=says):
            read_data(write(lines(row)))


# ---- pictures and sound --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"messages": [{"role": "user", "content": "<image>What is it?"}, SAID], "images": ["a.png"]}, "images"),
        ({"messages": [ASKED, SAID], "audios": ["a.wav"]}, "audio"),
        ({**PAIR, "video": {"path": "a.mp4"}}, "videos"),
        ({"conversations": CHAT["messages"], "image": "a.jpg"}, "images"),
        ({"prompt": "<image> what?", "completion": "x", "image_path": "a.jpg"}, "images"),
        ({"messages": [{**ASKED, "images": ["a.png"]}, SAID]}, "images"),
    ],
)
def test_rows_about_pictures_and_sound_are_refused(write, row, what):
    with pytest.raises(DataError, match=f"{what} are not supported") as caught:
        read_data(write(lines(row)))
    assert caught.value.report.problem_counts == {"not-text": 1}


def test_empty_media_columns_and_links_beside_the_text_refuse_nothing(write):
    report = read_data(write(lines({**PAIR, "images": []}, {**PAIR, "image_url": "https://x.org/a.png"})))
    assert (len(report.examples), report.files[0].ignored) == (2, {"image_url": 1})


# ---- what is not looked at -----------------------------------------------------------------------------------------


def test_columns_and_keys_with_text_that_nothing_is_learnt_from_are_counted(write):
    rows = [
        {**CHAT, "title": "t", "id": 7, "tags": [], "note": ""},
        {"messages": [ASKED, {**SAID, "thinking": "a", "reasoning": "b", "mood": "good", "audio": None}], "title": " "},
    ]
    report = read_data(write(lines(*rows)))
    keys = {"messages[].thinking": 1, "messages[].reasoning": 1, "messages[].mood": 1}
    assert report.files[0].ignored == {"title": 1, **keys}
    assert "reasoning_content" not in report.examples[1].messages[1], "two thoughts that differ: neither"


@pytest.mark.parametrize("key", ["thinking", "reasoning", "reasoning_content"])
def test_a_thought_is_read_under_each_of_its_names(write, key):
    report = read_data(write(lines({"messages": [ASKED, {**SAID, key: "hm"}]})))
    assert report.examples[0].messages[1]["reasoning_content"] == "hm"
    assert not report.files[0].ignored


def test_choices_of_an_exam_set_are_told_and_no_choice_is_taken_for_the_answer(write):
    report = read_data(write(lines({"question": "q", "choices": ["a", "b"], "answer": 1})))
    assert report.files[0].ignored == {"choices": 1} and "exam" in report.files[0].notes[0]
    with pytest.raises(DataError, match="no columns that finetop knows"):
        read_data(write("question,A,B,C,D,key\nq,1,2,3,4,B\n", "exam.csv"))


@pytest.mark.parametrize("header", ["text,text,label", "text,Text,label", "text,label,label"])
def test_a_name_over_two_columns_is_refused_until_one_is_chosen(write, header):
    path = write(f"{header}\nid1,my card,card\nid2,late,card\n", "data.csv")
    with pytest.raises(DataError, match="stands over columns") as caught:
        read_data(path)
    given = caught.value.hint.split('--map "')[1].split('"')[0]
    mapping = dict(pair.split("=") for pair in given.split(","))
    assert len(read_data(path, mapping=mapping).examples) == 2


def test_a_table_in_json_keeps_its_cells_and_columns_apart(write):
    twice = write({"columns": ["text", "text", "label"], "data": [["id1", "my card", "card"], ["id2", "late", "card"]]})
    with pytest.raises(DataError, match="stands over columns 1 and 2"):
        read_data(twice)
    examples = read_data(twice, mapping={"text": "text (2)", "label": "label"}).examples
    assert [example.messages[0]["content"] for example in examples] == ["my card", "late"]

    data = [["hi", "hello", "and more"], ["hi"], ["hi", "hello"]]
    report = accounted(read_data(write({"columns": ["prompt", "completion"], "data": data})))
    assert (len(report.examples), report.problem_counts) == (1, {"wrong-columns": 2})
    assert "row 1: 3 cells, 2 columns" in report.problems[0].message


def test_parquet_columns_of_one_name_are_told_apart(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.Table.from_arrays(
        [pyarrow.array(["1"]), pyarrow.array(["hi"]), pyarrow.array(["x"])], ["text", "text", "label"]
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="stands over columns 1 and 2"):
        read_data(str(tmp_path / "x.parquet"))


def test_rows_without_questions_are_shown_the_way_to_plain_text(write):
    with pytest.raises(DataError) as caught:
        read_data(write(lines(*[{"prompt": "", "answer": "a text"}] * 4)))
    assert "--objective pretrain --map text=answer" in caught.value.hint
