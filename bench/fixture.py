"""The common ground of all engines: one model, one tokenizer, one file of chats, made from a seed alone.

    python bench/fixture.py                    the default: 20M-parameter Qwen2, 160 chats, 38,608 tokens
    python bench/fixture.py --size 1.5b --chats 512 --tokens 245760

A fixture is a folder:

    model/            random Qwen2 (config.json, model.safetensors) with its tokenizer: byte-level BPE of 32,000 tokens
                      and a ChatML template with {% generation %} around what is to be learned
    messages.jsonl    {"messages": [...]} chats, in the order in which an unshuffled engine sees them
    dataset_info.json LLaMA-Factory's description of that file
    rows.json         the truth: for each chat its token ids and which of them are supervised

Chats are like real ones in shape only: lengths are log-normal (a few are ten times the median), one to three turns,
a system message, about 20 % of the tokens supervised. The words are made up of random syllables. The supervised part
of an assistant's turn is its text, <|im_end|> and the newline: the choice of LLaMA-Factory's ChatML, which the others
follow through the template, so that all train on the very same tokens. rows.json is put together token by token here
and then compared with what the tokenizer and its template make of messages.jsonl.

Equal arguments give byte-equal data, and equal weights on one kind of device; the fixture is made once and reused.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from environments import cache_folder

VOCABULARY = 32_000
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SYSTEM_WORDS = 6
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|im_start|>assistant\\n' -}}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>\\n' -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
# Qwen2.5's own shapes, Llama 3.2's of 1B, and two of 20M parameters with few key heads of 64: in "20m" the vocabulary's
# two matrices weigh most, as in small models they do; in "20m-tied" the layers have most of the work. "tiny" only shows
# that things run. The vocabulary of the large ones is kept at their own size, because projecting to it is much of the
# work; ids above 32,000 simply never occur.
SIZES = {
    "tiny": {
        "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "dtype": "float32", "tie_word_embeddings": True,
    },
    "20m": {
        "vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "dtype": "float32", "tie_word_embeddings": False,
    },
    "20m-tied": {
        "vocab_size": VOCABULARY, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 5,
        "num_attention_heads": 6, "num_key_value_heads": 2, "dtype": "float32", "tie_word_embeddings": True,
    },
    "0.5b": {
        "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "dtype": "bfloat16", "tie_word_embeddings": True,
    },
    "1.5b": {
        "vocab_size": 151_936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "dtype": "bfloat16", "tie_word_embeddings": True,
    },
    "7b": {
        "vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "dtype": "bfloat16", "tie_word_embeddings": False,
    },
    "llama-1b": {
        "model_type": "llama", "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "dtype": "bfloat16", "tie_word_embeddings": True,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Fixture:
    size: str = "20m"
    chats: int = 160
    tokens: int = 38_608
    """All tokens of all chats together."""
    supervised: int = 7_722
    longest: int = 2_000
    """No chat has more tokens, so that no engine cuts or drops one at a maximum length of 2,048."""
    seed: int = 0

    def folder(self) -> Path:
        name = f"{self.size}-{self.chats}x{self.tokens}-{self.supervised}-{self.seed}"
        return cache_folder() / "fixtures" / name

    def make(self) -> Path:
        """The folder of this fixture, filled if it is not there yet."""
        folder = self.folder()
        if (folder / "fixture.json").exists():
            return folder
        unfinished = folder.with_name(folder.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        (unfinished / "model").mkdir(parents=True)
        rng = random.Random(self.seed)
        tokenizer = _tokenizer_of(rng)
        starts, words = _single_token_words(tokenizer)
        chats = [_chat(rng, starts, words, *shape) for shape in _shapes(self, rng)]
        rows = [_tokens(tokenizer, chat) for chat in chats]
        _write_model(self, unfinished / "model", tokenizer)
        with open(unfinished / "messages.jsonl", "w") as file:
            file.writelines(json.dumps({"messages": chat}) + "\n" for chat in chats)
        (unfinished / "dataset_info.json").write_text(json.dumps(_LLAMAFACTORY_INFO, indent=2))
        (unfinished / "rows.json").write_text(json.dumps(rows))
        _check(self, unfinished, chats, rows)
        (unfinished / "fixture.json").write_text(json.dumps(asdict(self), indent=2))
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
        return folder


_LLAMAFACTORY_INFO = {
    "chats": {
        "file_name": "messages.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role", "content_tag": "content",
            "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system",
        },
    }
}  # fmt: skip


def _tokenizer_of(rng: random.Random):
    """The tokenizer of this seed. It and what is left of the seed are kept: training it takes longer than all else."""
    from tokenizers import Tokenizer

    state = hashlib.sha256(repr(rng.getstate()).encode()).hexdigest()[:12]
    path = cache_folder() / "fixtures" / f"tokenizer-{VOCABULARY}-{state}.json"
    if path.exists():
        known = json.loads(path.read_text("utf-8"))
        version, internal, gauss = known["rng"]
        rng.setstate((version, tuple(internal), gauss))
        return Tokenizer.from_str(known["tokenizer"])
    tokenizer = _train_tokenizer(rng)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps({"rng": rng.getstate(), "tokenizer": tokenizer.to_str()}), "utf-8")
    unfinished.replace(path)
    return tokenizer


def _train_tokenizer(rng: random.Random):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    onsets = ["", *"bcdfghklmnprstvwz", "br", "ch", "dr", "fl", "gr", "kl", "pl", "sh", "st", "th", "tr"]
    syllables = [onset + vowel + coda for onset in onsets for vowel in "aeiou" for coda in ("", "n", "r", "s", "l")]
    words = sorted({"".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3)))) for _ in range(60_000)})
    rng.shuffle(words)
    # Frequencies fall off slowly: enough words must be frequent enough to become tokens of their own.
    text = []
    for rank, word in enumerate(words):
        text += [f" {word}"] * (2 + 40_000 // (rank + 400)) + ([word] * 3 if rank < 2_000 else [])
    text += ["system", "user", "assistant"] * 2_000
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY, tokenizer.get_vocab_size()
    return tokenizer


def _single_token_words(tokenizer) -> tuple[list[str], list[str]]:
    """Words that are one token at the start of a text, and words that are one token after a space."""
    starts, words = [], []
    for token in sorted(tokenizer.get_vocab()):
        text = token.replace("Ġ", " ")
        word = text.strip()
        if word.isascii() and word.isalpha() and len(word) >= 2 and len(tokenizer.encode(text).ids) == 1:
            (words if text[0] == " " else starts).append(text)
    return starts, words


def _shapes(fixture: Fixture, rng: random.Random) -> list[tuple[list[int], list[int]]]:
    """For each chat the words of its user messages and of its answers, so that all sums come out exactly."""
    answers_share = fixture.supervised / fixture.tokens
    weights = [rng.lognormvariate(0, 0.75) for _ in range(fixture.chats)]
    turns = [rng.choice((1, 1, 2, 3)) for _ in range(fixture.chats)]
    fixed = [SYSTEM_WORDS + 5 + 10 * count for count in turns]  # system message, and what ChatML adds to each turn
    totals = _share_out(fixture.tokens, weights, [f + 4 * n for f, n in zip(fixed, turns, strict=True)])
    assert max(totals) <= fixture.longest, f"a chat of {max(totals)} tokens: lower the mean or raise `longest`"
    wanted = [total * answers_share * rng.uniform(0.5, 1.5) for total in totals]
    least = [4 * count for count in turns]
    most = [total - overhead for total, overhead in zip(totals, fixed, strict=True)]
    supervised = _share_out(fixture.supervised, wanted, least, most)
    shapes = []
    for total, answered, count, overhead in zip(totals, supervised, turns, fixed, strict=True):
        asked = total - overhead - (answered - 2 * count)
        uneven = [rng.uniform(0.5, 1.5) for _ in range(count)]
        shapes.append((_share_out(asked, uneven, [1] * count), _share_out(answered - 2 * count, uneven, [1] * count)))
    return shapes


def _share_out(total: int, weights: list[float], least: list[int], most: list[int] | None = None) -> list[int]:
    """Whole numbers in proportion to `weights`, within bounds, that sum to `total`."""
    most = most or [total] * len(weights)
    scale = total / sum(weights)
    parts = [min(high, max(low, round(weight * scale))) for weight, low, high in zip(weights, least, most, strict=True)]
    while (missing := total - sum(parts)) != 0:
        step = 1 if missing > 0 else -1
        movable = [i for i, part in enumerate(parts) if least[i] <= part + step <= most[i]]
        movable.sort(key=lambda i: -parts[i])  # the largest hardly notice
        if not movable:
            raise ValueError("these totals cannot be met")
        for i in movable[: abs(missing)]:
            parts[i] += step
    return parts


def _chat(rng: random.Random, starts: list[str], words: list[str], asked: list[int], answered: list[int]) -> list[dict]:
    def text(count: int) -> str:
        return rng.choice(starts) + "".join(rng.choice(words) for _ in range(count - 1))

    messages = [{"role": "system", "content": text(SYSTEM_WORDS)}]
    for question, answer in zip(asked, answered, strict=True):
        messages.append({"role": "user", "content": text(question)})
        messages.append({"role": "assistant", "content": text(answer)})
    return messages


def _tokens(tokenizer, chat: list[dict]) -> dict[str, list[int]]:
    """Ids and the supervised flag of each, put together message by message without the template."""
    ids: list[int] = []
    supervised: list[int] = []
    for message in chat:
        head = tokenizer.encode(f"<|im_start|>{message['role']}\n").ids
        body = tokenizer.encode(message["content"]).ids + tokenizer.encode("<|im_end|>\n").ids
        ids += head + body
        supervised += [0] * len(head) + [int(message["role"] == "assistant")] * len(body)
    return {"ids": ids, "supervised": supervised}


def _write_model(fixture: Fixture, folder: Path, tokenizer) -> None:
    import torch
    from transformers import AutoConfig, PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)
    shape = dict(SIZES[fixture.size])
    dtype = getattr(torch, shape.pop("dtype"))
    config = AutoConfig.for_model(
        **({"model_type": "qwen2"} | shape),
        max_position_embeddings=4096,
        rope_theta=1e6,
        bos_token_id=None,
        eos_token_id=wrapped.eos_token_id,
        pad_token_id=wrapped.pad_token_id,
        # Twice and more the customary 0.02: with it a layer's output, and so what a token sees of its neighbours, would
        # hardly reach the loss, and an engine that lets packed chats see each other would pass for right.
        initializer_range=shape["hidden_size"] ** -0.5,
    )
    random_model(config, dtype, fixture.seed).save_pretrained(folder)


def random_model(config, dtype, seed: int = 0, **options):
    """A causal language model drawn from a seed. On a GPU, where there is one: a CPU takes minutes for 7B numbers."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, **options)


def _check(fixture: Fixture, folder: Path, chats: list[list[dict]], rows: list[dict]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    for chat, row in zip(chats, rows, strict=True):
        rendered = tokenizer.apply_chat_template(
            chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        assert rendered["input_ids"] == row["ids"], "the template gives other tokens than the rows"
        assert rendered["assistant_masks"] == row["supervised"], "the template marks other tokens than the rows"
    assert sum(len(row["ids"]) for row in rows) == fixture.tokens
    assert sum(sum(row["supervised"]) for row in rows) == fixture.supervised
    assert len({tuple(row["ids"]) for row in rows}) == fixture.chats


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Fixture()
    parser.add_argument("--size", choices=SIZES, default=default.size, help="shape of the model (default 20m)")
    parser.add_argument("--chats", type=int, default=default.chats)
    parser.add_argument("--tokens", type=int, help="all tokens of all chats (default 241.3 per chat)")
    parser.add_argument("--supervised", type=float, default=0.2, help="share of tokens to be learned (default 0.2)")


def from_arguments(arguments: argparse.Namespace) -> Fixture:
    tokens = arguments.tokens or round(arguments.chats * 241.3)
    return Fixture(arguments.size, arguments.chats, tokens, round(tokens * arguments.supervised))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    print(from_arguments(parser.parse_args()).make())


if __name__ == "__main__":
    main()
