"""Ratings beside answers: nothing is learnt from them, and it is told how many answers have a low one."""

import json

import pytest

from engine.formats import files_told, read_data
from engine.formats.examples import rows_told


def told(tmp_path, rows, **how) -> list[str]:
    path = tmp_path / "rated.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    report = read_data(str(path), **how)
    assert report.read_rows == len(rows)
    return [line for line in files_told(rows_told([report])) if "looks like a rating" in line]


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("rating", [1, 5, 2, 4, 5],
         "'rating' looks like a rating (1 to 5): all answers count alike, also those of the 2 of 5 rows with 3"),
        ("score_chosen", [8.5, 2.25, 9, 9, 9], "(2.25 to 9)"),
        ("avg_rating", ["4.5", "1", "5", "", "5"], "the 1 of 4 rows with 3 or less"),
        ("ratings", [{"helpfulness": 4, "why": "ok"}, {"helpfulness": 0}, {}, None, {"helpfulness": 4}],
         "'ratings.helpfulness' looks like a rating (0 to 4): all answers count alike, also those of the 1 of 3"),
        ("评分", [0, 1.5, 2, 3, 3], "(0 to 3)"),
    ],
)  # fmt: skip
def test_ratings_are_told_with_a_count(column, values, words, tmp_path):
    rows = [{"prompt": f"q{n}", "completion": f"a{n}", column: value} for n, value in enumerate(values)]
    (line,) = told(tmp_path, rows)
    assert words in line and "take out" in line
    chats = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], column: value}
        for value in values
    ]
    assert told(tmp_path, chats) == [line]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("rating", [5, 5, 5]),
        ("rating", [float("nan"), 5, None]),
        ("score", [True, False, True]),
        ("length", [1, 2, 3]),
        ("operating_system", [1, 2, 3]),
    ],
)
def test_what_says_nothing_of_the_answers_is_not_taken_for_one(column, values, tmp_path):
    rows = [{"prompt": f"q{n}", "completion": f"a{n}", column: value} for n, value in enumerate(values)]
    assert told(tmp_path, rows) == []
    labelled = [{"text": f"q{n}", "label": "ab"[n % 2], "score": n} for n in range(4)]
    assert told(tmp_path, labelled) == []


def test_the_better_answers_of_pairs_have_theirs_told(tmp_path):
    rows = [
        {"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": n, "score_rejected": 1 - n} for n in range(3)
    ]
    (line,) = told(tmp_path, rows, mapping={"prompt": "prompt", "completion": "chosen"})
    assert "'score_chosen'" in line


def test_a_rating_that_is_read_as_something_else_is_none(tmp_path):
    rows = [{"review": f"good {n}", "score": str(n % 5)} for n in range(9)]
    assert told(tmp_path, rows, mapping={"prompt": "review", "completion": "score"}) == []
