"""Files are loaded by llama.cpp itself: the same tokens of a text, the same answers, ended at the same place."""

import json

import pytest
import torch
from tokenizers import AddedToken, Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from engine.worker.export import export, gguf_file
from tests.engine.families import _SENTENCES, _SMALL, tokenizer
from tests.engine.worker.export import llama_cpp
from tests.engine.worker.export.exportkit import saved
from tests.engine.worker.export.test_export import _QWEN, _pieces

pytestmark = pytest.mark.long
pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")

_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
_LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
_LLAMA_3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64}  # fmt: skip

LOADED = {
    "llama": LlamaConfig(**_SMALL),
    "llama, tied": LlamaConfig(**_SMALL, tie_word_embeddings=True),
    "llama, biases": LlamaConfig(**_SMALL, attention_bias=True, mlp_bias=True),
    "llama, larger heads": LlamaConfig(**_SMALL, head_dim=32),
    "llama 3.1": LlamaConfig(**_SMALL, rope_parameters=_LLAMA_3),
    "llama, yarn": LlamaConfig(**_SMALL, rope_parameters=_YARN),
    "llama, linear": LlamaConfig(**_SMALL, rope_parameters=_LINEAR),
    "mistral": MistralConfig(**_SMALL, sliding_window=None),
    "mistral, larger heads": MistralConfig(**_SMALL, sliding_window=None, head_dim=32),
    "qwen2": Qwen2Config(**_SMALL),
    "qwen2, tied": Qwen2Config(**_SMALL, tie_word_embeddings=True),
    "qwen2, yarn": Qwen2Config(**_SMALL, rope_parameters=_YARN),
    "qwen2, linear": Qwen2Config(**_SMALL, rope_parameters=_LINEAR),
    "qwen3": Qwen3Config(**_SMALL, head_dim=16),
    "qwen3, tied": Qwen3Config(**_SMALL, head_dim=16, tie_word_embeddings=True),
    "qwen3, larger heads": Qwen3Config(**_SMALL, head_dim=32),
    "qwen3, yarn": Qwen3Config(**_SMALL, head_dim=16, rope_parameters=_YARN),
}


@pytest.mark.parametrize("name", LOADED)
def test_llama_cpp_loads_the_file_and_answers_as_transformers_does(name, tmp_path):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LOADED[name]).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases are ones and zeros in a new model
            if parameter.dim() == 1:
                parameter += 0.3 * torch.randn(parameter.shape)
            else:
                parameter *= 4
        model.get_output_embeddings().weight[0] = 0  # llama.cpp stops at <|endoftext|> too, transformers does not
    made = tokenizer()
    gguf_file.write(model, made, tmp_path / "model.gguf", "float32", [made.eos_token_id])
    generator = torch.Generator().manual_seed(5)
    prompts = [torch.randint(3, 600, (length,), generator=generator).tolist() for length in (5, 40, 120)]
    answers = llama_cpp.run(tmp_path / "model.gguf", prompts=prompts)["answers"]
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        assert answer["tokens"] == written[0, len(prompt) :].tolist()


_TEXTS = (
    *_SENTENCES,
    "  two spaces, a\ttab\n\n\nand lines \n end ",
    "don't WE'LL I'm 12345 3.14 $x_1 = {y};",
    "<|im_start|>user\n猫 and dogs<|im_end|>\n<|im_start|>assistant\n",
    "<think>\nwhy\n</think>\n\nyes <think> no",
    "naïve café e\u0301 😀 مرحبا नमस्ते ไทย",
)


@pytest.mark.parametrize("cut", ["gpt-2", "qwen2", "llama-bpe", "tekken"])
def test_llama_cpp_cuts_text_as_the_tokenizer_does(cut, tmp_path):
    from engine.worker.export.gguf_vocab import _SPLITS

    said = json.loads(tokenizer().backend_tokenizer.to_str())
    for expression, name in _SPLITS.items():
        if name == cut:
            split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
            bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
            said["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, bytes_]}
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(said)), eos_token="<|im_end|>")
    made.add_tokens([AddedToken(tag, special=False) for tag in ("<think>", "</think>")])
    model = AutoModelForCausalLM.from_config(LlamaConfig(**_SMALL))
    gguf_file.write(model, made, tmp_path / "model.gguf", "float32")
    cut_by_llama = llama_cpp.run(tmp_path / "model.gguf", texts=_TEXTS)["texts"]
    assert cut_by_llama == [made(text)["input_ids"] for text in _TEXTS]


_TURNS = (
    "{% for m in messages %}{% if m.role == 'user' %}OPEN[INST] {{ m.content }} [/INST]{% else %}"
    " {{ m.content }}</s>{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("scheme", ["first", "always", "never", "normalizer"])
@pytest.mark.parametrize("opening", ["<s>", ""])
def test_llama_cpp_cuts_text_into_pieces_as_the_tokenizer_does(scheme, opening, tmp_path):
    made = PreTrainedTokenizerFast.from_pretrained(_pieces(tmp_path / "model"))
    said = json.loads(made.backend_tokenizer.to_str())
    said["pre_tokenizer"]["prepend_scheme"] = scheme
    if scheme == "normalizer":
        steps = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
        said |= {"pre_tokenizer": None, "normalizer": {"type": "Sequence", "normalizers": steps}}
    made._tokenizer = Tokenizer.from_str(json.dumps(said))
    made.chat_template = _TURNS.replace("OPEN", opening)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**{**_SMALL, "vocab_size": len(made)}))
    notes = gguf_file.write(model, made, tmp_path / "model.gguf", "float32")
    ask, more = {"role": "user", "content": _SENTENCES[0]}, {"role": "user", "content": _SENTENCES[2]}
    system = {"role": "system", "content": _SENTENCES[0]}
    chats = [[ask], [system, ask], [ask, {"role": "assistant", "content": _SENTENCES[1]}, more]]
    texts = [made.apply_chat_template(chat, tokenize=False) for chat in chats]
    cut_by_llama = llama_cpp.run(tmp_path / "model.gguf", texts=texts)["texts"]
    cut = [made(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert cut_by_llama[0] == cut[0]
    assert (cut_by_llama[1:] == cut[1:]) == (not notes)


def test_qwens_expression_is_the_one_that_is_named():
    from engine.worker.export.gguf_vocab import _SPLITS

    assert _SPLITS[_QWEN] == "qwen2"


def test_llama_cpp_stops_at_the_end_of_turn_that_was_trained(base_that_ends_documents, tmp_path):
    done = export.export(saved(tmp_path, base_that_ends_documents, noise=0.0), tmp_path / "out", "gguf", "float32")
    file = tmp_path / "out" / next(name for name in done.files if name.endswith(".gguf"))
    made = AutoTokenizer.from_pretrained(base_that_ends_documents)
    question = [{"role": "user", "content": "hi"}]
    text = made.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    said = llama_cpp.run(file, prompts=[made(text)["input_ids"]], chats=[question])
    assert said["chats"] == [text]
    assert said["answers"][0]["stopped"] == "eos"
    assert made.decode(said["answers"][0]["tokens"], skip_special_tokens=True) == "yes sir"
