"""`finetop data show`: what is trained of each row, turn by turn, and how the model is asked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from template_recipes import plain
from template_shapes import SHAPES
from tokenizer_kit import tokenizer

from engine.cli.data_report import shown_rows
from engine.cli.main import main
from engine.records import Example
from engine.worker.template import ChatTemplate
from engine.worker.turns import describe

TALK = (
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "first", "weight": 0},
    {"role": "user", "content": "two?"},
    {"role": "assistant", "content": "second"},
)


def described(shape: str, *messages: dict) -> dict:
    tokens = tokenizer(SHAPES[shape].family)
    tokens.chat_template = plain(SHAPES[shape].source)
    return describe(ChatTemplate(tokens), Example(messages=messages))


def test_each_turn_has_its_roles_its_exact_text_its_tokens_and_the_token_it_ends_at() -> None:
    told = described("qwen2.5", *TALK)
    before, answer, after = told["turns"]
    assert (before["roles"], before["messages"]) == (["system", "user", "assistant", "user"], [0, 1, 2, 3])
    assert before["text"].startswith("<|im_start|>system\nBe kind.") and before["text"].endswith("assistant\n")
    assert (answer["text"], answer["stop"], answer["prompt"]) == ("second<|im_end|>", "<|im_end|>", None)
    assert after["text"] == "\n" and not after["trained"]
    assert sum(turn["tokens"] for turn in told["turns"]) == told["tokens"]
    assert told["trained"] == answer["tokens"]
    assert "<|im_end|>" in told["stop_tokens"]


def test_what_the_model_is_given_when_it_is_asked_stands_beside_a_turn_that_is_trained_otherwise() -> None:
    told = described("r1", {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "four"})
    (answer,) = [turn for turn in told["turns"] if turn["trained"]]
    assert answer["prompt"].endswith("<｜Assistant｜><think>\n")
    assert answer["notes"]
    lines = list(shown_rows([{"file": "a.jsonl", "line": 1, "problem": "", "ignored": [], **told}]))
    assert any("<｜Assistant｜><think>⏎" in line for line in lines)
    assert any("note: this answer follows another prompt" in line for line in lines)
    assert any(line.startswith("    ⟦four<｜end▁of▁sentence｜>⟧") for line in lines)


def test_a_row_that_cannot_be_trained_says_why() -> None:
    told = described("gemma2", *TALK)
    assert told["error"].endswith("System role not supported")
    row = {"file": "a.jsonl", "line": 7, "problem": "", "ignored": [], **told}
    assert list(shown_rows([row]))[-1].startswith("a.jsonl:7: not trained: the chat template")


def test_text_of_the_file_is_shown_and_never_obeyed() -> None:
    told = described("qwen2.5", {"role": "user", "content": "\x1b[31mred"}, {"role": "assistant", "content": "\x07"})
    assert not any(
        "\x1b" in line or "\x07" in line
        for line in shown_rows([{"file": "a", "line": 1, "problem": "", "ignored": []} | told])
    )


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows = [{"messages": [*TALK, {"role": "user", "content": "left out"}], "remark": "good"}, {"messages": [*TALK[:2]]}]
    rows += [{"prompt": f"question {number}", "completion": f"answer {number}"} for number in range(5)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def test_the_command_reads_as_training_does_and_loads_no_torch(data: str) -> None:
    code = (
        "import sys\nfrom engine.cli.main import main\n"
        f"assert main(['data', 'show', {data!r}, '--rows', '4']) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert "a.jsonl:1: " in done.stdout and "note: the last message is left out" in done.stdout
    assert "note: nothing is learnt from remark" in done.stdout
    assert "a.jsonl:2: no assistant message" in done.stdout
    assert "⟦answer 1<|im_end|>⟧" in done.stdout and "answer 2" not in done.stdout


def test_slips_are_told_with_the_way_out(data: str, capsys: pytest.CaptureFixture) -> None:
    for words, said in (
        (["--line", "99"], "no row starts on line 99"),
        (["--rows", "0"], "--rows 0 is less than 1"),
        (["--map", "prompt"], "ROLE=COLUMN"),
        (["--line", "3", "--model", "/nowhere"], "no model folder /nowhere"),
    ):
        assert main(["data", "show", data, *words]) == 2
        assert said in capsys.readouterr().err
