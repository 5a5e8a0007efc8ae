"""Advice before a run, each piece with its reason and where that is from. A pure function of facts."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from engine.base.messages import msg
from engine.base.units import plain_number

FEW, SOME = 50, 500


@dataclass(frozen=True)
class DatasetStats:
    """What is known of data and settings once the data has been read."""

    examples: int
    longest: int
    max_length: int
    median_tokens: float
    epochs: float
    learning_rate: float
    method: str
    objective: str = "sft"
    labels: int = 0
    """Labels of classification data, else 0."""
    duplicates: int = 0
    """Training examples that are an earlier one again, token for token."""
    contradictions: int = 0
    """Training examples whose prompt occurs with another answer too."""
    overlong: int = 0
    cut_tokens: int = 0
    cut_supervised: int = 0
    skips_overlong: bool = False
    skipped: int = 0
    validation: int = 0
    median_answer_tokens: float | None = None
    """Trained tokens of an example."""
    same_answer: float = 0.0
    """Share of the examples that have the most frequent answer, whatever the prompt."""
    dated: float = 0.0
    """Share of the examples whose text asks for what changes: today's prices, versions, dates, opening hours."""


@dataclass(frozen=True)
class Advice:
    code: str
    """For programs: 'too-few', 'duplicates', ..."""
    message: str
    reason: str
    source: str


_LIMA = "Zhou et al. 2023, LIMA (arXiv 2305.11206): a thousand careful examples were enough for style and format"
_OPENAI = "OpenAI's fine-tuning guide: improvements from 50 to 100 examples; at least 10"
_FORGETS = "Biderman et al. 2024, LoRA Learns Less and Forgets Less (arXiv 2405.09673)"
_DEDUPLICATION = "Lee et al. 2022, Deduplicating Training Data Makes Language Models Better (arXiv 2107.06499)"
_NEW_FACTS = (
    "Gekhman et al. 2024 (arXiv 2405.05904): new facts are learned slowly and raise hallucination; Ovadia et al. 2023 "
    "(arXiv 2312.05934): retrieval beats fine-tuning for knowledge"
)


def advise(facts: DatasetStats) -> list[Advice]:
    """What a careful colleague would say, most important first; empty where there is nothing to say."""
    advice: list[Advice] = []

    def say(code: str, message: str, reason: str, source: str) -> None:
        advice.append(Advice(code, message, reason, source))

    _about_size(facts, say)
    _about_rows(facts, say)
    _about_lengths(facts, say)
    advice += advise_settings(facts.learning_rate, facts.epochs, facts.method, facts.objective)
    _about_validation(facts, say)
    _about_the_tool(facts, say)
    return advice


def _about_size(facts: DatasetStats, say: Callable[[str, str, str, str], None]) -> None:
    if facts.objective == "pretrain":
        return
    if facts.examples < FEW:
        say(
            "too-few",
            msg(
                "{examples:,} examples are too few: aim for {few} at least, {some} for something reliable.",
                examples=facts.examples,
                few=FEW,
                some=SOME,
            ),
            "With so few the model learns them by heart before it learns what they have in common; a prompt with some "
            "of them as examples is likely to do as well.",
            _OPENAI,
        )
    elif facts.examples < SOME:
        say(
            "few",
            msg(
                "{examples:,} examples are enough for a try; {some} to 1,000 are good.",
                examples=facts.examples,
                some=SOME,
            ),
            "Style and format are learned from a few hundred; accuracy on a task keeps growing with more.",
            _LIMA,
        )


def _about_rows(facts: DatasetStats, say: Callable[[str, str, str, str], None]) -> None:
    if facts.duplicates > 0.05 * facts.examples:
        say(
            "duplicates",
            msg(
                "{duplicates:,} of {examples:,} examples are exact repeats of others ({duplicates_share:.0%}).",
                duplicates=facts.duplicates,
                examples=facts.examples,
                duplicates_share=facts.duplicates / facts.examples,
            ),
            "They count as more epochs on these rows alone. `finetop data check` lists them.",
            _DEDUPLICATION,
        )
    if facts.contradictions > max(2, 0.02 * facts.examples):
        say(
            "contradictions",
            msg(
                "{contradictions:,} examples answer a prompt that others answer differently.",
                contradictions=facts.contradictions,
            ),
            "The loss then has a floor no training gets below, and the model answers at random between them. It is as "
            "it should be only where several answers are right.",
            "Northcutt et al. 2021, Confident Learning (arXiv 1911.00068)",
        )
    if facts.labels == 0 and facts.same_answer > 0.5 and facts.examples >= 20:
        say(
            "one-answer",
            msg("{same_answer:.0%} of the examples have the very same answer.", same_answer=facts.same_answer),
            "Giving that answer always would already be right that often: look at the scores of the others alone, or "
            "balance the data.",
            "He and Garcia 2009, Learning from Imbalanced Data (IEEE TKDE 21:9)",
        )


def _about_lengths(facts: DatasetStats, say: Callable[[str, str, str, str], None]) -> None:
    if facts.overlong:
        lost = (
            msg("{skipped:,} are left out", skipped=facts.skipped)
            if facts.skips_overlong
            else msg(
                "{cut_tokens:,} tokens are cut, {cut_supervised:,} of them trained on",
                cut_tokens=facts.cut_tokens,
                cut_supervised=facts.cut_supervised,
            )
        )
        say(
            "overlong",
            msg(
                "{overlong:,} examples are longer than data.max_length {max_length:,}: {lost}.",
                overlong=facts.overlong,
                max_length=facts.max_length,
                lost=lost,
            ),
            "An answer without its end teaches the model not to stop. Raise data.max_length if memory allows, or split "
            "these rows.",
            "docs/data.md: what happens to long examples",
        )
    short = facts.median_answer_tokens is not None and facts.median_answer_tokens <= 8
    if facts.labels and short:
        say(
            "classifier",
            msg(
                "The answers are {labels:,} labels: a classifier on an embedding model may serve better.",
                labels=facts.labels,
            ),
            "It is a hundred times smaller, trains in minutes on a CPU and gives probabilities; try it beside this.",
            "Tunstall et al. 2022, SetFit (arXiv 2209.11055)",
        )
    elif facts.median_tokens < 12 and facts.examples:
        say(
            "short",
            msg("Half of the examples have fewer than {median_tokens:.0f} tokens.", median_tokens=facts.median_tokens),
            "So little text rarely says what is wanted. For labels or scores a classifier head may serve better.",
            "Tunstall et al. 2022, SetFit (arXiv 2209.11055)",
        )


def high_rate(method: str) -> float:
    """Above it a learning rate is called high."""
    return 1e-4 if method == "full" else 1e-3


def advise_settings(
    learning_rate: float | None, epochs: float | None, method: str, objective: str = "sft"
) -> list[Advice]:
    """What needs no data to be said; nothing of a rate or of epochs that are not known yet."""
    advice: list[Advice] = []
    if learning_rate is not None and learning_rate > high_rate(method):
        advice.append(
            Advice(
                "high-rate",
                msg(
                    "A rate of {learning_rate} is high for {method}; usual is {usual}.",
                    learning_rate=plain_number(learning_rate),
                    method=method,
                    usual="1e-5 to 5e-5" if method == "full" else "1e-4 to 5e-4",
                ),
                "What the model could do before is lost first, and the loss may jump. Keep some general prompts in "
                "eval.prompts and read their answers.",
                _FORGETS,
            )
        )
    if epochs is not None and epochs > 5 and objective == "sft":
        advice.append(
            Advice(
                "many-epochs",
                msg("{epochs:g} epochs: from the third on models mostly repeat the rows by heart.", epochs=epochs),
                "Watch the eval loss, keep save.keep_best, and set train.early_stopping.",
                "Ouyang et al. 2022, InstructGPT (arXiv 2203.02155): over-fits after one epoch, ratings gain for some "
                "more",
            )
        )
    return advice


def _about_validation(facts: DatasetStats, say: Callable[[str, str, str, str], None]) -> None:
    if facts.validation == 0:
        say(
            "no-validation",
            "There is no validation data: nothing will tell when the model starts to learn by heart.",
            "Set data.val_fraction or give --val-file.",
            "docs/data.md: how the split is made",
        )
    elif facts.validation < 100:
        margin = 1.96 * math.sqrt(0.25 / facts.validation)
        say(
            "small-validation",
            msg(
                "{validation:,} validation examples tell two runs apart only beyond about {margin:.0f} points.",
                validation=facts.validation,
                margin=100 * margin,
            ),
            "That is the 95% interval of a share near one half among so many. 400 examples bring it to 5 points.",
            "Card et al. 2020, With Little Power Comes Great Responsibility (arXiv 2010.06595)",
        )


def _about_the_tool(facts: DatasetStats, say: Callable[[str, str, str, str], None]) -> None:
    if facts.dated > 0.2:
        say(
            "facts-that-change",
            msg(
                "{dated:.0%} of the examples ask for what changes: dates, prices, versions, current events.",
                dated=facts.dated,
            ),
            "A model keeps what it was taught until it is trained again. Retrieval puts the present facts into the "
            "prompt; fine-tune for the form of the answer.",
            _NEW_FACTS,
        )
    simple = facts.labels in range(2, 6) and facts.examples < 200
    if simple and facts.median_answer_tokens is not None and facts.median_answer_tokens <= 8:
        say(
            "a-prompt",
            msg(
                "A choice among {labels:,} labels from {examples:,} examples: try a prompt first.",
                labels=facts.labels,
                examples=facts.examples,
            ),
            "An instruction-tuned model often does this from three examples a label, without training.",
            "Brown et al. 2020, Language Models are Few-Shot Learners (arXiv 2005.14165)",
        )
