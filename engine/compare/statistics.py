"""How sure a difference between two models is, from their results on the same examples.

Pairing is what makes small differences visible: how hard an example is cancels out. Nothing here knows what a run is.

Intervals. Means of losses and graded scores: the paired bootstrap over examples, studentised (Efron 1981; Hesterberg
2015, "What Teachers Should Know About the Bootstrap"). Losses per token are skewed: a few long or strange examples
carry much of them, and there the percentile and BCa intervals are too short. In our simulations (20 to 300 examples,
log-normal differences) BCa covered 1 to 3 percentage points less than the studentised one, which comes closest to its
claim. Right or wrong: the adjusted Wald interval of Bonett and Price (2012), since with few disagreements the bootstrap
cannot know of those that happened not to occur: with none at all it would claim certainty.

Tests. Right or wrong: McNemar's, exact. All else: the sign-flip (paired permutation) test.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

LEVEL = 0.95
POWER = 0.8
RESAMPLES = 10_000
"""Leaves a Monte-Carlo error of 0.2 percentage points at the interval's ends (sqrt(0.025 * 0.975 / 10,000))."""
_MOST_DRAWS = 20_000_000
"""Examples times resamples: about half a second. Beyond 2,000 examples fewer resamples do."""
_FEWEST_RESAMPLES = 2_000
_CHUNK_DRAWS = 400_000
"""Drawn at once: 16 MB of moments."""
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the interval that covers the true value with probability LEVEL."""

    estimate: float
    low: float
    high: float


def paired_bootstrap(
    differences: Any, weights: Any = None, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The interval of sum(differences) / sum(weights), resampling examples (studentised).

    `differences`, shape (examples,): what each example adds to the difference, such as its summed loss by one model
    less that by the other. `weights`: its tokens; None for a plain mean. Raises ValueError without examples.
    """
    import numpy as np  # 0.1 s, and 25 MB, which a screen need not pay

    d = np.asarray(differences, dtype=float)
    n = len(d)
    w = None if weights is None or len(set(weights)) == 1 else np.asarray(weights, dtype=float)
    scale = 1.0 if w is not None or weights is None or not n else float(weights[0])
    if n == 0 or scale <= 0 or (w is not None and w.sum() <= 0):
        raise ValueError("an interval needs examples")
    d = d / scale
    moments = np.stack([d, d * d] if w is None else [d, d * d, w, d * w, w * w], axis=1)
    estimate, error = (float(value) for value in _ratio(moments.sum(axis=0), n))
    if n == 1 or error <= 1e-12 * max(1.0, float(np.abs(d).max())):
        return Interval(estimate, estimate, estimate)
    means, errors = _ratio(_resampled(moments, _resamples(n, resamples), np.random.default_rng(seed)), n)
    usable = errors > 1e-6 * error
    if usable.mean() < 0.999:  # so few examples differ that some resamples hold none of them
        reach = student_t(1 - (1 - level) / 2, n - 1)
        return Interval(estimate, estimate - reach * error, estimate + reach * error)
    t = (means[usable] - estimate) / errors[usable]
    below, above = np.quantile(t, [(1 - level) / 2, 1 - (1 - level) / 2])
    return Interval(estimate, float(estimate - above * error), float(estimate - below * error))


def _ratio(sums: Any, n: int) -> tuple[Any, Any]:
    """The ratio and its standard error (linearised), from sums of moments in the last axis."""
    import numpy as np

    if sums.shape[-1] == 2:
        total, squares = sums[..., 0], sums[..., 1]
        mean, weight = total / n, n
        scatter = squares - mean * total
    else:
        total, squares, weight, products, weight_squares = (sums[..., i] for i in range(5))
        mean = total / weight
        scatter = squares - 2 * mean * products + mean**2 * weight_squares
    return mean, np.sqrt(np.maximum(scatter, 0.0) * n / max(n - 1, 1)) / weight


def _resampled(moments: Any, resamples: int, rng: Any) -> Any:
    """Sums of the moments over resampled examples, shape (resamples, moments)."""
    import numpy as np

    n = len(moments)
    kinds, counts = np.unique(moments, axis=0, return_counts=True)
    if len(counts) <= 64:  # graded scores take few values: draw how often each comes up
        return rng.multinomial(n, counts / n, size=resamples) @ kinds
    chunks = []
    at_once = max(1, _CHUNK_DRAWS // n)
    for start in range(0, resamples, at_once):
        index = rng.integers(0, n, size=(min(at_once, resamples - start), n), dtype=np.int32)
        chunks.append(moments[index].sum(axis=1))
    return np.concatenate(chunks)


def _resamples(n: int, most: int) -> int:
    return min(most, max(_FEWEST_RESAMPLES, _MOST_DRAWS // n))


def sign_flip_test(differences: Any, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p of the differences being as likely to fall the other way, each by itself; shape (examples,)."""
    import numpy as np

    d = np.asarray(differences, dtype=float)
    d = d[d != 0]
    if not len(d):
        return 1.0
    seen = abs(d.sum())
    n = len(d)
    tolerance = 1e-9 * np.abs(d).sum()  # sums in another order must not count as larger
    if n <= 12:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ d) >= seen - tolerance).mean())
    rng = np.random.default_rng(seed)
    resamples = _resamples(n, resamples)
    at_once = max(1, _CHUNK_DRAWS // n)
    larger = 0
    for start in range(0, resamples, at_once):
        flips = rng.integers(0, 2, size=(min(at_once, resamples - start), n), dtype=np.int8)
        larger += int((np.abs(d.sum() - 2 * (flips @ d)) >= seen - tolerance).sum())
    return (larger + 1) / (resamples + 1)


def mcnemar_test(wins: int, losses: int) -> float:
    """Two-sided exact p (McNemar 1947): would a fair coin split the disagreements so unevenly?"""
    n, fewer = wins + losses, min(wins, losses)
    if wins == losses:
        return 1.0
    term = total = 1
    for k in range(fewer):
        term = term * (n - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**n)


def paired_proportions(wins: int, losses: int, examples: int, *, level: float = LEVEL) -> Interval:
    """The interval of (wins - losses) / examples (adjusted Wald: Bonett and Price 2012)."""
    if examples <= 0:
        raise ValueError("an interval needs examples")
    up, down = (wins + 1) / (examples + 2), (losses + 1) / (examples + 2)
    middle = up - down
    reach = _NORMAL.inv_cdf(1 - (1 - level) / 2) * math.sqrt((up + down - middle**2) / (examples + 2))
    return Interval((wins - losses) / examples, max(-1.0, middle - reach), min(1.0, middle + reach))


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for being several (Holm 1979), in the order given."""
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


def required_examples_for_proportions(wins: int, losses: int, examples: int, *, power: float = POWER) -> int | None:
    """Examples with which McNemar's test would find such a difference with that power (Connor 1987).

    None when there is no difference to find.
    """
    difference, disagree = (wins - losses) / examples, (wins + losses) / examples
    if not difference:
        return None
    sure, strong = _NORMAL.inv_cdf(1 - (1 - LEVEL) / 2), _NORMAL.inv_cdf(power)
    root = sure * math.sqrt(disagree) + strong * math.sqrt(max(0.0, disagree - difference**2))
    return math.ceil((root / difference) ** 2)


def required_examples_for_means(differences: Any, weights: Any = None, *, power: float = POWER) -> int | None:
    """Examples with which a mean difference of this size and scatter would be found with that power; None if zero."""
    import numpy as np

    d = np.asarray(differences, dtype=float)
    w = np.ones(len(d)) if weights is None else np.asarray(weights, dtype=float)
    estimate = float(d.sum() / w.sum())
    if len(d) < 2 or not estimate:
        return None
    deviation = float((d - estimate * w).std(ddof=1) / w.mean())
    z = _NORMAL.inv_cdf(1 - (1 - LEVEL) / 2) + _NORMAL.inv_cdf(power)
    return math.ceil((z * deviation / estimate) ** 2)


def student_t(p: float, freedom: int) -> float:
    """The quantile of Student's t (Abramowitz and Stegun 26.7.5; exact below three degrees of freedom).

    Off by less than 0.004 for p = 0.975 from three degrees of freedom on.
    """
    if freedom == 1:
        return math.tan(math.pi * (p - 0.5))
    if freedom == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    z = _NORMAL.inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
