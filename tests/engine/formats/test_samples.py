"""What ships in presets/samples and presets/models is whole, honest and small."""

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "presets" / "samples"
STARTER = ROOT / "presets" / "models" / "starter"


def _intents(name: str) -> list[tuple[str, str]]:
    with (SAMPLES / name).open(encoding="utf-8", newline="") as lines:
        return [(row["text"], row["label"]) for row in csv.DictReader(lines)]


def _bare(text: str) -> str:
    return re.sub(r"\W+", "", text.lower())


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(STARTER)


def test_no_intent_sentence_stands_twice_or_on_both_sides():
    train, held_out = (
        Counter(_bare(text) for text, _ in _intents(name)) for name in ("intents.csv", "intents_test.csv")
    )
    assert max(train.values()) == max(held_out.values()) == 1
    assert not train.keys() & held_out.keys()


def test_both_intent_files_have_the_same_labels_in_both_languages():
    for name, least in (("intents.csv", 20), ("intents_test.csv", 5)):
        rows = _intents(name)
        by_language = Counter((label, bool(re.search(r"[\u4e00-\u9fff]", text))) for text, label in rows)
        assert {label for _, label in rows} == {label for _, label in _intents("intents.csv")}
        assert len(by_language) == 20
        assert min(by_language.values()) >= least


def test_the_generator_makes_the_intent_files_that_ship(tmp_path):
    subprocess.run([sys.executable, ROOT / "scripts" / "make_intents.py", tmp_path], check=True, capture_output=True)
    for name in ("intents.csv", "intents_test.csv"):
        assert (tmp_path / name).read_bytes() == (SAMPLES / name).read_bytes()


def test_every_sample_chat_is_well_formed_and_none_is_repeated():
    asked = []
    for line in (SAMPLES / "qa.jsonl").read_text("utf-8").splitlines():
        messages = json.loads(line)["messages"]
        roles = [message["role"] for message in messages if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(message["content"].strip() == message["content"] != "" for message in messages)
        asked.append(messages[-2]["content"] + messages[0]["content"])
    assert len(asked) >= 100
    assert len(asked) == len(set(asked))


def test_notes_are_in_both_languages():
    text = (SAMPLES / "notes.txt").read_text("utf-8")
    assert len(re.findall(r"[\u4e00-\u9fff]", text)) > 1000
    assert len(re.findall(r"[A-Za-z]+", text)) > 800


def test_starter_folder_is_under_ten_megabytes():
    assert sum(path.stat().st_size for path in STARTER.rglob("*") if path.is_file()) < 10_000_000


def test_starter_tokenizer_gives_back_english_chinese_and_anything_else(tokenizer):
    for text in (
        "Set an alarm for 7:30, please.",
        "把客厅的灯打开，谢谢！",
        "  def f(x):\n\treturn x\n",
        "naïve 😀 鿕 Привет",
    ):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
    assert len(tokenizer("把客厅的灯打开")["input_ids"]) <= 7


def test_starter_template_marks_what_the_assistant_says(tokenizer):
    messages = [
        {"role": "system", "content": "短"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "你好！"},
    ]
    made = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    said = [token for token, marked in zip(made["input_ids"], made["assistant_masks"], strict=True) if marked]
    assert tokenizer.decode(said) == "Hello!<|im_end|>你好！<|im_end|>"
    prompt = tokenizer.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert tokenizer.apply_chat_template(messages[:3], tokenize=False) == prompt + "Hello!<|im_end|>\n"


def test_starter_markers_are_single_tokens_that_end_an_answer(tokenizer):
    assert tokenizer("<|im_end|>")["input_ids"] == [tokenizer.eos_token_id]
    assert tokenizer.pad_token == "<|endoftext|>"
    config = json.loads((STARTER / "config.json").read_text())
    generation = json.loads((STARTER / "generation_config.json").read_text())
    ends = {tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")}
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    assert config["vocab_size"] == len(tokenizer)
    assert set(generation["eos_token_id"]) == ends


def test_starter_names_no_intent_label_as_one_token(tokenizer):
    """A label that were one token would have come from the pre-training text."""
    for label in {label for _, label in _intents("intents.csv")} - {"weather", "translate", "lights"}:
        assert len(tokenizer(label)["input_ids"]) > 1
