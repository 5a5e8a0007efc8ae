"""Is the difference real: two subjects' predictions on the same examples, and what they prove, in words."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.base.messages import msg, msg_n
from engine.compare import statistics
from engine.compare.comparison_records import Comparison, Evidence
from engine.metrics.names import lower_is_better, metric_name
from engine.runs.evaluation_folder import Prediction, by_example, read_predictions

_SURE = 1 - statistics.LEVEL
_FEW = 10
"""Below so many examples no interval is worth printing as evidence."""


@dataclass(frozen=True, slots=True)
class _Pairs:
    """One metric of two subjects, example by example."""

    key: str
    first: int
    second: int
    firsts: Sequence[float]
    seconds: Sequence[float]
    weights: Sequence[float]
    """Tokens for losses, else ones."""

    @property
    def right_or_wrong(self) -> bool:
        return self.key != "loss" and set(self.firsts) | set(self.seconds) <= {0.0, 1.0}


def with_evidence(comparison: Comparison, *, resamples: int = statistics.RESAMPLES, seed: int = 0) -> Comparison:
    """The comparison with each pair's metrics tested on the examples that both were evaluated on.

    Takes tenths of a second: reads the predictions and resamples them. The same predictions and seed give the same
    figures.
    """
    pairs, notes = _paired(comparison)
    evidence: list[Evidence] = []
    for key in dict.fromkeys(pair.key for pair in pairs):
        evidence += _evidence(comparison, [pair for pair in pairs if pair.key == key], resamples, seed)
    notes += _seed_variance(comparison, evidence)
    return dataclasses.replace(comparison, evidence=tuple(evidence), notes=(*comparison.notes, *notes))


def _seed_variance(comparison: Comparison, evidence: Sequence[Evidence]) -> list[str]:
    """A sure difference between two seeds of one setting is a measure of what a seed alone can do."""
    notes = []
    for members in dict.fromkeys(group.members for group in comparison.groups):
        sure = {
            metric_name(f"eval/{piece.key}")
            for piece in evidence
            if piece.p < _SURE and {piece.first, piece.second} <= set(members)
        }
        if sure:
            who = ", ".join(comparison.subjects[i].letter for i in members)
            notes.append(
                msg(
                    "{who} differ in their seed alone, and yet surely in {sure}: that is the luck of "
                    "training. Another setting must differ by more than this to be the reason.",
                    who=who,
                    sure=", ".join(sorted(sure)),
                )
            )
    return notes


def _paired(comparison: Comparison) -> tuple[list[_Pairs], list[str]]:
    read: dict[Path, dict[tuple[str, int], Prediction]] = {}
    for folder in comparison.evaluations:
        if folder is not None and folder not in read:
            read[folder] = by_example(read_predictions(folder))
    paired: list[_Pairs] = []
    notes: list[str] = []
    letters = [subject.letter for subject in comparison.subjects]
    by_subject = [read.get(folder, {}) if folder else {} for folder in comparison.evaluations]
    without = [subject for subject, kept in zip(comparison.subjects, by_subject, strict=True) if not kept]
    if without:
        notes.append(
            msg_n(
                "{letters} has no predictions kept, so how sure the differences are cannot be said: finetop eval "
                "{names} --data FILE makes them.",
                "{letters} have no predictions kept, so how sure the differences are cannot be said: finetop eval "
                "{names} --data FILE makes them.",
                len(without),
                letters=" and ".join(subject.letter for subject in without),
                names=", ".join(subject.asked for subject in without),
            )
        )
    for first, second in itertools.combinations(range(len(letters)), 2):
        a, b = by_subject[first], by_subject[second]
        if not a or not b:
            continue
        common = [key for key in a if key in b]
        who = f"{letters[first]} and {letters[second]}"
        if len(common) < _FEW:
            few = msg("{who} have {common:,} examples in common: too few to judge.", who=who, common=len(common))
            notes.append(few)
            continue
        if len(common) < max(len(a), len(b)):
            notes.append(
                msg(
                    "{who} have {common:,} of {examples:,} examples in common; only these count.",
                    who=who,
                    common=len(common),
                    examples=max(len(a), len(b)),
                )
            )
        pairs = [(a[key], b[key]) for key in common]
        if loss := _losses(pairs, first, second, who, notes):
            paired.append(loss)
        names = dict.fromkeys(name for key in common for name in a[key].scores)
        for name in names:
            scored = [(x.scores[name], y.scores[name]) for x, y in pairs if name in x.scores and name in y.scores]
            if len(scored) >= _FEW:
                firsts, seconds = zip(*scored, strict=True)
                paired.append(_Pairs(name, first, second, firsts, seconds, [1.0] * len(scored)))
    return paired, notes


def _losses(
    pairs: Sequence[tuple[Prediction, Prediction]], first: int, second: int, who: str, notes: list[str]
) -> _Pairs | None:
    with_loss = [
        (a.loss, b.loss, a.tokens, b.tokens)
        for a, b in pairs
        if a.loss is not None and b.loss is not None and a.tokens and b.tokens
    ]
    if len(with_loss) < _FEW:
        return None
    if any(tokens != other_tokens for *_, tokens, other_tokens in with_loss):
        notes.append(
            msg("{who} cut the same answers into other tokens, so their losses per token cannot be compared.", who=who)
        )
        return None
    firsts, seconds, tokens, _ = zip(*with_loss, strict=True)
    return _Pairs("loss", first, second, firsts, seconds, tokens)


@dataclass(frozen=True, slots=True)
class _PairTest:
    """What one pair's examples say before the p values of a metric are corrected together."""

    pair: _Pairs
    interval: statistics.Interval
    p: float
    test: str
    required_examples: int | None
    wins: int | None = None
    losses: int | None = None


def _test(pair: _Pairs, resamples: int, seed: int) -> _PairTest:
    differences = [b - a for a, b in zip(pair.firsts, pair.seconds, strict=True)]
    if pair.right_or_wrong:
        examples, wins, losses = len(differences), differences.count(1.0), differences.count(-1.0)
        interval = statistics.paired_proportions(wins, losses, examples)
        required = statistics.required_examples_for_proportions(wins, losses, examples)
        return _PairTest(pair, interval, statistics.mcnemar_test(wins, losses), "McNemar", required, wins, losses)
    interval = statistics.paired_bootstrap(differences, pair.weights, resamples=resamples, seed=seed)
    p = statistics.sign_flip_test(differences, resamples=resamples, seed=seed)
    return _PairTest(pair, interval, p, "sign flip", statistics.required_examples_for_means(differences, pair.weights))


def _evidence(comparison: Comparison, pairs: Sequence[_Pairs], resamples: int, seed: int) -> list[Evidence]:
    """One metric's pairs, their p values corrected together."""
    tests = [_test(pair, resamples, seed) for pair in pairs]
    corrected = statistics.holm([test.p for test in tests])
    return [_concluded(comparison, test, p, len(pairs)) for test, p in zip(tests, corrected, strict=True)]


def _concluded(comparison: Comparison, test: _PairTest, p: float, comparisons: int) -> Evidence:
    pair, interval, required = test.pair, test.interval, test.required_examples
    total, examples = math.fsum(pair.weights), len(pair.firsts)
    evidence = Evidence(
        key=pair.key,
        first=pair.first,
        second=pair.second,
        examples=examples,
        values=(math.fsum(pair.firsts) / total, math.fsum(pair.seconds) / total),
        difference=interval.estimate,
        low=interval.low,
        high=interval.high,
        p=p,
        test=test.test,
        wins=test.wins,
        losses=test.losses,
        needed=None if p < _SURE or required is None else max(required, examples + 1),
        sentence="",
    )
    first, second = (comparison.subjects[i].letter for i in (pair.first, pair.second))
    return dataclasses.replace(evidence, sentence=describe(evidence, first, second, comparisons))


def describe(evidence: Evidence, first: str, second: str, comparisons: int = 1) -> str:
    """What one piece of evidence says, for readers who have never heard of a p value."""
    lower = lower_is_better(evidence.key) is True
    second_is_better = evidence.difference != 0 and (evidence.difference < 0) == lower
    better, worse = (second, first) if second_is_better else (first, second)
    name = metric_name(f"eval/{evidence.key}")
    chance = p_text(evidence.p) + (
        msg(" after Holm's correction for {comparisons} comparisons", comparisons=comparisons)
        if comparisons > 1
        else ""
    )
    if evidence.wins is not None and evidence.losses is not None:
        more, fewer = max(evidence.wins, evidence.losses), min(evidence.wins, evidence.losses)
        observed = msg(
            "on {more:,} of {examples:,} questions, worse on {fewer:,}",
            more=more,
            examples=evidence.examples,
            fewer=fewer,
        )
        brief = msg("{better} is better on {more:,}, worse on {fewer:,}", better=better, more=more, fewer=fewer)
        is_better = (
            msg("{better} is better than {worse}", better=better, worse=worse)
            if comparisons > 1
            else msg("{better} is better", better=better)
        )
    else:
        sign = 1 if evidence.difference > 0 else -1
        low, high = sorted((sign * evidence.low, sign * evidence.high))
        span = msg("95% interval {low:.2g} to {high:.2g}", low=low, high=high)
        observed = msg(
            "by {difference:.3g} ({span}) over {examples:,} examples",
            difference=abs(evidence.difference),
            span=span,
            examples=evidence.examples,
        )
        is_better = f"{better} is {'lower' if lower else 'higher'}{f' than {worse}' if comparisons > 1 else ''}"
        brief = f"{is_better} by {abs(evidence.difference):.2g}, {span}"
    if evidence.p < _SURE:
        return msg(
            "{name}: {is_better} {observed}: unlikely to be luck, {chance}.",
            name=name,
            is_better=is_better,
            observed=observed,
            chance=chance,
        )
    unsure = msg(
        "{name}: {first} and {second} cannot be told apart with {examples:,} examples",
        name=name,
        first=first,
        second=second,
        examples=evidence.examples,
    )
    if not evidence.difference:
        return msg("{unsure}: no difference was seen.", unsure=unsure)
    return msg(
        "{unsure} ({brief}, {chance}); {needed} would be needed.",
        unsure=unsure,
        brief=brief,
        chance=chance,
        needed=_required_text(evidence.needed),
    )


def p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.095 else f"p = {p:.2f}"


def _required_text(needed: int | None) -> str:
    if needed is None or needed > 1_000_000:
        return "more than a million"
    digits = 10 ** max(0, len(str(needed)) - 2)
    return f"about {math.ceil(needed / digits) * digits:,}"
