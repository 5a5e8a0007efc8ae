"""What is exported is the model that was trained: other programs load it, and it answers as the checkpoint does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from engine.base.errors import CheckpointError, InputError
from engine.cli.main import main
from engine.runs.checkpoints import link
from engine.worker.export import export, gguf_file, gguf_vocab
from tests.engine.families import _SENTENCES, _SMALL, build, tokenizer
from tests.engine.worker.export.exportkit import saved


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = build(family, tmp_path_factory.mktemp("models") / family)
        return made[family]

    return get


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3", "llama3", "mistral", "glm4-9b", "gemma2", "phi3"])
def test_a_merged_model_is_the_checkpoint(family, models, tmp_path):
    done = export.export(saved(tmp_path, models(family)), tmp_path / "out", "merged")
    assert done.difference < 1e-4 * done.spread and done.same_first == 1.0
    base = AutoModelForCausalLM.from_pretrained(models(family))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    name, changed = next(
        (name, weight)
        for name, weight in merged.state_dict().items()
        if name.endswith(("q_proj.weight", "qkv_proj.weight"))
    )
    assert not torch.equal(changed, base.state_dict()[name]), "the adapter is in the weights"
    assert merged.config.use_cache is not False and "finetop" not in (tmp_path / "out" / "config.json").read_text()


@pytest.mark.parametrize(
    "changes", [{"lora__dora": True}, {"lora__rslora": True}, {"lora__targets": ["q_proj", "v_proj"]}]
)
def test_every_kind_of_adapter_merges(changes, models, tmp_path):
    done = export.export(saved(tmp_path, models("qwen2.5"), **changes), tmp_path / "out", "merged")
    assert done.difference < 1e-4 * done.spread


def test_a_full_fine_tune_is_handed_over_and_has_no_adapter(models, tmp_path):
    path = saved(tmp_path, models("qwen2.5"), method__kind="full")
    path = path.rename(path.with_name("step-00000000"))
    link(path.parent, "best", 0)
    done = export.export(path, tmp_path / "out", "merged")
    assert done.difference == 0.0
    assert any("untrained weights of step 0" in note and "none that is kept" in note for note in done.notes)
    assert "untrained weights of step 0" in (tmp_path / "out" / "README.md").read_text("utf-8")
    with pytest.raises(InputError, match="no adapter"):
        export.export(path, tmp_path / "adapter", "adapter")
    assert not (tmp_path / "adapter").exists()


def test_an_adapter_trained_on_given_weights_goes_into_those(models, tmp_path):
    """A run forked from a full fine-tune: its base is that checkpoint, not the model it was made from."""
    given = saved(tmp_path / "full", models("qwen2.5"), method__kind="full")
    path = saved(tmp_path / "fork", models("qwen2.5"), model__checkpoint=str(given))
    trained_on = load_file(given / "model.safetensors")
    done = export.export(path, tmp_path / "out", "merged")
    assert done.difference < 1e-4 * done.spread
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(merged["model.embed_tokens.weight"], trained_on["model.embed_tokens.weight"])
    export.export(path, tmp_path / "adapter", "adapter")
    said = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == str(given)


@pytest.mark.parametrize("dtype", ["bfloat16"])
def test_weights_are_rounded_once_to_the_type_asked_for(dtype, models, tmp_path):
    path = saved(tmp_path, models("llama3"))
    done = export.export(path, tmp_path / "out", "merged", dtype)
    exact = export.export(path, tmp_path / "exact", "merged", "float32")
    rounded, full = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "exact"))
    assert all(torch.equal(rounded[name], full[name].to(getattr(torch, dtype))) for name in full)
    assert exact.difference < done.difference < 0.3 * done.spread
    # Without --dtype the result has the type of the base's files.
    base = AutoModelForCausalLM.from_pretrained(models("llama3"), dtype=getattr(torch, dtype))
    base.save_pretrained(tmp_path / "base")
    shutil.copy(models("llama3") / "tokenizer.json", tmp_path / "base")
    shutil.copy(models("llama3") / "tokenizer_config.json", tmp_path / "base")
    assert export.export(saved(tmp_path / "b", tmp_path / "base"), tmp_path / "auto", "merged").dtype == dtype


def test_qlora_is_merged_into_the_full_precision_base_and_says_so(models, tmp_path):
    pytest.importorskip("bitsandbytes")
    path = saved(tmp_path, models("qwen2.5"), method__kind="qlora")
    done = export.export(path, tmp_path / "out", "merged")
    base = load_file(models("qwen2.5") / "model.safetensors")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    adapter = load_file(path / "adapter_model.safetensors")
    key = "model.layers.0.self_attn.q_proj"
    a, b = (adapter[f"base_model.model.{key}.lora_{side}.weight"] for side in "AB")
    torch.testing.assert_close(merged[f"{key}.weight"], base[f"{key}.weight"] + (32 / 4) * b @ a, rtol=0, atol=1e-5)
    assert (
        any("full-precision" in note for note in done.notes)
        and "full-precision" in (tmp_path / "out" / "README.md").read_text()
    )
    assert done.trained_difference > 10 * done.difference, "4 bits are coarse"


TEN_LINES = """\
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
from peft import PeftModel
base, adapter, merged = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(merged)
question = [{"role": "user", "content": "高血压"}]
inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
for model in (PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter),
              AutoModelForCausalLM.from_pretrained(merged)):
    print(model.generate(**inputs, max_new_tokens=8, do_sample=False)[0].tolist())
print([name for name in sys.modules if name.split(".")[0] in ("engine", "tui")])
"""


def test_ten_lines_of_transformers_and_peft_load_what_the_command_wrote(models, tmp_path, capfd, fork_server):
    path = saved(tmp_path, models("qwen2.5"))
    export.export(path, tmp_path / "adapter", "adapter")
    words = ["export", "1@best", str(tmp_path / "merged"), "--to", "merged", "--workspace", str(tmp_path), "--json"]
    assert main(words) == 0
    out, err = capfd.readouterr()
    said = json.loads(out)
    assert said["form"] == "merged" and said["bytes"] > 0 and "README.md" in said["files"]
    assert err.splitlines()[0] == "reading the checkpoint" and "Warning" not in err
    (tmp_path / "elsewhere").mkdir()
    script = [sys.executable, "-P", "-c", TEN_LINES, models("qwen2.5"), tmp_path / "adapter", tmp_path / "merged"]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path / "elsewhere", check=False)
    assert done.returncode == 0, done.stderr
    by_adapter, by_merged, ours = done.stdout.splitlines()
    assert by_adapter == by_merged and ours == "[]"


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("llama3", "float32"),
        ("llama3", "bfloat16"),
        ("mistral", "float16"),
        ("qwen2.5", "float32"),
        ("qwen3", "float16"),
    ],
)
def test_gguf_reads_back_as_the_same_model_and_tokens(family, dtype, models, tmp_path):
    path = saved(tmp_path, models(family))
    done = export.export(path, tmp_path / "out", "gguf", dtype)
    (name,) = [name for name in done.files if name.endswith(".gguf")]
    assert name == f"mine-step-7-{ {'float32': 'F32', 'float16': 'F16', 'bfloat16': 'BF16'}[dtype] }.gguf"
    assert done.difference <= {"float32": 1e-4, "float16": 0.03, "bfloat16": 0.3}[dtype] * done.spread
    reader = gguf.GGUFReader(tmp_path / "out" / name)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == 600 and tokens[tokenizer.eos_token_id] == tokenizer.eos_token
    assert reader.fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eos_token_id
    # transformers cuts text for a Qwen2 model as Qwen does, whatever its tokenizer.json says.
    cuts_as_qwen = r"\\p{L}+|" in tokenizer.backend_tokenizer.to_str()
    assert reader.fields["tokenizer.ggml.pre"].contents() == ("qwen2" if cuts_as_qwen else "gpt-2")
    template = reader.fields["tokenizer.chat_template"].contents()
    assert "generation %}" not in template.replace("add_generation_prompt", "") and "<|im_start|>" in template


def test_a_gguf_chat_template_renders_as_before(models, tmp_path):
    path = saved(tmp_path, models("llama3"))
    done = export.export(path, tmp_path / "out", "gguf", "float16")
    tokenizer = AutoTokenizer.from_pretrained(path)
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    before = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    name = next(name for name in done.files if name.endswith(".gguf"))
    tokenizer.chat_template = gguf.GGUFReader(tmp_path / "out" / name).fields["tokenizer.chat_template"].contents()
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == before


def test_llama_3_rotation_factors_are_transformers_own(tmp_path):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
    config = LlamaConfig(hidden_size=1024, num_attention_heads=8, max_position_embeddings=131072, rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1.0 / 500000.0 ** (torch.arange(0, 128, 2) / 128)
    torch.testing.assert_close(plain / gguf_file._rope_factors(config), scaled)


def test_a_changed_tensor_in_a_gguf_file_is_noticed(models, tmp_path):
    path = saved(tmp_path, models("qwen3"))
    done = export.export(path, tmp_path / "out", "gguf", "float16")
    export.export(path, tmp_path / "merged", "merged", "float32")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    name = next(name for name in done.files if name.endswith(".gguf"))
    file = tmp_path / "out" / name
    gguf_file.verify(model, file)
    tensor = next(t for t in gguf.GGUFReader(file).tensors if t.name == "blk.1.ffn_up.weight")
    content = bytearray(file.read_bytes())
    content[tensor.data_offset] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"blk\.1\.ffn_up\.weight reads back"):
        gguf_file.verify(model, file)


_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _cut_by(expression: str, **model) -> dict:
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    steps = [split, {"type": "ByteLevel", "use_regex": False, "add_prefix_space": False}]
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}, "model": model}


def test_pre_tokenizers_are_named_or_refused():
    assert gguf_vocab.pre_tokenizer(_cut_by(_QWEN)) == "qwen2"
    llama = _QWEN.replace(r"\p{N}| ?", r"\p{N}{1,3}| ?")
    assert gguf_vocab.pre_tokenizer(_cut_by(llama, ignore_merges=True)) == "llama-bpe"
    byte_level = {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}, "model": {}}
    assert gguf_vocab.pre_tokenizer(byte_level) == "gpt-2"
    prefixed = {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}, "model": {}}
    for said in (
        _cut_by(r"\d+"),
        _cut_by(_QWEN.replace(r"\s+(?!\S)|", "")),  # one alternative less
        _cut_by(_QWEN.replace(r"\p{L}+|", r"[\p{L}\p{M}]+|", 1)),  # Qwen 3.5
        _cut_by(_QWEN, ignore_merges=True),
        prefixed,
        {"pre_tokenizer": None, "model": {}},
    ):
        with pytest.raises(InputError, match="cannot name"):
            gguf_vocab.pre_tokenizer(said)


def test_a_family_without_gguf_is_told_what_to_run(models, tmp_path):
    with pytest.raises(InputError) as refused:
        export.export(saved(tmp_path, models("glm4-9b")), tmp_path / "out", "gguf")
    assert "GlmForCausalLM" in refused.value.message and "convert_hf_to_gguf.py" in refused.value.hint
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out.part*"))


_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
_LLAMA_3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Qwen3Config(**_SMALL, head_dim=16, attention_bias=True), "qwen3 has no bias on attn_output"),
        (Qwen3Config(**_SMALL, head_dim=16, hidden_act="gelu"), "hidden_act to be 'silu'"),
        (LlamaConfig(**_SMALL, hidden_act="gelu"), "hidden_act to be 'silu'"),
        (Qwen2Config(**_SMALL, head_dim=32), "head_dim is 32"),
        (Qwen2Config(**_SMALL, rope_parameters=_YARN | {"attention_factor": 1.3}), "attention_factor"),
        (LlamaConfig(**_SMALL, rope_parameters=_YARN | {"beta_fast": 8, "beta_slow": 2}), "beta_fast, beta_slow"),
        (Qwen3Config(**_SMALL, head_dim=16, rope_parameters=_YARN | {"truncate": False}), "truncate"),
        (Qwen2Config(**_SMALL, rope_parameters=_LLAMA_3), "scaled by 'llama3'"),
        (
            Qwen2Config(**_SMALL, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
            "'dynamic'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value.model_type,
)
def test_what_llama_cpp_would_refuse_or_misread_is_refused(config, reason, tmp_path):
    """Each was written once, and llama.cpp refused it or, which is worse, answered as another model."""
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(InputError) as refused:
        gguf_file.write(model, tokenizer(), tmp_path / "model.gguf", "float32")
    assert reason in refused.value.message and "--to merged" in refused.value.hint
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ({"model": {"end_of_word_suffix": "</w>"}}, "end_of_word_suffix"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "cannot name"),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_not_follow_is_refused(changes, reason, tmp_path):
    said = json.loads(tokenizer().backend_tokenizer.to_str())
    for name, value in changes.items():
        said[name] = said[name] | value if name == "model" else value
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(said)), eos_token="<|im_end|>")
    with pytest.raises(InputError, match=reason):
        gguf_file.write(AutoModelForCausalLM.from_config(LlamaConfig(**_SMALL)), made, tmp_path / "m.gguf", "float32")


def test_what_is_not_the_same_model_is_not_kept(models, tmp_path, monkeypatch):
    """The proof bites: an adapter merged at half its strength is refused."""
    path = saved(tmp_path, models("qwen2.5"))
    merge = export._merged

    def weaker(model):
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data *= 0.9
        return merge(model)

    monkeypatch.setattr(export, "_merged", weaker)
    with pytest.raises(CheckpointError, match="merging changed the model"):
        export.export(path, tmp_path / "out", "merged")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out.part*"))


def test_weights_that_float16_cannot_hold_are_refused(models, tmp_path):
    folder = shutil.copytree(models("qwen2.5"), tmp_path / "large")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= 1e6
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError) as refused:
        export.export(saved(tmp_path, folder), tmp_path / "out", "merged", "float16")
    assert "float16" in refused.value.message or "read back" in refused.value.message
    assert not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_is_not_exported(models, tmp_path):
    path = saved(tmp_path, models("qwen2.5"))
    weights = load_file(path / "adapter_model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"damaged|bytes"):
        export.export(path, tmp_path / "out", "merged")


def test_room_is_asked_for_before_anything_is_written(models, tmp_path, monkeypatch):
    path = saved(tmp_path, models("qwen2.5"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match="are needed in"):
        export.export(path, tmp_path / "out", "merged")
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_left_alone_unless_empty(models, tmp_path, capfd):
    saved(tmp_path, models("qwen2.5"))
    full = tmp_path / "full"
    full.mkdir()
    (full / "precious").write_text("mine")
    words = ["export", "1@best", str(full), "--to", "adapter", "--workspace", str(tmp_path)]
    assert main(words) == 2
    assert "not empty" in capfd.readouterr().err
    assert [entry.name for entry in full.iterdir()] == ["precious"]
    (tmp_path / "empty").mkdir()
    done = export.export(tmp_path / "runs/1/checkpoints/best", tmp_path / "empty", "adapter")
    assert sorted(os.listdir(tmp_path / "empty")) == sorted(done.files)


def test_the_card_says_what_it_is_and_obeys_nothing(models, tmp_path):
    path = saved(tmp_path, models("qwen2.5"), run__name="a | b <script> `x`", optim__learning_rate=3e-4)
    export.export(path, tmp_path / "out", "adapter", run_folder=tmp_path / "runs" / "1")
    card = (tmp_path / "out" / "README.md").read_text()
    assert r"# a \| b \<script\> \`x\`" in card
    for said in ("library_name: \"peft\"", "ab" * 32, "| optim.learning\\_rate | 0.0003 |".replace("\\_", "_"),
                 "| validation loss | 0.5 |", "0.875", "PeftModel.from_pretrained", "licence applies"):  # fmt: skip
        assert said in card, said
    assert (
        str(models("qwen2.5"))
        in json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"]
    )


def test_a_wrong_checkpoint_is_told_with_those_there_are(models, tmp_path, capfd):
    saved(tmp_path, models("qwen2.5"))
    assert main(["export", "1@900", str(tmp_path / "o"), "--to", "merged", "--workspace", str(tmp_path)]) == 2
    said = capfd.readouterr().err
    assert "run 1 has no checkpoint '900'" in said and "best, 7" in said


def test_padding_rows_of_the_embedding_are_unused_tokens(models, tmp_path):
    folder = shutil.copytree(models("llama3"), tmp_path / "padded")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(640, mean_resizing=False)
    model.save_pretrained(folder)
    done = export.export(saved(tmp_path, folder), tmp_path / "out", "gguf", "float32")
    reader = gguf.GGUFReader(tmp_path / "out" / next(name for name in done.files if name.endswith(".gguf")))
    kinds = np.array(reader.fields["tokenizer.ggml.token_type"].contents())
    used = len(AutoTokenizer.from_pretrained(folder))
    assert (kinds[used:] == gguf.TokenType.UNUSED).all() and len(kinds) == 640


def _pieces(folder: Path) -> Path:
    """A tokenizer as Llama 2 and Mistral have it: pieces with ▁ for spaces, bytes for what no piece covers."""
    bpe = Tokenizer(tokenizer_models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    specials = ["<unk>", "<s>", "</s>"]
    learned = Tokenizer(tokenizer_models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=250, show_progress=False)
    learned.train_from_iterator(_SENTENCES * 3, trainer)
    model = json.loads(learned.to_str())["model"]
    names = [*specials, *bytes_, *sorted(model["vocab"], key=model["vocab"].__getitem__)]
    said = json.loads(bpe.to_str())
    said["model"] |= {"vocab": {name: number for number, name in enumerate(names)}, "merges": model["merges"]}
    said["added_tokens"] = [
        dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        | {"id": i, "content": s, "special": True}
        for i, s in enumerate(specials)
    ]
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(said)), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    made.save_pretrained(folder)
    return folder


def test_a_vocabulary_of_pieces_cuts_text_as_before(tmp_path):
    """Read back by transformers, which makes merges of the scores as llama.cpp does."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    _pieces(tmp_path / "model")
    before = PreTrainedTokenizerFast.from_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(before), num_key_value_heads=1, **sizes))
    model.save_pretrained(tmp_path / "model")
    done = export.export(saved(tmp_path, tmp_path / "model"), tmp_path / "out", "gguf", "float32")
    name = next(name for name in done.files if name.endswith(".gguf"))
    fields = gguf.GGUFReader(tmp_path / "out" / name).fields
    assert fields["tokenizer.ggml.model"].contents() == "llama"
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert kinds[0] == gguf.TokenType.UNKNOWN and kinds[1] == gguf.TokenType.CONTROL
    assert set(kinds[3:259]) == {gguf.TokenType.BYTE}
    after = AutoTokenizer.from_pretrained(tmp_path / "out", gguf_file=name)
    assert len(before(_SENTENCES[0])["input_ids"]) < len(_SENTENCES[0]) / 2, "pieces, not letters"
    for text in (*_SENTENCES, "Fine tuning  twice", "猫 and dogs", "capital capital"):
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for tokenizer in (before, after)]
        assert ids[0] == ids[1], text
