"""All metrics by the names that settings and results use, and scoring a set of answers with the ones asked for.

Every score is kept per example as well, so that two models can be compared on the same examples; the score of a set is
the mean over its examples, but for macro-F1, which has no value for a single one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.metrics import classification, structured_output, text_overlap
from engine.metrics.reasoning import answer_of

GENERATED = ("exact_match", "contains", "rouge_l", "chrf", "json_valid", "json_schema", "number_match")
"""Scores of a generated answer."""
CLASSIFIED = ("accuracy", "macro_f1")
"""Scores of a classification, by the likelihood of the labels or by generating."""
METRICS = (*GENERATED, *CLASSIFIED)
DESCRIPTIONS = {
    "exact_match": "the answer equals the reference after the normalisation",
    "contains": "the reference stands in the answer after the normalisation",
    "rouge_l": "ROUGE-L, F1 of the longest common subsequence of words; of characters in Chinese",
    "chrf": "chrF, F-score of character n-grams",
    "json_valid": "the answer is a JSON object or array",
    "json_schema": "the answer is JSON that eval.schema allows",
    "number_match": "the final numbers are equal, as in GSM8K",
    "accuracy": "the right label",
    "macro_f1": "mean over the labels of F1",
}


@dataclass
class Answer:
    """One example's outcome."""

    reference: str | None
    text: str | None = None
    """What the model wrote; None: it was not asked to."""
    label: str | None = None
    """The label it chose; None where none was asked for, or where it wrote something else."""
    scores: dict[str, float] = field(default_factory=dict)


def score(
    answers: Sequence[Answer], metrics: Sequence[str], normalisation: str, schema: str = "", classified: bool = False
) -> dict[str, float]:
    """Fill in each answer's `scores` and return the means: `{"eval/exact_match": ...}`.

    Thoughts before an answer count on neither side. `classified`: labels were asked for, so an answer without one
    is a wrong one, and each has an accuracy, on which paired comparisons rest. A metric that no answer has a value
    for, such as number_match where no reference holds a number, is left out.
    """
    for answer in answers:
        if answer.reference is None:
            continue
        if answer.text is not None:
            predicted, reference = answer_of(answer.text), answer_of(answer.reference)
            for name in metrics:
                if name in GENERATED:
                    value = _one(name, predicted, reference, normalisation, schema)
                    if value is not None:
                        answer.scores[name] = value
        if classified:
            answer.scores["accuracy"] = float(answer.label == answer.reference)
    return means(answers, metrics, classified)


def means(answers: Sequence[Answer], metrics: Sequence[str], classified: bool) -> dict[str, float]:
    """Over answers that have been scored: all of them, or those of one source."""
    by_name: dict[str, float] = {}
    for name in metrics:
        values = [answer.scores[name] for answer in answers if name in answer.scores]
        if values:
            by_name[f"eval/{name}"] = sum(values) / len(values)
    if classified and "macro_f1" in metrics:
        pairs = [(answer.label, answer.reference) for answer in answers if answer.reference is not None]
        if pairs:
            by_name["eval/macro_f1"] = classification.macro_f1(*map(list, zip(*pairs, strict=True)))
    return by_name


def _one(name: str, answer: str, reference: str, normalisation: str, schema: str) -> float | None:
    match name:
        case "exact_match":
            return text_overlap.exact_match(answer, reference, normalisation)
        case "contains":
            return text_overlap.contains(answer, reference, normalisation)
        case "rouge_l":
            return text_overlap.rouge_l(answer, reference)
        case "chrf":
            return text_overlap.chrf(answer, reference)
        case "json_valid":
            return structured_output.json_valid(answer)
        case "json_schema":
            return structured_output.json_schema(answer, schema)
        case "number_match":
            return structured_output.number_match(answer, reference)
    raise KeyError(name)


def needs_text(metrics: Sequence[str]) -> bool:
    return any(name in GENERATED for name in metrics)


def needs_labels(metrics: Sequence[str]) -> bool:
    return any(name in CLASSIFIED for name in metrics)


def results_order(scores: Iterable[str]) -> list[str]:
    """Loss and perplexity first, then the metrics in the order they are documented in, then those of eval.command; each
    followed by what it is of the sources one by one."""
    order = ["eval/loss", "eval/perplexity", *(f"eval/{name}" for name in METRICS)]

    def place(key: str) -> tuple[int, str]:
        metric = key.partition("@")[0]
        return order.index(metric) if metric in order else len(order), key

    return sorted(scores, key=place)
