"""Damaged files of every format through all that reads them: a report or words, in time, each row accounted for."""

import json
import os
import time

import pytest

from engine.base.errors import EngineError, InputError
from engine.data import split
from engine.formats import read_data
from tests.engine.formats import fuzzing

SECONDS = float(os.environ.get("FINETOP_FUZZ_SECONDS", "0"))
"""How long the long run goes on; without it, for CASES. Its first seed is FINETOP_FUZZ_SEED."""
CASES = 20_000
FIRST_SEED = int(os.environ.get("FINETOP_FUZZ_SEED", "1000000"))


def test_damaged_files_are_read_refused_or_told(tmp_path):
    said = [complaint for seed in range(100) if (complaint := fuzzing.run(seed, tmp_path))]
    assert not said, "\n".join(said[:5])


@pytest.mark.parametrize("name", ["\ud800a.jsonl", "b\udcfd/c.csv"])
def test_what_no_encoding_has_is_told_in_words_that_can_be_written_anywhere(name):
    for source in (name, f"{name}:train"):
        with pytest.raises(EngineError, match=r"\\(ud|xfd)"):
            read_data([source])


def test_a_list_that_only_python_has_is_a_bad_row(tmp_path):
    cell = "[{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b', 'more': {1, 2}}]"
    good = "[{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b', 'more': (1, 2)}]"
    table = tmp_path / "cells.csv"
    table.write_text(f'messages\n"{cell}"\n"{good}"\n')
    report = read_data([str(table)])
    assert (report.read_rows, report.bad_rows, report.problems[0].code) == (1, 1, "bad-json")


def test_part_of_a_folder_is_no_single_file(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("train.jsonl", "train-2.jsonl"):
        (folder / name).write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    with pytest.raises(InputError, match="is a folder"):
        split(f"{folder}:train", val=0.3)


MANY = 30_000
_NAMES = [f"c{number}" for number in range(MANY)]
_CALLS = {"role": "assistant", "content": "a", "tool_calls": [{"name": "f", "arguments": "{}"}]}
LARGE = {
    "columns.csv": f"prompt,completion,{','.join(_NAMES)}\nq,a{',x' * MANY}\n",
    "columns.json": json.dumps({name: ["q", "a"] for name in ("prompt", "completion", *_NAMES)}),
    "results.jsonl": json.dumps(
        {
            "messages": [
                {"role": "user", "content": "q"},
                _CALLS,
                *[{"role": "tool", "content": "r"}] * MANY,
                {"role": "assistant", "content": "a"},
            ]
        }
    ),
    "broken.json": '[{"prompt": "q", "completion": "a"}, {"prompt": '
    + "\n" * 3 * MANY
    + '!}, {"prompt": "q", "completion": "a"}]',
    "lines.jsonl": json.dumps({"prompt": "Human: x" + "\n" * 10 * MANY + "Assistant:", "completion": "a"}),
}


@pytest.mark.parametrize("name", LARGE)
def test_many_columns_messages_and_lines_take_time_in_proportion(tmp_path, name):
    (tmp_path / name).write_text(LARGE[name])
    with fuzzing.limited(3):
        assert read_data(str(tmp_path / name)).read_rows in (1, 2)


def test_columns_whose_numbered_names_are_taken_are_told_apart(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("x (3),x,x,prompt,completion\n1,2,3,q,a\n")
    report = read_data(str(table))
    assert report.read_rows == 1 and report.files[0].ignored == {"x (3)": 1, "x": 1, "x (3) (3)": 1}


@pytest.mark.long
def test_damaged_files_are_read_refused_or_told_for_minutes(tmp_path):
    ends, seed, said = time.monotonic() + SECONDS, FIRST_SEED, []
    while time.monotonic() < ends if SECONDS else seed < FIRST_SEED + CASES:
        if complaint := fuzzing.run(seed, tmp_path):
            said.append(complaint)
        seed += 1
    print(f"{seed - FIRST_SEED:,} cases")
    assert not said, f"{len(said)} of {seed - FIRST_SEED:,} cases:\n" + "\n".join(said[:20])
