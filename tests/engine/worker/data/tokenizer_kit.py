"""Tokenizers of the model families: their kinds of pre-tokenizer, trained on the spot, and their added tokens.

A flag after a token says how the real table has it: `s` special, `n` normalized, `l` and `r` take white space on the
left or right of the token. Tokens that no chat template writes are left out.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_TEXT = [
    "Fine-tuning teaches a model new habits from examples: one, two, three!",
    "What is the capital of France?\n\nParis, of course.\n",
    "今天天气怎么样？今天是晴天，适合出门散步。",
    '{"name": "look", "arguments": {"city": "Rome", "days": 3}}\n[{"name": "find"}]\n\n\n',
    "<tool_call>\n</tool_call>\n<think>\n\n</think>\n\n### user:\n\n### assistant:\n\nUser: a\nAssistant: b\n",
    'a  b   c\td\r\n  e\n\n f (g) [h] i\' "j" :) ... 1234567 ?\n\n!\n',
]
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_LLAMA3 = _QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
_DEEPSEEK = (
    r"\p{N}{1,3}",
    r"[一-龥\u3040-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
)


def _split(*patterns: str) -> Callable[[], pre_tokenizers.PreTokenizer]:
    def made() -> pre_tokenizers.PreTokenizer:
        parts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
        return pre_tokenizers.Sequence([*parts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])

    return made


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _cohere() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _byte_level(pre_tokenizer: Callable, normalizer: Callable | None = None) -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    if normalizer:
        bpe.normalizer = normalizer()
    bpe.pre_tokenizer = pre_tokenizer()
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(_TEXT, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False))
    return bpe


def _sentencepiece(prefix: str) -> Tokenizer:
    """`prefix`: where a visible space is put before a text: `every` stretch between added tokens (Llama 2), only the
    `first` (Mistral from version 3 on), or `none` (Gemma)."""
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    alphabet = sorted({char for text in _TEXT for char in text if char > " "} | {"▁", "\n"})
    learner.train_from_iterator(
        [line for text in _TEXT for line in text.split("\n")],
        trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>"], initial_alphabet=alphabet, show_progress=False),
    )
    vocabulary = learner.get_vocab()
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    bpe = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    strip = [decoders.Strip(" ", 1, 0)] if prefix != "none" else []
    if prefix == "every":
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif prefix == "first":
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        bpe.normalizer = normalizers.Replace(" ", "▁")
        bpe.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]  # as the real files have it
    )
    return bpe


_KINDS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": lambda: _byte_level(_gpt2),
    "qwen": lambda: _byte_level(_split(_QWEN), normalizers.NFC),
    "llama3": lambda: _byte_level(_split(_LLAMA3)),
    "o200k": lambda: _byte_level(_split(_O200K)),
    "deepseek": lambda: _byte_level(_split(*_DEEPSEEK)),
    "cohere": lambda: _byte_level(_cohere, normalizers.NFC),
    "llama2": lambda: _sentencepiece("every"),
    "mistral3": lambda: _sentencepiece("first"),
    "gemma": lambda: _sentencepiece("none"),
}


@dataclass(frozen=True)
class Family:
    kind: str
    """Of pre-tokenizer, see _KINDS."""
    tokens: str
    """Added tokens, separated by spaces, each `TOKEN` or `TOKEN:flags`."""
    eos: str
    bos: str = ""
    adds: str = ""
    """What the tokenizer itself puts before a text."""


_QWEN_TOKENS = "<|endoftext|>:s <|im_start|>:s <|im_end|>:s <tool_call> </tool_call>"
_LLAMA3_TOKENS = (
    "<|begin_of_text|>:s <|end_of_text|>:s <|finetune_right_pad_id|>:s <|start_header_id|>:s <|end_header_id|>:s "
    "<|eom_id|>:s <|eot_id|>:s <|python_tag|>:s"
)
_DEEPSEEK_TOKENS = (
    "<｜begin▁of▁sentence｜>:sn <｜end▁of▁sentence｜>:sn <｜▁pad▁｜>:sn <｜User｜> <｜Assistant｜> <|EOT|> "
    "<｜tool▁calls▁begin｜> <｜tool▁calls▁end｜> <｜tool▁call▁begin｜> <｜tool▁call▁end｜> <｜tool▁sep｜> "
    "<｜tool▁outputs▁begin｜> <｜tool▁outputs▁end｜> <｜tool▁output▁begin｜> <｜tool▁output▁end｜>"
)
_MISTRAL3_TOKENS = (
    "<unk>:s <s>:s </s>:s [INST]:s [/INST]:s [TOOL_CALLS]:s [AVAILABLE_TOOLS]:s [/AVAILABLE_TOOLS]:s "
    "[TOOL_RESULTS]:s [/TOOL_RESULTS]:s [SYSTEM_PROMPT]:s [/SYSTEM_PROMPT]:s [TOOL_CONTENT]:s"
)
_GLM_TOKENS = "<|endoftext|>:s [MASK]:s [gMASK]:s <sop>:s <|system|>:s <|user|>:s <|assistant|>:s <|observation|>:s"
_COHERE_TOKENS = (
    "<PAD>:s <UNK>:s <BOS_TOKEN>:s <EOS_TOKEN>:s <|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|>:s <|USER_TOKEN|> "
    "<|CHATBOT_TOKEN|> <|SYSTEM_TOKEN|>"
)
_COHERE2_TOKENS = (
    f"{_COHERE_TOKENS} <|START_THINKING|> <|END_THINKING|> <|START_RESPONSE|> <|END_RESPONSE|> <|START_ACTION|> "
    "<|END_ACTION|> <|START_TOOL_RESULT|> <|END_TOOL_RESULT|>"
)
_GEMMA_BLANKS = "\\n\\n \\n\\n\\n ▁▁ ▁▁▁ ▁▁▁▁ <table> </table>"
"""Gemma has runs of line ends and of spaces as added tokens, too."""

FAMILIES: dict[str, Family] = {
    "qwen2.5": Family("qwen", _QWEN_TOKENS, "<|im_end|>"),
    "qwen2.5-base": Family("qwen", _QWEN_TOKENS, "<|endoftext|>"),
    "qwen3": Family("qwen", f"{_QWEN_TOKENS} <tool_response> </tool_response> <think> </think>", "<|im_end|>"),
    "hermes": Family(
        "llama3", f"{_LLAMA3_TOKENS} <|im_start|>:s <|im_end|>:s <tool_call> </tool_call>", "<|im_end|>",
        "<|begin_of_text|>", "<|begin_of_text|>",
    ),
    "llama3": Family("llama3", _LLAMA3_TOKENS, "<|eot_id|>", "<|begin_of_text|>", "<|begin_of_text|>"),
    "llama2": Family("llama2", "<unk>:s <s>:s </s>:s", "</s>", "<s>", "<s>"),
    "mistral": Family("llama2", "<unk>:s <s>:s </s>:s", "</s>", "<s>", "<s>"),
    "mistral3": Family("mistral3", _MISTRAL3_TOKENS, "</s>", "<s>", "<s>"),
    "nemo": Family("o200k", _MISTRAL3_TOKENS, "</s>", "<s>", "<s>"),
    "gemma": Family(
        "gemma", f"<pad>:s <eos>:s <bos>:s <unk>:s <start_of_turn>:s <end_of_turn>:s {_GEMMA_BLANKS}",
        "<eos>", "<bos>", "<bos>",
    ),
    "gemma4": Family(
        "gemma",
        "<pad>:s <eos>:s <bos>:s <unk>:s <|turn>:s <turn|>:s <|tool>:s <tool|>:s <|tool_call>:s <tool_call|>:s "
        f'<|tool_response>:s <tool_response|>:s <|"|>:s <|channel>:s <channel|>:s <|think|>:s {_GEMMA_BLANKS}',
        "<eos>", "<bos>", "<bos>",
    ),
    "glm4": Family("llama3", _GLM_TOKENS, "<|endoftext|>", adds="[gMASK] <sop>"),
    "glm4.5": Family(
        "llama3",
        f"{_GLM_TOKENS} <think> </think> <tool_call> </tool_call> <tool_response> </tool_response> <arg_key> "
        "</arg_key> <arg_value> </arg_value> /nothink",
        "<|endoftext|>",
    ),
    "deepseek": Family(
        "deepseek", f"{_DEEPSEEK_TOKENS} <think> </think>", "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>",
        "<｜begin▁of▁sentence｜>",
    ),
    "phi3": Family(
        "llama2",
        "<unk>:s <s>:s </s>:r <|endoftext|>:s <|assistant|>:sr <|system|>:sr <|end|>:sr <|user|>:sr",
        "<|endoftext|>", "<s>", "",
    ),
    "phi4": Family(
        "gpt2", "<|endoftext|>:slr <|im_start|>:slr <|im_end|>:slr <|im_sep|>:slr", "<|im_end|>", "<|endoftext|>"
    ),
    "phi4-mini": Family(
        "o200k",
        "<|endoftext|>:s <|assistant|>:s <|end|>:s <|user|>:s <|system|>:s <|tool|>:s <|/tool|> <|tool_call|> "
        "<|/tool_call|> <|tool_response|>:s",
        "<|endoftext|>", "<|endoftext|>",
    ),
    "command-r": Family("cohere", _COHERE_TOKENS, "<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>", "<BOS_TOKEN>"),
    "command-r7b": Family("cohere", _COHERE2_TOKENS, "<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>", "<BOS_TOKEN>"),
    "gpt-oss": Family(
        "o200k",
        "<|startoftext|>:s <|endoftext|>:s <|return|>:s <|constrain|>:s <|channel|>:s <|start|>:s <|end|>:s "
        "<|message|>:s <|call|>:s",
        "<|return|>", "<|startoftext|>",
    ),
    "hunyuan": Family(
        "llama3", "<|startoftext|>:s <|endoftext|>:s <|eos|>:s <|extra_0|>:s <|extra_4|>:s <|pad|>:s", "<|eos|>",
        "<|startoftext|>",
    ),
    "plain": Family("gpt2", "<|endoftext|>:s", "<|endoftext|>"),
}  # fmt: skip


@functools.cache
def _trained(kind: str) -> str:
    return _KINDS[kind]().to_str()


@functools.cache
def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """One of the family's kind, shared: set its chat_template, and nothing else."""
    described = FAMILIES[family]
    made = Tokenizer.from_str(_trained(described.kind))
    added = [_added(word) for word in described.tokens.split()]
    made.add_tokens([token for token in added if not token.special])
    made.add_special_tokens([token for token in added if token.special])
    if described.adds:
        ids = [(piece, made.token_to_id(piece)) for piece in described.adds.split()]
        made.post_processor = processors.TemplateProcessing(single=f"{described.adds} $A", special_tokens=ids)
    pad = next((token.content for token in added if "pad" in token.content.lower()), described.eos)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=described.eos, pad_token=pad, bos_token=described.bos or None
    )


def _added(word: str) -> AddedToken:
    content, _, flags = word.rpartition(":") if ":" in word[1:] else (word, "", "")
    return AddedToken(
        content.replace("\\n", "\n"),
        special="s" in flags,
        normalized="n" in flags,
        lstrip="l" in flags,
        rstrip="r" in flags,
    )
