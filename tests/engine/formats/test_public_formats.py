"""Rows as public data sets have them: what is asked, thought and answered is read, refused by name, or told."""

import json

import pytest

from engine.base.errors import DataError
from engine.formats import files_told, read_data

U, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
H, G = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
QA = [("user", "q"), ("assistant", "a")]
SQA = [("system", "s"), *QA]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
CALLED = [H, {"from": "function-call", "value": '{"name": "f"}'}, {"from": "function-response", "value": "1"}, G]


def read(tmp_path, rows, name="rows.jsonl", **options):
    whole = name.endswith(".json")
    path = tmp_path / name
    path.write_text(json.dumps(rows) if whole else "".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    report = read_data(str(path), **options)
    assert report.rows == report.read_rows + report.bad_rows + report.set_aside
    return report


def turns(report):
    return [(message["role"], message["content"]) for message in report.examples[0].messages]


def told(report):
    files = [{"path": file.path, "notes": file.notes, "ignored": file.ignored} for file in report.files]
    return "\n".join(files_told({"files": files, "left_out": report.left_out}))


@pytest.mark.parametrize(
    ("row", "as_read"),
    [
        ({"conversations": [{"from": "user", "value": "q"}, {"from": "bing", "value": "a"}]}, QA),
        ({"instruction": "Human:h\nAssistant:i\nHuman:q\nAssistant:", "output": "a"},
         [("user", "h"), ("assistant", "i"), *QA]),
        ({"prompt": "\n\nHuman: q\n\nAssistant: ", "completion": "a"}, QA),
        ({"prompt": "Human: what does that mean?\n", "completion": "a"},
         [("user", "Human: what does that mean?\n"), ("assistant", "a")]),
        ({"conversation": [{"system": "s", "input": "q", "output": "a"}]}, SQA),
        ({"system_message": "s", "conversations": [H, G]}, SQA),
        ({"system": [{"text": "s"}], "messages": [{"role": "user", "content": [{"text": "q"}]}, A]}, SQA),
        ({"systemInstruction": {"parts": [{"text": "s"}]}, "contents": [{"role": "user", "parts": [{"text": "q"}]},
          {"role": "model", "parts": [{"text": "a"}]}]}, SQA),
        ([U, A], QA),
        ({"conversations": CALLED}, [("user", "q"), ("assistant", None), ("tool", "1"), ("assistant", "a")]),
        ({"prompt": [U], "output": "a", "system_prompt": "s", "reasoning": "on"}, SQA),
    ],
    ids=["sharegpt-bing", "belle-turns", "hh-prompt", "no-transcript", "xtuner", "system-message", "bedrock", "gemini",
         "bare-list", "function-call", "nemotron"],
)  # fmt: skip
def test_questions_answers_and_system_prompts_are_read(tmp_path, row, as_read):
    report = read(tmp_path, [row, row])
    assert turns(report) == as_read and len(report.examples) == 2


@pytest.mark.parametrize(
    "row",
    [
        {"tools": [json.dumps(TOOL)], "messages": [U, A]},
        {"tools": [{"functionDeclarations": [{"name": "f", "parameters": {}}]}], "messages": [U, A]},
        {"tools": [{"name": "f", "input_schema": {}}], "messages": [U, A]},
        {"messages": [{"role": "system", "content": "s", "tools": [TOOL]}, U, A]},
    ],
    ids=["texts", "gemini", "anthropic", "glm-4"],
)
def test_tools_are_read_where_other_projects_keep_them(tmp_path, row):
    report = read(tmp_path, [row])
    assert report.examples[0].tools == (TOOL,)
    assert not told(report) and all("tools" not in message for message in report.examples[0].messages)


@pytest.mark.parametrize(
    ("row", "mapping"),
    [
        ({"input": "q", "reasoning_content": "t", "content": "a"}, None),
        ({"Question": "q", "Complex_CoT": "t", "Response": "a"}, None),
        ({"question": "q", "rationale": "t", "answer": "a"}, {"reasoning": "rationale", "completion": "answer"}),
    ],
)
def test_the_thought_before_an_answer_may_be_a_column(tmp_path, row, mapping):
    report = read(tmp_path, [row], mapping=mapping)
    assert turns(report) == QA and report.examples[0].messages[1]["reasoning_content"] == "t"
    assert not report.files[0].ignored


def test_what_keeps_an_answer_out_of_the_loss_is_read_beside_pairs_too(tmp_path):
    pairs = [{"input": "q", "output": "a", "output_with_loss": False}, {"input": "q", "output": "a"}]
    messages = read(tmp_path, [{"conversation": pairs}]).examples[0].messages
    assert [message.get("weight") for message in messages if message["role"] == "assistant"] == [0, None]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"text": "### Human: q### Assistant: a"}, "conversations as one text each .'text'"),
        ({"text": "<|im_start|>user\nq<|im_end|>"}, "conversations as one text each"),
        ({"plain_text": "[Human]: q<eoh> [MOSS]: a<eoa>"}, "conversations as one text each"),
        ({"transcript": "\n\nHuman: q\n\nAssistant: a", "rating": 4}, "conversations as one text each"),
        ({"role": "user", "content": "q"}, "single messages"),
        ({"translation": {"en": "q", "fr": "a"}}, "translations"),
        ({"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"}, "exam questions"),
        ({"instruction": "q", "instances": [{"input": "", "output": "a"}]}, "Self-Instruct"),
        ({"segments": [{"label": True, "text": "a"}]}, "segments"),
        ({"tokens": ["a"], "ner_tags": [0]}, "CoNLL"),
        ({"rasa_nlu_data": {"common_examples": []}}, "Rasa"),
        ({"title": "t", "mapping": {}, "current_node": "n"}, "ChatGPT"),
        ({"id": 1, "data": {"text": "q"}, "annotations": []}, "Label Studio"),
        ({"prompt": [U], "ground_truth": "5"}, "questions without answers"),
        ({"context": [U], "response1": "a", "response2": "b"}, "to be compared"),
        ({"prompt": "q", "pos_resp": "a", "neg_resp": "b"}, "preference pairs"),
        ({"question": "q", "best_answer": "a", "category": "c"}, "no columns that finetop knows"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_not_read_is_refused_by_the_name_of_its_format(tmp_path, row, says):
    with pytest.raises(DataError, match=says) as caught:
        read(tmp_path, [row, row])
    assert caught.value.hint


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"functionCall": {"name": "f", "args": {}}}, "calls and results are not read"),
        ({"toolUse": {"name": "f"}}, "calls and results are not read"),
        ({"inlineData": {"mimeType": "image/png", "data": ""}}, "images are not supported"),
        ({"text": "hm", "thought": True}, "thoughts are not read"),
    ],
)
def test_a_part_without_a_type_is_named_by_its_keys(tmp_path, part, says):
    row = {"contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [part]}]}
    with pytest.raises(DataError, match=says):
        read(tmp_path, [row])


PAIR = {"prompt": "q", "completion": "a"}


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ({"prompt": "q", "response": "a", "is_safe": False}, {"prompt": "q", "response": "a", "is_safe": True}),
        ({**PAIR, "rating": "thumbs_down"}, {**PAIR, "rating": "thumbs_up"}),
        ({"text": "t", "label": "l", "answer": "reject"}, {"text": "t", "label": "l", "answer": "accept"}),
    ],
    ids=["beavertails", "thumbs", "prodigy"],
)
def test_answers_that_are_called_bad_in_other_words_are_not_trained(tmp_path, bad, good):
    report = read(tmp_path, [good, bad, good])
    assert (report.read_rows, report.problem_counts) == (2, {"preference": 1})


@pytest.mark.parametrize("indent", [None, 1])
def test_examples_of_what_not_to_do_are_not_trained(tmp_path, indent):
    examples = {"input": "q", "output": "a", "explanation": "e"}
    task = {"Definition": ["d"], "Positive Examples": [examples] * 2, "Negative Examples": [examples] * 3}
    path = tmp_path / "task.json"
    path.write_text(json.dumps({**task, "Instances": [{"input": "q", "output": ["a"]}]}, indent=indent))
    report = read_data(str(path))
    assert (report.read_rows, report.problem_counts) == (3, {"preference": 3})
    assert "Negative Examples" in report.problems[0].message and "Definition" in told(report)


def test_a_verdict_under_an_unknown_name_is_told_with_a_count(tmp_path):
    rows = [{**PAIR, "approved": number > 2} for number in range(9)]
    assert "'approved' is false in 3 rows, which are trained like the others" in told(read(tmp_path, rows))
    assert not told(read(tmp_path, [{**PAIR, "redacted": False}] * 3))
    judged = {"messages": [U, {**A, "is_correct": False}]}
    assert read(tmp_path, [judged]).files[0].ignored == {"messages[].is_correct": 1}


def test_text_that_is_in_the_row_already_is_not_called_lost(tmp_path):
    report = read(tmp_path, [{"prompt": "q", "messages": [U, A], "category": "c"}])
    assert report.files[0].ignored == {"category": 1}


def test_text_that_has_no_place_in_the_row_is_told(tmp_path):
    two = {"system": "other", "messages": [{"role": "system", "content": "s"}, U, A]}
    assert read(tmp_path, [two]).files[0].ignored == {"system": 1}
    beside = {"question": [U], "answer": "a", "context": "c"}
    assert read(tmp_path, [beside]).files[0].ignored == {"context": 1}


def test_choices_of_an_exam_are_told_in_one_line(tmp_path):
    row = {"question": "q", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "C"}
    lines = told(read(tmp_path, [row])).splitlines()
    assert lines[0].startswith("'A', 'B', 'C', 'D' look like the choices") and len(lines) == 2


def test_rows_of_the_hubs_viewer_keep_their_splits(tmp_path):
    rows = [{"row_idx": n, "row": {**PAIR, "split": part}} for n, part in enumerate(["train", "test", "test"])]
    assert read(tmp_path, rows, use="evaluation").read_rows == 2


@pytest.mark.parametrize(("row", "lost"), [([U], "no-assistant"), (["q", "a"], "wrong-type"), ([], "wrong-type")])
def test_a_list_that_is_no_conversation_is_a_bad_row(tmp_path, row, lost):
    report = read(tmp_path, [[U, A], row])
    assert (report.read_rows, report.problem_counts) == (1, {lost: 1})
