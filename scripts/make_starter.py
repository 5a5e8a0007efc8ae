"""Makes the starter model from nothing: `python scripts/make_starter.py WORKDIR`.

Fetches free documentation (Debian, needs apt-get and dpkg-deb), trains a tokenizer, writes a model with
random weights, pre-trains it with finetop itself and copies the result to presets/models/starter. The
corpus, the tokenizer and the first weights depend only on the packages' versions and on SEED. An hour
and a half on two cores; `--until init` stops before the training.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

from starter_corpus import SOURCES, Deduplicator, documents, unpack
from starter_sentences import chats, prose

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SAMPLES = ROOT / "presets" / "samples"
STARTER = ROOT / "presets" / "models" / "starter"
SEED = 0
VOCABULARY = 6144
# A small model learns from variety, not from ten thousand pages in one voice.
MAX_CHARS_PER_SOURCE = 2_500_000
EVERYDAY_DOCUMENTS = 10_000
CHATS = 16_000
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# The share of each kind that the tokenizer is trained on: everyday words must not be crowded out by those of manuals.
EVERYDAY = {"wordnet-base", "everyday sentences", "chats", "fortunes-zh"}
TOKENIZER_CHARS = {
    ("en", "everyday"): 4_000_000,
    ("en", "manuals"): 1_200_000,
    ("zh", "everyday"): 1_500_000,
    ("zh", "manuals"): 1_500_000,
}
# Qwen2's: contractions, words with a leading space, single digits, punctuation, line ends.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.role == 'assistant' %}"
    "{% generation %}{{- message.content + '<|im_end|>' }}{% endgeneration %}{{- '\\n' }}"
    "{%- else %}{{- message.content + '<|im_end|>\\n' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def write_corpus(work: Path) -> Path:
    """WORKDIR/corpus.jsonl, shuffled, and corpus_report.json with what came from where."""
    rng = random.Random(SEED)
    dedupe, held_back = Deduplicator(), _sample_texts()
    rows, report = [], []
    for source in SOURCES:
        texts, size = [], 0
        found = list(documents(source, work))
        rng.shuffle(found)
        for document in found:
            document = dedupe.keep(document)
            if len(document) >= 30 and size < MAX_CHARS_PER_SOURCE:
                texts.append(document)
                size += len(document)
        rows += [(source.lang, source.package, text) for text in texts]
        report.append(
            {
                "source": source.package,
                "lang": source.lang,
                "licence": source.licence,
                "about": source.about,
                "documents": len(texts),
                "chars": size,
            }
        )
        print(f"{source.package:26}{source.lang}  {len(texts):6,} documents  {size:10,} characters", flush=True)

    everyday = [row for row in prose(rng, EVERYDAY_DOCUMENTS) if not any(text in row[1] for text in held_back)]
    dialogues = [
        (lang, _render(turns))
        for lang, turns in chats(rng, CHATS, _glosses(work))
        if not any(_plain(ask) in held_back for ask, _ in turns)
    ]
    for name, made in (("everyday sentences", everyday), ("chats", dialogues)):
        for lang in ("en", "zh"):
            texts = sorted({text for of, text in made if of == lang})
            rows += [(lang, name, text) for text in texts]
            report.append(
                {
                    "source": name,
                    "lang": lang,
                    "licence": "CC0-1.0",
                    "about": "made by starter_sentences.py",
                    "documents": len(texts),
                    "chars": sum(map(len, texts)),
                }
            )

    rng.shuffle(rows)
    path = work / "corpus.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for *_, text in rows:
            out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    (work / "corpus_report.json").write_text(json.dumps(report, ensure_ascii=False, indent=1), "utf-8")
    (work / "corpus_index.json").write_text(json.dumps([(lang, name) for lang, name, _ in rows]), "utf-8")
    return path


def _sample_texts() -> set[str]:
    """Every sentence of the sample intents: what the starter is tuned and tested on, it must not have read."""
    import csv

    return {
        _plain(row["text"])
        for name in ("intents.csv", "intents_test.csv")
        if (SAMPLES / name).exists()
        for row in csv.DictReader((SAMPLES / name).open(encoding="utf-8"))
    }


def _plain(text: str) -> str:
    return re.sub(r"[.?!。？！\s]+$", "", text)


def _render(turns: list[tuple[str, str]]) -> str:
    """The dialogue as the chat template writes it, without the last <|im_end|>: training ends each document with it."""
    turn = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"
    return "".join(turn.format(*pair) for pair in turns).removesuffix("<|im_end|>\n")


def _glosses(work: Path) -> list[tuple[str, str]]:
    """Short definitions of single everyday words, for chats that ask what a word means."""
    found = []
    for page in sorted(unpack("wordnet-base", work).glob("usr/share/wordnet/data.*")):
        for line in page.read_text("utf-8", errors="ignore").split("\n"):
            fields, bar, gloss = line.partition(" | ")
            definition, *examples = gloss.strip().split("; ")
            word = fields.split(" ")[4] if bar and not line.startswith(" ") else ""
            if examples and re.fullmatch(r"[a-z]{3,9}", word) and 15 <= len(definition) <= 70:
                found.append((word, definition[0].upper() + definition[1:] + "."))
    return found


def train_tokenizer(work: Path, corpus: Path):
    """Byte-level BPE as Qwen2's, on as much Chinese as English so that both come out short."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rows = [json.loads(line)["text"] for line in corpus.open(encoding="utf-8")]
    index = json.loads((work / "corpus_index.json").read_text("utf-8"))
    read, left = [], dict(TOKENIZER_CHARS)
    for text, (lang, source) in zip(rows, index, strict=True):
        key = (lang, "everyday" if source in EVERYDAY else "manuals")
        if left[key] > 0:
            left[key] -= len(text)
            # The chat markers are added tokens; the words between them are what is to be learned.
            read.append(re.sub(r"<\|.*?\|>", " ", text))

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=20,
        show_progress=False,
    )
    tokenizer.train_from_iterator(read, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )
    fast.chat_template = TEMPLATE
    return fast


def write_init(work: Path, tokenizer) -> Path:
    """WORKDIR/init: tokenizer and a Qwen2 with random weights."""
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(SEED)
    end, text_end = tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.convert_tokens_to_ids("<|endoftext|>")
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        initializer_range=0.02,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=text_end,
        use_cache=True,
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=[end, text_end], pad_token_id=text_end, do_sample=False, max_new_tokens=64
    )
    folder = work / "init"
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    print(f"{folder}: {model.num_parameters():,} parameters")
    return folder


def save_tokenizer(tokenizer, folder: Path) -> None:
    """The tokenizer as transformers writes it, with the JSON set tight: indentation doubles its size."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")), ensure_ascii=False, separators=(",", ":")), "utf-8")


def pretrain(work: Path, init: Path, corpus: Path) -> Path:
    """Runs finetop on the corpus; the folder of the model it ends with."""
    command = [
        sys.executable,
        "-m",
        "tui",
        "train",
        "--workspace",
        work,
        "--config",
        HERE / "pretrain_starter.json",
        "--model",
        init,
        "--data-file",
        corpus,
    ]
    print("$", *command, flush=True)
    subprocess.run(list(map(str, command)), check=True, cwd=ROOT)
    runs = sorted((work / "runs").iterdir(), key=lambda run: run.stat().st_mtime)
    return (runs[-1] / "checkpoints" / "latest").resolve()


def publish(trained: Path, init: Path, target: Path) -> None:
    """Copies the model to `target` in bfloat16, with the tokenizer it began with."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.bfloat16)
    model.save_pretrained(target)
    save_tokenizer(AutoTokenizer.from_pretrained(init), target)
    shutil.copy(init / "generation_config.json", target / "generation_config.json")
    (target / "model.safetensors").chmod(0o644)
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{target}: {size / 1e6:.2f} MB")
    if size >= 10_000_000:
        raise SystemExit(f"{target} must stay under 10 MB")


def main() -> None:
    """Each stage takes what the one before left in WORKDIR, so that a later one can be run again alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--until", choices=("corpus", "init", "end"), default="end", help="stop after this stage")
    parser.add_argument("--trained", type=Path, metavar="FOLDER", help="only publish this trained model")
    parser.add_argument("--target", type=Path, default=STARTER, help="where the finished model goes")
    options = parser.parse_args()
    work = options.workdir.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if options.trained:
        return publish(options.trained, work / "init", options.target)
    corpus = write_corpus(work)
    if options.until == "corpus":
        return
    init = write_init(work, train_tokenizer(work, corpus))
    if options.until == "init":
        return
    publish(pretrain(work, init, corpus), init, options.target)


if __name__ == "__main__":
    main()
