"""Scores of one written answer against its reference, each from 0 to 1."""

import functools
import re
from typing import Any

from engine.metrics.normalisation import normalise

_WORD_OR_CHARACTER = re.compile(
    "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af\U00020000-\U0003fbff]"  # one token each
    "|[^\\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af\U00020000-\U0003fbff]+"
)


def exact_match(answer: str, reference: str, normalisation: str = "case") -> float:
    return float(normalise(answer, normalisation) == normalise(reference, normalisation))


def contains(answer: str, reference: str, normalisation: str = "case") -> float:
    """1 when the reference stands somewhere in the answer. An empty reference is only in an empty answer."""
    expected, predicted = normalise(reference, normalisation), normalise(answer, normalisation)
    return float(expected in predicted if expected else not predicted)


def rouge_tokens(text: str) -> list[str]:
    """Words in lower case; Chinese, Japanese and Korean characters one by one, since nothing parts their words.

    On ASCII text these are the tokens of Google's rouge-score without stemming.
    """
    return _WORD_OR_CHARACTER.findall(text.lower())


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries")."""
    predicted, expected = rouge_tokens(answer), rouge_tokens(reference)
    common = _longest_common_subsequence(predicted, expected)
    if not common:
        return 0.0
    precision, recall = common / len(predicted), common / len(expected)
    return 2 * precision * recall / (precision + recall)


def _longest_common_subsequence(a: list[str], b: list[str]) -> int:
    """Its length, a row of the table held in the bits of one integer (Hyyrö 2004, "Bit-parallel LCS-length
    computation revisited"): a hundred times faster than a table on answers of a thousand tokens."""
    where: dict[str, int] = {}
    for position, token in enumerate(a):
        where[token] = where.get(token, 0) | 1 << position
    every = (1 << len(a)) - 1
    row = every
    for token in b:
        matches = row & where.get(token, 0)
        row = (row + matches | row - matches) & every
    return len(a) - row.bit_count()


def chrf(answer: str, reference: str) -> float:
    """Character n-gram F-score (Popović 2015, "chrF"), by sacrebleu with its defaults, divided by 100."""
    return _chrf().sentence_score(answer, [reference]).score / 100


@functools.cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF  # 60 ms, wanted only where chrF is

    return CHRF()
