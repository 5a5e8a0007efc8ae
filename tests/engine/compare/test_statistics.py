"""The figures behind "unlikely to be luck": equal to scipy's, and intervals that cover what they claim."""

import numpy as np
import pytest

from engine.compare import statistics

stats = pytest.importorskip("scipy.stats")
RANDOM = np.random.default_rng(7)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (5, 0), (18, 41), (41, 18), (7, 7), (3, 4), (700, 640)])
def test_mcnemar_is_the_exact_binomial_test(wins, losses):
    expected = stats.binomtest(wins, wins + losses, 0.5).pvalue if wins + losses else 1.0
    assert statistics.mcnemar_test(wins, losses) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_agrees_on_random_tables():
    for wins, losses in RANDOM.integers(0, 300, size=(200, 2)).tolist():
        expected = stats.binomtest(wins, wins + losses, 0.5).pvalue if wins + losses else 1.0
        assert statistics.mcnemar_test(wins, losses) == pytest.approx(expected, rel=1e-9)


def test_holms_correction_is_the_step_down_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.5]) == [0.5]
    for _ in range(50):
        ps = RANDOM.random(6).tolist()
        by_hand, running = {}, 0.0
        for rank, p in enumerate(sorted(ps)):
            running = max(running, min(1.0, p * (6 - rank)))
            by_hand[p] = running
        assert statistics.holm(ps) == pytest.approx([by_hand[p] for p in ps])


def test_student_t_quantiles_agree():
    for freedom in (1, 2, 3, 5, 10, 30, 500):
        for p in (0.9, 0.975, 0.995):
            close = 0.005 if p < 0.99 else 0.1
            assert statistics.student_t(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), abs=close)


def test_the_sign_flip_test_agrees_with_scipys_permutation_test():
    for n in (6, 11, 40):
        for _ in range(5):
            d = RANDOM.normal(0.3, 1.0, n)
            expected = stats.permutation_test(
                (d,), lambda x, axis: x.sum(axis=axis), permutation_type="samples", vectorized=True,
                n_resamples=10_000, rng=1,
            ).pvalue  # fmt: skip
            found = statistics.sign_flip_test(d)
            assert found == pytest.approx(expected, abs=1e-9 if n <= 12 else 0.02)


def test_the_bootstrap_agrees_with_the_t_interval_where_that_is_exact():
    """On normal differences; scipy's own bootstrap is a little narrower there, never far off."""
    for n in (30, 200):
        d = RANDOM.normal(0.2, 1.0, n)
        found = statistics.paired_bootstrap(d)
        exact = stats.ttest_1samp(d, 0).confidence_interval(0.95)
        width = exact.high - exact.low
        assert (found.low, found.high) == (
            pytest.approx(exact.low, abs=0.08 * width),
            pytest.approx(exact.high, abs=0.08 * width),
        )
        scipys = stats.bootstrap((d,), np.mean, method="BCa", n_resamples=5000, rng=1).confidence_interval
        assert found.low == pytest.approx(scipys.low, abs=0.1 * width)
        assert found.estimate == pytest.approx(d.mean())


def test_weights_are_tokens():
    """The estimate is the difference of two losses per token; equal weights are no weights."""
    tokens = RANDOM.integers(2, 90, 150)
    first, second = RANDOM.gamma(2, 1, 150) * tokens, RANDOM.gamma(2, 0.9, 150) * tokens
    found = statistics.paired_bootstrap(second - first, tokens)
    assert found.estimate == pytest.approx(second.sum() / tokens.sum() - first.sum() / tokens.sum())
    assert found.low < found.estimate < found.high
    d = (second - first)[:60]
    assert statistics.paired_bootstrap(d * 3, [3] * 60).high == pytest.approx(statistics.paired_bootstrap(d).high)


def test_the_same_data_and_seed_give_the_same_interval():
    d = RANDOM.normal(size=80)
    assert statistics.paired_bootstrap(d) == statistics.paired_bootstrap(d)
    assert statistics.paired_bootstrap(d, seed=1) != statistics.paired_bootstrap(d)


def test_where_hardly_anything_differs_the_interval_is_finite_and_holds_zero():
    one = [0.0] * 49 + [0.5]
    found = statistics.paired_bootstrap(one)
    assert -0.05 < found.low < 0 < found.high < 0.05
    assert statistics.paired_bootstrap([0.0] * 50) == statistics.Interval(0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="examples"):
        statistics.paired_bootstrap([])


def test_no_disagreement_is_not_certainty():
    found = statistics.paired_proportions(0, 0, 50)
    assert found.estimate == 0 and found.low < -0.03 and found.high > 0.03


def _covered(intervals: list[statistics.Interval], true: float) -> float:
    return sum(i.low <= true <= i.high for i in intervals) / len(intervals)


def test_intervals_cover_what_they_claim():
    """95 %, within the Monte-Carlo error of 300 simulated data sets each (4 standard deviations: 5 points)."""
    rng = np.random.default_rng(3)
    simulations = 300
    found = {}
    for n in (30, 100):
        losses, graded, right = [], [], []
        for seed in range(simulations):
            tokens = rng.integers(5, 60, n)
            d = (rng.lognormal(0, 0.5, n) - 1.5) * tokens  # skewed, as losses are
            losses.append(statistics.paired_bootstrap(d, tokens, resamples=1000, seed=seed))
            d = rng.choice([-0.5, 0.0, 0.25, 0.5, 1.0], n, p=[0.1, 0.5, 0.2, 0.1, 0.1])
            graded.append(statistics.paired_bootstrap(d, resamples=1000, seed=seed))
            wins, lost, _ = rng.multinomial(n, [0.14, 0.08, 0.78])
            right.append(statistics.paired_proportions(int(wins), int(lost), n))
        found[n, "losses"] = _covered(losses, np.exp(0.125) - 1.5)
        found[n, "graded"] = _covered(graded, 0.15)
        found[n, "right"] = _covered(right, 0.06)
    assert all(0.90 <= share <= 0.995 for share in found.values()), found


def test_of_equal_models_one_in_twenty_is_taken_for_different_no_more():
    """500 tests: 25 expected, at most 44 with four standard deviations."""
    rng = np.random.default_rng(5)
    ps = [statistics.sign_flip_test(rng.standard_t(4, 40), resamples=500, seed=i) for i in range(500)]
    assert 8 <= sum(p < 0.05 for p in ps) <= 44
    tables = rng.multinomial(60, [0.15, 0.15, 0.7], size=500).tolist()
    assert sum(statistics.mcnemar_test(wins, losses) < 0.05 for wins, losses, _ in tables) <= 44


def test_the_needed_number_finds_the_difference_four_times_in_five():
    rng = np.random.default_rng(11)
    n = statistics.required_examples_for_proportions(30, 18, 400)
    tables = rng.multinomial(n, [30 / 400, 18 / 400, 352 / 400], size=400).tolist()
    found = sum(statistics.mcnemar_test(wins, losses) < 0.05 for wins, losses, _ in tables) / 400
    assert 0.72 <= found <= 0.88
    sample = rng.normal(0.1, 1.0, 400)
    n = statistics.required_examples_for_means(sample)
    ts = stats.ttest_1samp(rng.normal(sample.mean(), sample.std(ddof=1), (400, n)), 0, axis=1).pvalue
    assert 0.72 <= (ts < 0.05).mean() <= 0.88
    assert statistics.required_examples_for_proportions(5, 5, 50) is None
    assert statistics.required_examples_for_means([0.0] * 10) is None
