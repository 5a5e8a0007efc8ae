"""Every family is trained, saved, and loaded again with plain transformers and peft, giving the same logits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from engine.base.errors import InputError
from engine.base.worker_process import DONE
from engine.formats.examples import Example
from engine.worker.data.chat_template import ChatTemplate
from engine.worker.runtime import checkpoint
from engine.worker.train import loop as worker
from engine.worker.train.loop import train
from tests.engine.families import FAMILIES, build
from tests.engine.tiny_runs import NeverStop, events_of, last_state, make_run, series

SHORT = {"train__max_steps": 2, "data__val_fraction": 0.1, "save__every": 0, "optim__learning_rate": 1e-2}
PROMPT = Example(messages=({"role": "user", "content": "What is the capital of France?"},))


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory):
    """The folder of each family's random model, made once."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = build(family, tmp_path_factory.mktemp("bases") / family)
        return made[family]

    return get


@pytest.fixture
def trained(bases, chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Trains, and hands back the run's folder, its last checkpoint and the model as it was in memory at the end."""
    held: list[torch.nn.Module] = []
    real = worker.make_trainable

    def keep(*arguments: Any) -> torch.nn.Module:
        held.append(real(*arguments))
        return held[-1]

    monkeypatch.setattr(worker, "make_trainable", keep)

    def run(family: str, **changes: Any) -> tuple[Path, checkpoint.Checkpoint, torch.nn.Module]:
        folder = make_run(tmp_path, bases(family), chats, **(SHORT | changes))
        assert train(folder, stop=NeverStop()) == DONE
        assert last_state(folder)["state"] == "done" and len(series(folder)) == 2
        latest, _ = checkpoint.find(folder / "checkpoints", "latest")
        return folder, latest, held[-1]

    return run


@torch.no_grad()
def logits(model: torch.nn.Module, folder: Path) -> torch.Tensor:
    """Of a prompt made from the tokenizer and template in a folder, as a user would."""
    tokens = AutoTokenizer.from_pretrained(folder)
    text = tokens.apply_chat_template(list(PROMPT.messages), add_generation_prompt=True, tokenize=False)
    ids = tokens(text, add_special_tokens=False, return_tensors="pt").input_ids
    return model.eval()(input_ids=ids).logits


def plain(folder: Path) -> PreTrainedModel:
    """As a user would load it; with a softcap in eager steps, since transformers 5.17 leaves it out of SDPA."""
    softcapped = getattr(AutoConfig.from_pretrained(folder), "attn_logit_softcapping", None)
    return AutoModelForCausalLM.from_pretrained(folder, **({"attn_implementation": "eager"} if softcapped else {}))


def assert_same_logits(loaded: torch.nn.Module, in_memory: torch.nn.Module, folder: Path) -> None:
    """To the last bit, but where transformers computes attention otherwise: Gemma 2 in eager steps."""
    exact = loaded.config._attn_implementation == "sdpa"
    bounds = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(logits(loaded, folder), logits(in_memory, folder), **bounds)


def changed(folder: Path, base: Path) -> bool:
    return not torch.equal(logits(plain(folder), folder), logits(plain(base), base))


# --- full and LoRA, every family --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_full_fine_tune_loads_in_plain_transformers_with_the_same_logits(family: str, trained, bases) -> None:
    folder, latest, in_memory = trained(family, method__kind="full")
    loaded = plain(latest.path)
    assert type(loaded) is type(in_memory)
    assert_same_logits(loaded, in_memory, latest.path)
    assert changed(latest.path, bases(family))
    assert events_of(folder, "model")[-1]["path"] == "packed"


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_loads_in_plain_peft_with_the_same_logits(family: str, trained, bases) -> None:
    folder, latest, in_memory = trained(family, method__kind="lora")
    loaded = PeftModel.from_pretrained(plain(bases(family)), latest.path)
    assert_same_logits(loaded, in_memory, latest.path)
    with loaded.disable_adapter():
        without = logits(loaded, latest.path)
    assert not torch.equal(without, logits(in_memory, latest.path))
    assert torch.equal(without, logits(plain(bases(family)), bases(family)))
    assert events_of(folder, "model")[-1]["path"] == "packed"


# --- kinds of adapter -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [{"lora__dora": True}, {"lora__rslora": True}], ids=["dora", "rslora"])
@pytest.mark.parametrize("family", ["qwen2.5", "phi3"])
def test_dora_and_rslora_load_in_plain_peft_with_the_same_logits(family: str, kind: dict, trained, bases) -> None:
    _, latest, in_memory = trained(family, method__kind="lora", **kind)
    settings = json.loads((latest.path / "adapter_config.json").read_text())
    assert settings["use_dora"] == kind.get("lora__dora", False)
    assert settings["use_rslora"] == kind.get("lora__rslora", False)
    loaded = PeftModel.from_pretrained(plain(bases(family)), latest.path)
    torch.testing.assert_close(
        logits(loaded, latest.path), logits(in_memory, latest.path), rtol=1e-5, atol=1e-6 if settings["use_dora"] else 0
    )


@pytest.mark.parametrize("family", ["qwen2.5", "llama3", "glm4-9b"])
def test_an_adapter_on_4_bits_loads_in_plain_peft_with_the_same_logits(family: str, trained, bases) -> None:
    _, latest, in_memory = trained(family, method__kind="qlora")
    quantised = AutoModelForCausalLM.from_pretrained(
        bases(family),
        attn_implementation="sdpa",
        quantization_config=in_memory.get_base_model().config.quantization_config,
        dtype=torch.float32,
    )
    for module in quantised.modules():  # else bitsandbytes rounds to bfloat16 on CPUs that are fast at it
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    settings = quantised.config.quantization_config
    assert settings.load_in_4bit and settings.bnb_4bit_quant_type == "nf4" and settings.bnb_4bit_use_double_quant
    loaded = PeftModel.from_pretrained(quantised, latest.path)
    assert torch.equal(logits(loaded, latest.path), logits(in_memory, latest.path))
    assert latest.manifest["trained_dtypes"] == ["torch.float32"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_are_float32_and_the_manifest_says_so(dtype: str, trained) -> None:
    from safetensors.torch import load_file

    _, latest, in_memory = trained("qwen2.5", method__kind="lora", model__dtype=dtype)
    adapter = load_file(latest.path / "adapter_model.safetensors")
    assert adapter and {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    assert {p.dtype for p in in_memory.parameters() if p.requires_grad} == {torch.float32}
    assert latest.manifest["trained_dtypes"] == ["torch.float32"]


def test_adapters_sit_on_all_linear_layers_or_on_those_named(trained) -> None:
    def targets(latest: checkpoint.Checkpoint) -> set[str]:
        names = json.loads((latest.path / "adapter_config.json").read_text())["target_modules"]
        return {name.rsplit(".", 1)[-1] for name in names}

    every = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert targets(trained("llama3", method__kind="lora")[1]) == every
    assert targets(trained("llama3", method__kind="lora", lora__targets=["q_proj", "v_proj"])[1]) == {
        "q_proj",
        "v_proj",
    }


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("qwen2.5", "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj"),
        ("phi3", "down_proj, gate_up_proj, lm_head, o_proj, qkv_proj"),
    ],
)
def test_a_wrong_layer_name_is_answered_with_the_models_own(
    family: str, names: str, bases, chats: Path, tmp_path: Path
) -> None:
    folder = make_run(tmp_path, bases(family), chats, lora__targets=["query"])
    with pytest.raises(InputError, match=r"lora\.targets: query matches nothing") as caught:
        train(folder, stop=NeverStop())
    assert set(names.split(", ")) <= set(caught.value.message.partition("this model has ")[2].split(", "))


# --- what goes with the weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_tokenizer_and_template_in_a_checkpoint_give_the_same_prompt(kind: str, trained, bases, tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text(
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}",
        "utf-8",
    )
    for template in ("auto", str(own)):
        _, latest, _ = trained("llama3", method__kind=kind, data__template=template)
        before = ChatTemplate(AutoTokenizer.from_pretrained(bases("llama3")), template).encode_prompt(PROMPT)
        assert ChatTemplate(AutoTokenizer.from_pretrained(latest.path)).encode_prompt(PROMPT) == before


def test_a_tokenizer_without_a_template_is_saved_with_the_one_it_was_trained_with(
    trained, bases, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    plain(bases("llama3")).save_pretrained(bare)
    tokens = AutoTokenizer.from_pretrained(bases("llama3"))
    tokens.chat_template = None
    tokens.save_pretrained(bare)
    _, latest, _ = trained("llama3", model__name=str(bare))
    written = AutoTokenizer.from_pretrained(latest.path).apply_chat_template(
        list(PROMPT.messages), add_generation_prompt=True, tokenize=False
    )
    assert written == "User: What is the capital of France?\nAssistant:"


def test_the_vocabulary_keeps_its_size(trained, bases) -> None:
    """finetop adds no tokens, so an adapter always fits the base it was made from."""
    size = plain(bases("qwen2.5")).config.vocab_size
    _, latest, _ = trained("qwen2.5", method__kind="full")
    assert plain(latest.path).get_input_embeddings().weight.shape[0] == size
    _, latest, in_memory = trained("qwen2.5", method__kind="lora")
    assert in_memory.get_input_embeddings().weight.shape[0] == size
    assert "embed_tokens" not in (latest.path / "adapter_config.json").read_text()
