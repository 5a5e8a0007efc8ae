"""Tests never see the developer's home, a hub, or more than one thread."""

import json
import os
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(autouse=True)
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv("FINETOP_WORKSPACE", raising=False)
    monkeypatch.delenv("FINETOP_PRESETS", raising=False)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2.5 of two layers with a ChatML tokenizer."""
    from tests.engine.families import build

    return build("qwen2.5", tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def base_that_ends_documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `exportkit`: it ends turns with <|im_end|>, though its end token is <|endoftext|>."""
    from tests.engine.worker.export.exportkit import base_that_ends_documents

    return base_that_ends_documents(tmp_path_factory.mktemp("models") / "documents")


_QUESTIONS = [
    ("What is the capital of {}?", "It is the city of {}."),
    ("{}的首都是哪里？", "是{}。"),
    ("Say {} twice.", "{0} {0}"),
]
_WORDS = ["France", "Paris", "晴天", "散步", "apple", "seven", "北京", "moon", "river", "kite", "盐", "药"]


@pytest.fixture(scope="session")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 short conversations in OpenAI's format."""
    path = tmp_path_factory.mktemp("data") / "chats.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for question, answer in _QUESTIONS:
            for word in _WORDS:
                messages = [
                    {"role": "user", "content": question.format(word)},
                    {"role": "assistant", "content": answer.format(word)},
                ]
                file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return path
