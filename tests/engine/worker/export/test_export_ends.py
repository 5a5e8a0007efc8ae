"""Answers end where the trained turn ends, for whoever loads what was exported, whatever the base's own end token."""

import json
import shutil

import gguf
import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from engine.worker.export import export
from engine.worker.model.generation_config import end_turns
from engine.worker.runtime import checkpoint
from engine.worker.train.loop import train
from tests.engine.tiny_runs import make_run
from tests.engine.worker.export.exportkit import saved


@pytest.fixture(scope="module")
def trained(base_that_ends_documents, tmp_path_factory):
    return saved(tmp_path_factory.mktemp("run"), base_that_ends_documents, noise=0.0)


def answer(model, folder, **options) -> str:
    """By plain transformers, as the model card says."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    question = [{"role": "user", "content": "hi"}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**inputs, max_new_tokens=20, do_sample=False, **options)[0]
    return tokenizer.decode(written[inputs["input_ids"].shape[1] :])


def test_a_merged_model_ends_its_turn(trained, tmp_path):
    export.export(trained, tmp_path / "out", "merged")
    assert answer(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), tmp_path / "out") == "yes sir<|im_end|>"
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert config["eos_token_id"] == generation["eos_token_id"] == [2, 0], "the end of turn first"
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token == "<|im_end|>"
    assert AutoTokenizer.from_pretrained(trained).eos_token == "<|endoftext|>", "training goes on as before"


def test_an_adapter_brings_its_end_of_turn(trained, base_that_ends_documents, tmp_path):
    export.export(trained, tmp_path / "out", "adapter")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_that_ends_documents), tmp_path / "out")
    ends = GenerationConfig.from_pretrained(tmp_path / "out")
    assert answer(model, tmp_path / "out", generation_config=ends) == "yes sir<|im_end|>"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "GenerationConfig.from_pretrained" in card and "`<|im_end|>`" in card


def test_a_checkpoint_s_own_folder_says_it_too(trained, base_that_ends_documents, tmp_path):
    assert GenerationConfig.from_pretrained(trained).eos_token_id == [2, 0]
    full = saved(tmp_path, base_that_ends_documents, noise=0.0, method__kind="full")
    assert answer(AutoModelForCausalLM.from_pretrained(full), full) == "yes sir<|im_end|>"


def test_an_end_token_that_the_template_writes_elsewhere_stays(trained):
    tokenizer = AutoTokenizer.from_pretrained(trained)
    question = [{"role": "user", "content": "hi"}]
    tokenizer.chat_template = "{{ eos_token }}" + tokenizer.chat_template
    before = tokenizer.apply_chat_template(question, tokenize=False)
    end_turns(tokenizer, [2, 0])
    assert tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.apply_chat_template(question, tokenize=False) == before


def test_a_gguf_names_the_end_of_turn(trained, tmp_path):
    done = export.export(trained, tmp_path / "out", "gguf", "float32")
    fields = gguf.GGUFReader(tmp_path / "out" / next(n for n in done.files if n.endswith(".gguf"))).fields
    said = {name: fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("eos", "eot", "eom")}
    assert said == {"eos": 2, "eot": 2, "eom": 0}
    assert fields["tokenizer.ggml.eos_token_ids"].contents() == [2, 0]


def test_an_older_checkpoint_is_exported_with_it_too(trained, tmp_path):
    """It has no generation_config.json of its own; its template says where answers end."""
    old = shutil.copytree(trained, tmp_path / "old")
    (old / "generation_config.json").unlink()
    manifest = json.loads((old / checkpoint.MANIFEST).read_text())
    del manifest["files"]["generation_config.json"], manifest["checksum"]
    (old / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    export.export(old, tmp_path / "out", "merged")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config.eos_token_id == [2, 0]


def test_a_model_that_learned_plain_text_ends_documents_as_before(base_that_ends_documents, tmp_path):
    path = saved(tmp_path, base_that_ends_documents, noise=0.0, method__objective="pretrain")
    export.export(path, tmp_path / "out", "merged")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config.eos_token_id == 0


def test_training_saves_it(base_that_ends_documents, chats, tmp_path):
    folder = make_run(tmp_path, base_that_ends_documents, chats, train__max_steps=1, eval__every=1000)
    train(folder)
    assert GenerationConfig.from_pretrained(folder / "checkpoints" / "latest").eos_token_id == [2, 0]
