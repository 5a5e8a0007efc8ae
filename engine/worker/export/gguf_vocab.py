"""A fast tokenizer's vocabulary in GGUF, as llama.cpp reads it, or an error that says why it cannot be.

llama.cpp splits text by its own code, chosen by a name (`tokenizer.ggml.pre`). Only what one of these names stands for
in every step is written: the normalizer, the expression that splits, the way tokens are joined.
"""

import contextlib
import json
import re
from collections.abc import Sequence
from typing import Any

import gguf

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.worker.export.gguf_loader import HINT

_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SPLITS = {
    _CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _REST: "qwen2",
    _CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _REST: "llama-bpe",
    (
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}|"
        + _REST.replace(r"[\r\n]*|", r"[\r\n/]*|", 1)
    ): "tekken",
}
"""The expression that cuts the text, and the name llama.cpp knows it by (src/llama-vocab.cpp)."""
_IGNORE_MERGES = {"llama-bpe", "tekken"}
"""Of these, llama.cpp takes a word that is a token as it stands, whatever the merges make of it."""
_GENERATION = re.compile(r"(\{%-?)\s*(end)?generation\s*(-?%\})")


def add_vocabulary(writer: gguf.GGUFWriter, tokenizer: Any, rows: int, stops: Sequence[int] = ()) -> list[str]:
    """Tokens for `rows` of the embedding, how text is cut, the special tokens and the chat template.

    `stops` end an answer, the end of turn first; without any it is the tokenizer's end-of-text token. Returns notes
    for the user. InputError where llama.cpp would make other tokens of a text.
    """
    if not tokenizer.is_fast:
        raise InputError("this tokenizer has no fast version, from which a GGUF vocabulary is written", HINT)
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    model = description["model"]
    if model["type"] != "BPE":
        raise InputError(msg("this tokenizer is of the type {type}, not BPE", type=model["type"]), HINT)
    pieces = bool(model.get("byte_fallback"))
    _refuse(description, pieces)
    notes: list[str] = []
    tokens, kinds, scores = _tokens(tokenizer, model, rows, pieces)
    writer.add_tokenizer_model("llama" if pieces else "gpt2")
    writer.add_tokenizer_pre("default" if pieces else pre_tokenizer(description))
    writer.add_token_list(tokens)
    if pieces:
        writer.add_token_scores(scores)
        prefix, notes = _space_prefix(tokenizer)
        writer.add_add_space_prefix(prefix)
    else:
        writer.add_token_merges([_merge(pair) for pair in model["merges"]])
    writer.add_token_types(kinds)
    for name in ("bos", "unk", "pad"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    _add_stops(writer, tokenizer, stops)
    _add_ends(writer, tokenizer)
    if tokenizer.chat_template:
        # llama.cpp's Jinja knows no `generation` blocks; they only mark which tokens are trained.
        template = _GENERATION.sub(_neutral, tokenizer.get_chat_template())
        _refuse_stripping(tokenizer, template)
        writer.add_chat_template(template)
    return notes


def _add_stops(writer: gguf.GGUFWriter, tokenizer: Any, stops: Sequence[int]) -> None:
    """llama.cpp stops at its end-of-text, end-of-turn and end-of-message tokens; Ollama reads a list as well."""
    ends = list(dict.fromkeys([*stops, tokenizer.eos_token_id]))
    ends = [number for number in ends if number is not None]
    if not ends:
        return
    writer.add_eos_token_id(ends[0])
    if stops:
        writer.add_eot_token_id(ends[0])
    if len(ends) > 1:
        writer.add_eom_token_id(ends[1])
    writer.add_array("tokenizer.ggml.eos_token_ids", ends)


def _add_ends(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    """Whether the tokenizer puts a token before and after a text. InputError where it adds others than these two."""
    plain, special = (tokenizer("a", add_special_tokens=flag)["input_ids"] for flag in (False, True))
    bos, eos = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
    adds_bos, adds_eos = special[:1] == bos, special[-1:] == eos and len(special) > len(plain)
    adds_bos = adds_bos and len(special) > len(plain)
    if special != (bos if adds_bos else []) + plain + (eos if adds_eos else []):
        raise InputError("this tokenizer puts more before or after a text than llama.cpp does", HINT)
    writer.add_add_bos_token(adds_bos)
    writer.add_add_eos_token(adds_eos)


def _tokens(tokenizer: Any, model: dict[str, Any], rows: int, pieces: bool) -> tuple[list[bytes], list, list[float]]:
    """The text, the kind and, for pieces, the score of each row."""
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    tokens, kinds, scores = [], [], []
    ranks = _ranks(model["merges"]) if pieces else {}
    for number in range(rows):
        token = by_id.get(number)
        if token is None:  # more rows than tokens: models round their embeddings up
            token, kind = f"[PAD{number}]", gguf.TokenType.UNUSED
        elif number in added:
            special = added[number].special or number in tokenizer.all_special_ids
            kind = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED
            if pieces and number == tokenizer.unk_token_id:
                kind = gguf.TokenType.UNKNOWN
        elif pieces and len(token) == 6 and token.startswith("<0x"):
            kind = gguf.TokenType.BYTE
        else:
            kind = gguf.TokenType.NORMAL
        tokens.append(token.encode("utf-8"))
        kinds.append(kind)
        # llama.cpp joins the pair whose token has the highest score: the merge that comes first.
        scores.append(float(-ranks.get(token, len(ranks) + number)) if kind == gguf.TokenType.NORMAL else 0.0)
    if len(set(tokens)) < len(tokens):
        twice = next(token for token in tokens if tokens.count(token) > 1)
        raise InputError(
            msg("this tokenizer has two tokens {token!r}; llama.cpp takes one", token=twice.decode("utf-8")), HINT
        )
    return tokens, kinds, scores


def _neutral(mark: re.Match) -> str:
    """A block that does nothing, with the same control of white space."""
    return f"{mark[1]} {'endif' if mark[2] else 'if true'} {mark[3]}"


def _refuse(description: dict[str, Any], pieces: bool) -> None:
    """InputError where text is changed before it is cut, or tokens are joined, as llama.cpp does not."""
    model, normalizer = description["model"], description.get("normalizer")
    steps = normalizer.get("normalizers", [normalizer]) if normalizer else []
    # llama.cpp normalises nothing; nearly all text is in NFC as it stands.
    allowed = {"Prepend", "Replace"} if pieces else {"NFC"}
    for step in steps:
        spaces = step["type"] != "Replace" or (step["pattern"] == {"String": " "} and step["content"] == "▁")
        if step["type"] not in allowed or not spaces:
            raise InputError(
                msg("this tokenizer changes text ({type}) in a way llama.cpp does not", type=step["type"]), HINT
            )
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise InputError(msg("this tokenizer marks words ({name}) in a way llama.cpp does not", name=name), HINT)
    if pieces:
        pre = description.get("pre_tokenizer")
        if pre and (pre["type"] != "Metaspace" or pre.get("replacement", "▁") != "▁" or pre.get("split", True)):
            raise InputError(
                msg("this tokenizer cuts pieces ({type}) in a way llama.cpp does not", type=pre["type"]), HINT
            )


def _refuse_stripping(tokenizer: Any, template: str) -> None:
    """llama.cpp takes no white space beside a special token with it. What the template never writes does not matter."""
    for token in tokenizer.added_tokens_decoder.values():
        if (token.lstrip or token.rstrip) and token.content in template:
            raise InputError(
                msg(
                    "this tokenizer takes the spaces beside {token} with it, as llama.cpp does not",
                    token=token.content,
                ),
                HINT,
            )


def pre_tokenizer(description: dict[str, Any]) -> str:
    """llama.cpp's name for how the text is split before merging. InputError where no name is certain to be right."""
    pre = description.get("pre_tokenizer")
    steps = pre.get("pretokenizers", [pre]) if pre else []
    name = None
    match [step["type"] for step in steps]:
        case ["ByteLevel"] if steps[0].get("use_regex", True) and not steps[0].get("add_prefix_space"):
            name = "gpt-2"
        case ["Split", "ByteLevel"]:
            split, byte_level = steps
            whole = split["behavior"] == "Isolated" and not split["invert"]
            if whole and not byte_level.get("use_regex", True) and not byte_level.get("add_prefix_space"):
                name = _SPLITS.get(split["pattern"].get("Regex", ""))
    if name is None or (description["model"].get("ignore_merges") and name not in _IGNORE_MERGES):
        raise InputError("this tokenizer cuts text in a way that finetop cannot name to llama.cpp", HINT)
    return name


def _ranks(merges: list[Any]) -> dict[str, int]:
    """For each token that merging makes, the index of the first merge that makes it."""
    first_rank: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        first_rank.setdefault(left + right, rank)
    return first_rank


def _merge(pair: Any) -> str:
    """`left right`; a space inside a part is written as the byte-level alphabet has it."""
    return pair if isinstance(pair, str) else " ".join(part.replace(" ", chr(ord(" ") + 256)) for part in pair)


def _space_prefix(tokenizer: Any) -> tuple[bool, list[str]]:
    """Whether llama.cpp is to put a space before a text, and again behind each special token, and what to know of it.

    Tokenizers differ in where they do; by the one or the other llama.cpp must make the same tokens of a prompt.
    InputError where it makes them by neither.
    """
    ask, more = {"role": "user", "content": "One, two"}, {"role": "user", "content": "and three?"}
    if tokenizer.chat_template:
        prompts, system = _prompts(tokenizer, [[ask]]), {"role": "system", "content": "Be brief"}
        longer = _prompts(tokenizer, [[system, ask], [ask, {"role": "assistant", "content": "Three"}, more]])
    else:
        prompts, longer = ["One, two"], []

    def same(texts: list[str], prefix: bool) -> bool:
        return all(
            _cut_by_llama_cpp(tokenizer, text, prefix) == tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in texts
        )

    fitting = [prefix for prefix in (True, False) if same(prompts, prefix)]
    if not fitting:
        raise InputError("llama.cpp would put spaces beside special tokens where this tokenizer does not", HINT)
    chosen = next((prefix for prefix in fitting if same(longer, prefix)), None)
    if chosen is not None:
        return chosen, []
    return fitting[0], [
        "Behind special tokens llama.cpp puts spaces where this tokenizer does not, or the other way round: a prompt "
        "of one question has the tokens that were trained, one with a system prompt or earlier answers differs by them."
    ]


def _prompts(tokenizer: Any, chats: list[list[dict[str, str]]]) -> list[str]:
    texts = []
    for chat in chats:
        with contextlib.suppress(Exception):  # a template may raise anything, such as for a system prompt
            texts.append(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    return texts


def _cut_by_llama_cpp(tokenizer: Any, text: str, prefix: bool) -> list[int]:
    """The tokens of a text with a vocabulary of pieces (llama_vocab::impl::tokenize in src/llama-vocab.cpp)."""
    added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.content}
    between = re.compile("(" + "|".join(map(re.escape, sorted(added, key=len, reverse=True))) + ")")
    ids, after_special = [], True
    for part in between.split(text) if added else [text]:
        if part in added:
            ids.append(added[part])
        elif part:
            spaced = (" " if prefix and after_special else "") + part
            ids += [token.id for token in tokenizer.backend_tokenizer.model.tokenize(spaced.replace(" ", "▁"))]
        after_special = part in added or (after_special and not part)
    return ids
