"""Small random models of the real architectures, made from their own config classes, and a small tokenizer."""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    Glm4Config,
    GlmConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

CHATML = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}
{% else %}{{ message.content }}<|im_end|>
{% endif %}
{%- endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}"""

_SENTENCES = [
    "Fine-tuning teaches a model new habits from examples.",
    "What is the capital of France? Paris, of course.",
    "今天天气怎么样？今天是晴天，适合出门散步。",
    "高血压患者应当注意饮食，少吃盐，按时服药。",
    "a b c d e f g 0 1 2 3 4 5 6 7 8 9 , . ! ? ' \" ( ) -",
]


def byte_level(specials: list[AddedToken | str], vocab_size: int = 600) -> Tokenizer:
    """A byte-level BPE whose first ids are the special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_SENTENCES, trainer)
    return bpe


def tokenizer(vocab_size: int = 600) -> PreTrainedTokenizerFast:
    """A byte-level BPE with ChatML."""
    bpe = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], vocab_size)
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    made.chat_template = CHATML
    return made


_SMALL = {
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
}

FAMILIES = {
    "qwen2.5": lambda: Qwen2Config(**_SMALL, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**_SMALL, head_dim=16),
    "llama3": lambda: LlamaConfig(**_SMALL, rope_theta=500000.0),
    "glm4-9b": lambda: GlmConfig(**_SMALL, head_dim=16, partial_rotary_factor=0.5),
    "glm4-0414": lambda: Glm4Config(**_SMALL, head_dim=16, partial_rotary_factor=0.5),
    "mistral": lambda: MistralConfig(**_SMALL, sliding_window=24),
    "gemma": lambda: GemmaConfig(**_SMALL, head_dim=16),
    "gemma2": lambda: Gemma2Config(**_SMALL, head_dim=16, sliding_window=24, query_pre_attn_scalar=16),
    "gemma3": lambda: Gemma3TextConfig(**_SMALL, head_dim=16, sliding_window=24, query_pre_attn_scalar=16),
    "phi3": lambda: Phi3Config(**_SMALL),
    "phi2": lambda: PhiConfig(**_SMALL, partial_rotary_factor=0.5),
}


def build(family: str, folder: Path, seed: int = 0) -> Path:
    """Save a random model of the family and the tokenizer in `folder`."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(FAMILIES[family]())
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
