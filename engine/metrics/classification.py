"""Scores of a classification: predicted against true labels. A prediction that is no label at all is None."""

from collections import Counter
from collections.abc import Sequence

from engine.metrics.normalisation import normalise


def read_label(answer: str, labels: Sequence[str], normalisation: str = "case") -> str | None:
    """The label a written answer is, after the normalisation; None when it is none of them."""
    label_text = normalise(answer, normalisation)
    return next((label for label in labels if normalise(label, normalisation) == label_text), None)


def accuracy(predicted: Sequence[str | None], true: Sequence[str]) -> float:
    return sum(p == t for p, t in zip(predicted, true, strict=True)) / len(true)


def f1_by_label(predicted: Sequence[str | None], true: Sequence[str]) -> dict[str, float]:
    """2 TP / (2 TP + FP + FN) of every label that is true or predicted somewhere; no prediction counts as missed."""
    hits = Counter(t for p, t in zip(predicted, true, strict=True) if p == t)
    predicted_counts, true_counts = Counter(p for p in predicted if p is not None), Counter(true)
    return {
        label: 2 * hits[label] / (predicted_counts[label] + true_counts[label])
        for label in sorted(predicted_counts | true_counts)
    }


def macro_f1(predicted: Sequence[str | None], true: Sequence[str]) -> float:
    """The mean of the labels' F1, each label counting the same however rare."""
    by_label = f1_by_label(predicted, true)
    return sum(by_label.values()) / len(by_label)


def confusion(predicted: Sequence[str | None], true: Sequence[str]) -> dict[tuple[str, str | None], int]:
    """How often each (true, predicted) pair occurs; pairs that never do are left out."""
    return dict(Counter(zip(true, predicted, strict=True)))
