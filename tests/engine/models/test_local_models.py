"""Which models are here, and which names there can be no model of."""

import json
from pathlib import Path

import pytest

from engine.base.errors import InputError
from engine.models.local_models import local_models
from engine.models.model_name import check_model_name


def model_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}), "utf-8")
    return folder


@pytest.fixture
def hub_cache(tmp_path, monkeypatch) -> Path:
    cache = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    repository = cache / "models--acme--small"
    model_folder(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (cache / "models--acme--begun").mkdir()  # a download that was cut short
    (cache / "datasets--acme--rows").mkdir()
    return cache


def test_the_models_of_this_machine_are_listed_once_with_where_they_are_from(tmp_path, hub_cache):
    beside = model_folder(tmp_path / "work" / "base")
    deeper = model_folder(tmp_path / "work" / "models" / "tiny")
    (tmp_path / "work" / "runs" / "1").mkdir(parents=True)
    (tmp_path / "work" / "data").mkdir()
    (tmp_path / "work" / "data" / "config.json").write_text('{"rows": 3}')
    used = [str(beside), "acme/small", "acme/never-here", str(tmp_path / "gone")]
    listed = {model.name: model.source for model in local_models([tmp_path / "work", tmp_path / "no"], used)}
    assert listed == {
        "starter": "ships with finetop",
        str(beside): "of an earlier run",
        "acme/small": "of an earlier run",
        str(deeper): "a folder",
    }
    assert "in the hub's cache" in {model.source for model in local_models([])}


@pytest.mark.parametrize("name", ["badm", "Qwen2.5-7B", "gpt3"])
def test_a_name_without_an_owner_that_is_not_here_is_refused_with_what_is(name, tmp_path, hub_cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    with pytest.raises(InputError) as refused:
        check_model_name(name)
    assert f"no folder {name}" in refused.value.message and "org/name" in refused.value.message
    assert "starter" in refused.value.hint and "acme/small" in refused.value.hint


def test_what_may_have_been_meant_is_named(tmp_path, hub_cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model_folder(tmp_path / "llama-sql")
    with pytest.raises(InputError) as refused:
        check_model_name("llama-sq")
    assert refused.value.hint == f"Did you mean {tmp_path / 'llama-sql'}?"


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "gpt2", "gpt2-xl", "bert-base-cased", "acme/small", "starter"])
def test_what_the_hub_may_have_is_left_to_the_download(name, tmp_path, hub_cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_model_name(name)


def test_a_mirror_may_have_names_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror")
    check_model_name("ours")
