"""`finetop data show`: what is trained of each row, turn by turn, and how the model is asked."""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.cli.settings_flags import add_setting_flags, given_layers
from engine.formats import read_data
from engine.formats.examples import Example
from engine.present.data_view import shown_rows
from engine.settings.resolve import resolve
from engine.worker.data.chat_template import ChatTemplate, clock_of
from engine.worker.data.tokenize import prepare
from engine.worker.model.load import generation_ends, load_tokenizer
from engine.worker.show_turns import describe, pieces_of
from tests.engine.forkserver import ForkServer
from tests.engine.worker.data.template_recipes import plain
from tests.engine.worker.data.template_shapes import SHAPES
from tests.engine.worker.data.tokenizer_kit import tokenizer

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
    (told,) = describe(ChatTemplate(tokens), Example(messages=messages), resolve([]).config)
    return told


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


def test_the_command_reads_and_trains_as_a_run_with_these_settings_and_loads_no_torch(
    model: str, data: str, fork_server: ForkServer
) -> None:
    flags = ["--model", model, "--set", "data.clock=2026-01-31 12:00", "--set", "data.thinking=no_loss_on_empty"]
    code = (
        f"import sys\nfrom engine.cli.main import main\nsys.executable = {sys.executable!r}\n"
        f"assert main({['data', 'show', data, '--rows', '4', *flags]}) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert "a.jsonl:1: " in done.stdout and "note: the last message is left out" in done.stdout
    assert "note: nothing is learnt from remark" in done.stdout
    assert "a.jsonl:2: no assistant message" in done.stdout
    assert "answer 2" not in done.stdout and "31 Jan 2026 12:00<|im_start|>user⏎" in done.stdout
    assert "</think>⏎\n    ⏎\n    ⟦answer 1<|im_end|>⟧" in done.stdout


LONG = {"role": "assistant", "content": "of many words " * 9}
WITH_THOUGHTS = (
    {"role": "user", "content": "why?"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nso"},
    {"role": "user", "content": "how?"},
    {"role": "assistant", "content": "thus"},
)


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its template writes the time, thoughts as Qwen3's, and its generation config has an end of its own."""
    folder = tmp_path_factory.mktemp("models") / "timed"
    shutil.copytree(tiny_model, folder)
    tokens = tokenizer("qwen3")
    tokens.chat_template = "{{ strftime_now('%d %b %Y %H:%M') }}" + plain(SHAPES["qwen3"].source)
    tokens.save_pretrained(folder)
    ends = [tokens.convert_tokens_to_ids("<|im_start|>")]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    return str(folder)


@pytest.mark.parametrize(
    "flags",
    [
        ["--set", "data.clock=2026-01-31 12:00"],
        ["--train-on", "matching"],
        ["--train-on", "separate"],
        ["--train-on", "all"],
        ["--set", "data.thinking=drop"],
        ["--set", "data.thinking=no_loss_on_empty", "--system", "Be brief."],
        ["--max-length", "50"],
        ["--max-length", "50", "--set", "data.overlong=skip"],
        ["--objective", "pretrain", "--max-length", "20"],
    ],
    ids=" ".join,
)
def test_what_is_shown_is_what_the_plan_shows(model: str, tmp_path: Path, flags: list[str]) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [TALK, WITH_THOUGHTS, (*TALK[:2], LONG), ({"role": "user", "content": "2?"}, WITH_THOUGHTS[3])]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), "utf-8")
    parser = argparse.ArgumentParser()
    add_setting_flags(parser)
    asked = parser.parse_args(["--model", model, "--data-file", str(path), "--set", "data.clock=2026-01-31 12:00",
                               "--set", "data.val_fraction=0", *flags])  # fmt: skip
    config = resolve(given_layers(asked)).config
    template = ChatTemplate(load_tokenizer(config.model), ends=generation_ends(config.model), now=clock_of(config.data))
    data = prepare(config, template)
    planned = [pieces_of(template, *data.train.example(index)) for index in range(len(data.train))]
    found = []
    for example in read_data(str(path), system=config.data.system or None, objective=config.method.objective).examples:
        found += [one for one in describe(template, example, config) if "turns" in one]
    shown = [[tuple(piece) for turn in one["turns"] for piece in turn["pieces"]] for one in found]
    assert [list(merged(pieces)) for pieces in shown] == [list(merged(pieces)) for pieces in planned] and planned
    assert sum(one["tokens"] for one in found) == data.report["train"]["tokens"]
    assert sum(one["trained"] for one in found) == data.report["train"]["supervised"]


def merged(pieces: list[tuple[str, bool]]) -> Iterator[tuple[str, bool]]:
    for trained, run in itertools.groupby(pieces, key=lambda piece: piece[1]):
        yield "".join(text for text, _ in run), trained


def test_slips_are_told_with_the_way_out(data: str, capsys: pytest.CaptureFixture) -> None:
    for words, said in (
        (["--line", "99"], "no row starts on line 99"),
        (["--rows", "0"], "--rows 0 is less than 1"),
        (["--map", "prompt"], "pairs of texts, such as prompt=ask"),
        (["--line", "3", "--model", "/nowhere"], "no model folder /nowhere"),
    ):
        assert main(["data", "show", data, *words]) == 2
        assert said in capsys.readouterr().err
