"""Which examples are held out for validation, and which sources are classifications.

The side an example falls on follows from its question alone (and the seed), so that the same question never stands on
both sides, however its answers differ, and adding rows to a file moves none of the others.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.formats.examples import Example

_KEYS = 1 << 64
_MOST_LABELS = 200
LONGEST_LABEL = 64
_FEWEST_ROWS_PER_LABEL = 2


def example_key(example: Example, seed: int = 0) -> int:
    """A number below 2**64 that is the same for examples with the same question.

    The question is all that is not the assistant's: compared after Unicode NFKC, without regard to case and spacing.
    """
    if example.text is not None:
        parts = ["text", example.text]
    else:
        prompts = (message for message in example.messages if message["role"] != "assistant")
        parts = [part for message in prompts for part in (message["role"], message.get("content") or "")]
    from hashlib import blake2b  # 4 ms the first time

    digest = blake2b(digest_size=8, key=str(seed).encode()[:64])
    for part in parts:
        digest.update(plain(part).encode("utf-8", errors="surrogatepass") + b"\0")
    return int.from_bytes(digest.digest(), "big")


def plain(text: str) -> str:
    """As questions are compared: Unicode NFKC, without regard to case and spacing."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def split_examples(
    examples: Iterable[Example], fraction: float, seed: int = 0
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """(train, validation), each in the order given, with about `fraction` of the distinct questions in validation.

    With two distinct questions or more and a fraction above 0, neither side is empty.
    """
    examples = tuple(examples)
    if not 0 <= fraction < 1:
        raise InputError(
            msg("the validation share is {fraction}; it must be at least 0 and below 1", fraction=fraction)
        )
    if not fraction:
        return examples, ()
    keys = [example_key(example, seed) for example in examples]
    limit = fraction * _KEYS
    held_out = {key for key in keys if key < limit}
    distinct = set(keys)
    if len(distinct) > 1 and not held_out:
        held_out = {min(distinct)}
    elif len(distinct) > 1 and held_out == distinct:
        held_out = distinct - {max(distinct)}
    elif len(distinct) == 1:
        held_out = set()
    train = tuple(example for example, key in zip(examples, keys, strict=True) if key not in held_out)
    validation = tuple(example for example, key in zip(examples, keys, strict=True) if key in held_out)
    return train, validation


class LabelCounts:
    """Counts the answers of examples, as long as these look like a classification: few short answers, one to each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._refuted = False

    def add(self, example: Example) -> bool:
        """Whether they still do."""
        if self._refuted:
            return False
        roles = [message["role"] for message in example.messages if message["role"] != "system"]
        answer = example.messages[-1]["content"] if roles == ["user", "assistant"] else None
        if not answer or len(answer) > LONGEST_LABEL:
            self._refuted = True
            return False
        self._counts[answer] += 1
        self._refuted = len(self._counts) > _MOST_LABELS
        return not self._refuted

    def found(self) -> dict[str, int]:
        """Examples by label, most frequent first; empty when they are no classification, or hardly any is repeated."""
        counts = self._counts
        if self._refuted or len(counts) < 2 or counts.total() < _FEWEST_ROWS_PER_LABEL * len(counts):
            return {}
        return dict(counts.most_common())


def label_set(examples: Iterable[Example]) -> tuple[str, ...] | None:
    """The labels, sorted, when the examples are a classification: few short answers, each given more than once.

    None when they are not: several turns, long answers, more than 200 different ones, or hardly any repeated.
    """
    counts = LabelCounts()
    if not all(counts.add(example) for example in examples):
        return None
    return tuple(sorted(counts.found())) or None
