"""What `finetop data check` promises: every fault by its line, nothing made up, no secret shown whole."""

import json
import os
import random
from pathlib import Path

import pytest

from engine.data import check
from engine.data.mojibake import find_control, find_mojibake
from engine.data.near_duplicates import LEAST_ALIKE, alike, candidates, signatures
from engine.data.pii import find_pii
from tests.engine.data import datafaults

CASES = int(os.environ.get("FINETOP_FAULT_CASES", "200"))
"""Generated files; 500 and more are for those who change a detector."""


def test_planted_faults_are_all_found_on_their_lines_and_clean_files_raise_nothing(tmp_path: Path):
    cases = [datafaults.make(seed) for seed in range(CASES)]
    wrong = [missed for case in cases if (missed := datafaults.faults_missed(case, tmp_path))]
    assert not wrong, "\n".join(wrong)
    assert sum(len(case.expected) for case in cases) > CASES


def lines(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(path)


def found(report, kind: str) -> list[tuple[int, int]]:
    return [(find.line, find.other_line) for find in report.finds if find.kind == kind]


def pairs(*rows: tuple[str, str]) -> list[dict]:
    return [{"prompt": prompt, "completion": completion} for prompt, completion in rows]


def test_the_same_question_counts_as_contradicting_only_where_both_answers_cannot_stand(tmp_path):
    long = "It depends on many things, above all on how long the card has been on its way to you by now."
    path = lines(
        tmp_path / "a.jsonl",
        *pairs(
            ("Is it open?", "yes"),
            ("is it  OPEN?", "no"),
            ("Is it far?", "Yes."),
            ("Is it far?", "yes"),
            ("Tell me more", long),
            ("Tell me more", long.replace("many", "some few")),
        ),
    )
    report = check(path)
    assert found(report, "contradictions") == [(1, 2), (2, 1)]
    assert found(report, "duplicates") == [(4, 3)]
    assert found(report, "several-answers") == [(5, 6), (6, 5)]
    assert report.failed


def test_questions_with_other_numbers_are_no_near_duplicates(tmp_path):
    path = lines(
        tmp_path / "a.jsonl",
        *pairs(
            ("What do I get if I add 12 and 7 on a calculator?", "the answer"),
            ("What do I get if I add 12 and 8 on a calculator?", "the answer"),
            ("What do I get if I add 12 and 8 on my calculator", "the answer"),
        ),
    )
    assert found(check(path), "near-duplicates") == [(3, 2)]


def test_near_duplicates_are_found_among_thousands_with_one_common_beginning():
    chance = random.Random(5)
    head = "classify the following message of a customer into one of our classes and answer with the class only "
    texts = [head + "".join(chance.choices("abcdefghijklmnopqrstuvwxyz ", k=60)) for _ in range(3000)]
    planted = {chance.randrange(3000): None for _ in range(60)}
    copies = [texts[at][:-1] + "Q" for at in planted]
    every = texts + copies
    pairs = candidates(signatures(every))
    shares = alike([every[i] for i in pairs[:, 0]], [every[j] for j in pairs[:, 1]])
    got = {(int(i), int(j)) for (i, j), share in zip(pairs, shares, strict=True) if share >= LEAST_ALIKE}
    assert {(at, 3000 + number) for number, at in enumerate(planted)} <= got


def test_leaks_are_told_with_the_line_of_the_other_file(tmp_path):
    path = lines(tmp_path / "train.jsonl", *pairs(("one two three", "a"), ("你好吗，今天过得怎么样", "b")))
    val = lines(tmp_path / "val.jsonl", *pairs(("x", "a"), ("ONE two  three", "z")))
    test = lines(tmp_path / "test.jsonl", *pairs(("你好吗？今天过得怎么样呢", "b")))
    report = check(path, val=val, test=test)
    assert found(report, "leaks") == [(1, 2)]
    assert [find.other_file for find in report.finds if find.kind == "leaks"] == [val]
    assert found(report, "near-leaks") == [(2, 1)]


@pytest.mark.parametrize("seed", range(25))
def test_what_is_secret_is_found_and_never_shown_whole(seed):
    chance = random.Random(seed)
    for kind, text in (("secrets", datafaults.secret(chance)), ("identity", datafaults.identity(chance))):
        matches = list(find_pii(f"看看这个 {text} please"))
        assert {match.kind for match in matches} == {kind}
        assert all(len(match.shown) <= 9 < len(text) for match in matches)


@pytest.mark.parametrize(
    "text",
    [
        "order 20240117123456 arrived",
        "ISBN 978-3-16-148410-0 and 9783161484100",
        "the number 4111111111111112 fails the checksum",
        "11010519491231002Y and 110105194912310021",
        "mail kim@example.com or root@localhost",
        "2024-01-17 12:30:45.123456 +0000",
        "192.168.100.200:8080 and 127.0.0.1",
        "pi is 3.14159265358979323846",
        "the skill risk-management-and-assessment-of-things",
        "api_key = os.environ['KEY'] and token: the one you were given by us",
        "https://user@host.org/path and http://localhost:8080/a@b",
        "DE89 3704 0044 0532 0130 01",
        "手机号是11位数字，例如12345678901",
        "d41d8cd98f00b204e9800998ecf8427e",
    ],
)
def test_numbers_and_words_that_only_look_like_something_are_left_alone(text):
    assert list(find_pii(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "Café naïve coûté",
        "Ångström, Øre, ß",
        "“quoted” – it’s … €5",
        "这是一句正常的中文，没有问题。",
        "日本語のテキスト",
        "Привет, как дела?",
        "한국어 문장입니다",
        "x² ≤ 5 °C ± ½",
        "a family: \U0001f469\u200d\U0001f469\u200d\U0001f467",
        "Île-de-France à 10 €",
    ],
)
def test_sound_text_of_many_languages_is_not_called_damaged(text):
    assert find_mojibake(text) is None
    assert find_control(text) is None


def test_labels_roles_and_sizes_are_counted(tmp_path):
    rows = [{"text": f"message number {n} of many", "label": "ab"[n % 3 == 0]} for n in range(30)]
    report = check(lines(tmp_path / "a.jsonl", *rows))
    assert report.labels == {"a": 20, "b": 10}
    assert report.roles == {"user": 30, "assistant": 30}
    assert (report.rows, report.questions, report.lengths.unit) == (30, 30, "characters")
    assert "too few" in report.verdict
    assert sum(report.lengths.histogram.values()) == 30


def test_counts_hold_when_only_the_first_finds_are_kept(tmp_path):
    path = lines(tmp_path / "a.jsonl", *pairs(*[("the same question", "the same answer")] * 50))
    report = check(path, max_finds=3)
    assert report.counts["duplicates"] == 49
    assert found(report, "duplicates") == [(2, 1), (3, 1), (4, 1)]


def test_documents_are_compared_too(tmp_path):
    path = lines(
        tmp_path / "a.jsonl", {"text": "a long document " * 9}, {"text": "other"}, {"text": "a long document " * 9}
    )
    report = check(path)
    assert found(report, "duplicates") == [(3, 1)]
    assert report.roles == {"text": 3}


def test_tokens_and_truncation_are_those_of_the_model(tmp_path, tiny_model, fork_server):
    path = lines(
        tmp_path / "a.jsonl", *pairs(("hi", "hello"), ("hi there", "word " * 60), ("long " * 60, "never seen"))
    )
    report = check(path, model=str(tiny_model), max_length=40)
    from engine.formats import read_data
    from engine.settings.schema import ModelConfig
    from engine.worker.data.chat_template import ChatTemplate
    from engine.worker.model.load import load_tokenizer

    template = ChatTemplate(load_tokenizer(ModelConfig(name=str(tiny_model))))
    lengths = [len(encoded.ids) for encoded in template.encode_chats(read_data(path).examples)]
    assert report.lengths.unit == "tokens"
    assert report.lengths.total == sum(lengths)
    assert report.lengths.cut_tokens == sum(max(0, length - 40) for length in lengths)
    assert found(report, "truncated") == [(2, 0)]
    assert found(report, "no-answer-left") == [(3, 0)]


def test_a_model_that_is_not_there_is_an_error_with_a_hint(tmp_path, fork_server):
    from engine.base.errors import EngineError

    path = lines(tmp_path / "a.jsonl", *pairs(("hi", "hello")))
    with pytest.raises(EngineError) as caught:
        check(path, model=str(tmp_path / "no-model"))
    assert caught.value.exit_code == 2


REAL = Path(os.environ.get("FINETOP_REAL_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))


@pytest.mark.skipif(not REAL.is_dir(), reason="real data sets are not on this machine (FINETOP_REAL_DATA=FOLDER)")
def test_real_files_raise_only_what_is_true():
    bank = check(str(REAL / "banking77" / "train.csv"), test=str(REAL / "banking77" / "test.csv"), max_finds=None)
    assert bank.serious == {"leaks": 7}
    assert bank.counts["duplicates"] == 4
    assert len(bank.labels) == 77
    medical = check(str(REAL / "zh_medical" / "neike.csv"))
    assert medical.files[0].encoding == "gb18030"
    assert not medical.failed
    assert medical.counts["duplicates"] == 397


# ---- what belongs to the question, and what to the answer ----------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}


def talk(question: str, answer: str, system: str = "", tools: tuple = (), **beside) -> dict:
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **beside}]
    return {"messages": messages, **({"tools": list(tools)} if tools else {})}


LONG = "What is the weather going to be like in Paris tomorrow afternoon, do you think?"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (talk(LONG, "I can't."), talk(LONG, "I can.", tools=(TOOL,))),
        (talk(LONG, "Sunny.", system="be brief"), talk(LONG, "No idea.", system="you know nothing")),
        (talk(LONG, "Sunny.", system="be brief"), talk(LONG, "Sunny.", system="you know nothing")),
        (talk(LONG, "Sunny.", reasoning_content="It is May."), talk(LONG, "Sunny.", reasoning_content="It is hot.")),
        (talk(LONG, "Sunny."), talk(LONG, "Sunny.", thinking="It is hot.")),
        (talk(LONG, "Sunny."), talk(LONG, "Sunny.", tools=(TOOL,))),
    ],
    ids=["tools", "systems", "systems-same-answer", "thoughts", "a-thought", "tools-same-answer"],
)
def test_rows_that_ask_or_teach_something_else_are_neither_alike_nor_contradicting(tmp_path, one, other):
    from engine.data import clean

    path = lines(tmp_path / "a.jsonl", one, other, talk("Is it?", "yes"))
    report = check(path)
    assert report.counts == {}
    assert clean(path, tmp_path / "out.jsonl").kept == 3


def test_weights_tell_rows_apart_and_the_same_in_all_is_a_duplicate(tmp_path):
    first = talk("a question of some length", "one", weight=0)["messages"]
    second = talk("another question of some length", "two")["messages"]
    weighted, plain = (
        {"messages": first + second},
        {"messages": [{**m, "weight": 1} if "weight" in m else m for m in first] + second},
    )
    path = lines(
        tmp_path / "a.jsonl", weighted, plain, weighted, talk(LONG, "x", tools=(TOOL,)), talk(LONG, "x", tools=(TOOL,))
    )
    report = check(path)
    assert report.counts == {"duplicates": 2}
    assert found(report, "duplicates") == [(3, 1), (5, 4)]
    thought = talk(LONG, "yes", reasoning_content="a"), talk(LONG, "no", reasoning_content="b")
    assert check(lines(tmp_path / "b.jsonl", *thought)).counts == {"contradictions": 2}


def test_equal_questions_stay_on_one_side_whatever_tools_are_offered(tmp_path):
    from engine.data import split

    rows = [talk(f"question number {n} of many others", "a", tools=(TOOL,) * k) for n in range(20) for k in (0, 1)]
    parts = split(lines(tmp_path / "a.jsonl", *rows), val=0.3)
    sides = [
        {json.loads(line)["messages"][0]["content"] for line in file.read_text().splitlines()}
        for file in parts.files.values()
    ]
    assert not sides[0] & sides[1]


# ---- labels --------------------------------------------------------------------------------------------------------


def test_labels_that_differ_in_case_or_form_only_are_told_with_their_counts(tmp_path):
    labels = ["Card"] * 6 + ["card"] * 5 + ["caf\u00e9"] * 6 + ["cafe\u0301"] * 4 + ["other"] * 3
    path = lines(tmp_path / "a.jsonl", *[{"text": f"number {n} is late", "label": one} for n, one in enumerate(labels)])
    report = check(path)
    finds = [find for find in report.finds if find.kind == "labels"]
    assert [(find.line, find.other_line) for find in finds] == [(7, 1), (18, 12)]
    assert "'card' (5 rows) and 'Card' (6 rows)" in finds[0].message
    assert "\\u0301" in finds[1].excerpt, "where the eye sees no difference, the escape shows it"
    assert report.failed


@pytest.mark.parametrize("twin", ["lost\u200b card", "lost_card", "Lost-Card", "lost\u2013card"])
def test_labels_that_look_alike_are_told(tmp_path, twin):
    labels = ["lost card"] * 6 + [twin] * 5 + ["c", "c++", "1", "-1"] * 3
    path = lines(tmp_path / "a.jsonl", *[{"text": f"number {n} is late", "label": one} for n, one in enumerate(labels)])
    assert [find.line for find in check(path).finds if find.kind == "labels"] == [7]


# ---- splits and what is left out -----------------------------------------------------------------------------------


def test_the_splits_of_a_folder_are_checked_against_each_other(tmp_path):
    lines(tmp_path / "train.jsonl", *pairs((LONG, "a"), ("something else altogether, please", "b")))
    lines(tmp_path / "test.jsonl", *pairs((LONG, "a"), (LONG, "a")))
    (tmp_path / "notes.md").write_text("x")
    report = check(str(tmp_path))
    assert report.counts == {"leaks": 1}
    assert [find.other_file for find in report.finds] == [str(tmp_path / "test.jsonl")]
    assert any("notes.md" in line for line in report.left_out)
    assert any("2 rows of the split 'test'" in line for line in report.left_out)
    alone = check(str(tmp_path / "test.jsonl"))
    assert (alone.rows, alone.counts) == (2, {"duplicates": 1})


def test_a_file_of_nothing_but_a_test_split_is_checked_as_the_data_it_is(tmp_path):
    path = lines(
        tmp_path / "a.jsonl", *[{**row, "split": "test"} for row in pairs((LONG, "a"), (LONG, "a"), ("", "b"))]
    )
    report = check(path)
    assert (report.rows, report.counts) == (3, {"unreadable": 1, "duplicates": 1})


def test_what_rewrites_a_file_keeps_its_split_column_and_refuses_splits_of_their_own(tmp_path):
    from engine.base.errors import InputError
    from engine.data import clean, convert

    rows = [{"prompt": f"question {n}", "completion": "a", "split": "test" if n > 3 else "train"} for n in range(6)]
    cleaned = clean(lines(tmp_path / "a.jsonl", *rows), tmp_path / "b.jsonl", remove=["duplicates"])
    assert (cleaned.kept, [json.loads(line) for line in cleaned.out.read_text().splitlines()]) == (6, rows)
    both = tmp_path / "both.json"
    both.write_text(
        json.dumps({"train": pairs(*[(f"q{n}", "a") for n in range(4)]), "test": pairs(("x", "y"), ("z", "w"))})
    )
    with pytest.raises(InputError, match="several splits") as caught:
        clean(str(both), tmp_path / "c.json")
    assert f"convert {both}:train" in caught.value.hint
    done = convert(str(both), tmp_path / "d.jsonl", "openai")
    assert (done.written, done.notes) == (4, (f"2 rows of the split 'test' set aside; {both}:test reads them",))
    assert convert(f"{both}:test", tmp_path / "e.jsonl", "openai").written == 2


# ---- cases that a set lacks ----------------------------------------------------------------------------------------


def advice(tmp_path, *rows: dict) -> str:
    return ", ".join(check(lines(tmp_path / "a.jsonl", *rows)).advice)


def test_boundary_cases_that_a_set_lacks_are_named_and_those_it_has_are_not(tmp_path):
    plain = [
        {"prompt": f"question number {n} of many", "completion": f"the answer is {n} plus one"} for n in range(250)
    ]
    assert advice(tmp_path, *plain[:50]) == "", "nothing is said of small sets"
    said = advice(tmp_path, *plain)
    assert "meaningless" in said and "very long" in said and "declines" in said
    edges = pairs(("??", "What do you mean?"), ("word " * 400, "done"), ("give me a pin", "Sorry, I can't do that."))
    assert advice(tmp_path, *plain, *edges) == ""
    labelled = [{"text": f"message {n} of many", "label": "ab"[n % 2] * 3} for n in range(250)]
    assert "a label for what fits none" in advice(tmp_path, *labelled)
    assert "a label for what" not in advice(
        tmp_path, *labelled, *[{"text": f"x{n}", "label": "Other"} for n in range(3)]
    )
    objects = [
        {"prompt": f"read order {n} for me", "completion": json.dumps({"id": n, "city": "x"})} for n in range(250)
    ]
    assert "a field left empty" in advice(tmp_path, *objects)
    gap = {"prompt": "read order seven", "completion": json.dumps({"id": 7, "city": None})}
    assert "a field left empty" not in advice(tmp_path, *objects, gap)
