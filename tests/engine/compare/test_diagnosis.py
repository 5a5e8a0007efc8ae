"""What drawn curves are said to show: each fault by its name, and nothing where there is none."""

import dataclasses
import math
import random

import pytest

from engine.compare.comparison_records import Finding
from engine.compare.diagnosis import diagnose
from engine.store.run_records import Column


def drawn(level, steps=1000, count=100, noise=0.05, seed=1, spikes=()):
    """A training loss as its chart has it: so many columns, each of several noisy points."""
    rng = random.Random(seed)
    width = steps // count
    columns = []
    for index in range(count):
        points = [level(index * width + i) + noise * rng.gauss(0, 1) for i in range(width)]
        if index in spikes:
            points[0] = 8 * level(index * width)
        finite = [point for point in points if math.isfinite(point)]
        columns.append(
            Column(
                x=index * width,
                first_step=index * width,
                last_step=(index + 1) * width - 1,
                low=min(finite, default=None),
                high=max(finite, default=None),
                mean=sum(finite) / len(finite) if finite else None,
                count=width,
                nonfinite=width - len(finite),
            )
        )
    return columns


def evaluated(*values, every=100):
    return [Column(i * every, i * every, i * every, v, v, v, 1, 0) for i, v in enumerate(values, 1)]


def findings(train, *, finished=True, share_done=1.0, **evaluations):
    named = {f"eval/{name}": columns for name, columns in evaluations.items()}
    return diagnose(train, named, finished=finished, share_done=share_done)


def learning(step):
    return 2 * math.exp(-step / 200) + 0.5


FLAT_AFTER = evaluated(1.2, 0.8, 0.6, 0.55, 0.540, 0.539, 0.5385, 0.5385, 0.5384, 0.5384)


def test_a_run_that_has_learned_and_settled_has_no_fault():
    for seed in range(20):
        assert findings(drawn(learning, seed=seed, noise=0.2), loss=FLAT_AFTER) == ()


def test_heavy_noise_is_not_taken_for_a_fault():
    for seed in range(20):
        assert (
            findings(drawn(lambda step: 0.4 + 2 * math.exp(-step / 100), noise=0.3, seed=seed), loss=FLAT_AFTER) == ()
        )


def test_over_fitting_names_the_best_step_and_the_rise():
    rising = evaluated(1.2, 0.8, 0.6, 0.62, 0.66, 0.71, 0.75)
    (found,) = findings(drawn(learning, steps=700), loss=rising)
    assert found.finding is Finding.OVER_FITTING
    assert "lowest at step 300 (0.6)" in found.reason and "25% to 0.75" in found.reason
    assert "best checkpoint" in found.advice


def test_one_evaluation_slightly_above_the_best_is_chance():
    assert findings(drawn(learning), loss=evaluated(1.2, 0.8, 0.6, 0.590, 0.5895, 0.5894, 0.5893, 0.5897, 0.6)) == ()


def test_validation_that_rises_with_the_training_loss_is_no_over_fitting():
    train = drawn(lambda step: learning(step) if step < 500 else 0.6 + (step - 500) / 150)
    found = findings(train, loss=evaluated(1.2, 0.8, 0.7, 0.66, 0.65, 1.2, 1.9, 2.6, 3.0, 3.5))
    assert [diagnosis.finding for diagnosis in found] == [Finding.DIVERGING]


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_climbs_back_diverges(seed):
    train = drawn(lambda step: learning(step) if step < 600 else learning(600) + (step - 600) / 100, seed=seed)
    (found,) = findings(train)
    assert found.finding is Finding.DIVERGING and "learning_rate" in found.advice
    step = int(found.reason.split("near step ")[1].split(" ")[0].replace(",", ""))
    assert 400 <= step <= 620


def test_a_loss_that_is_no_number_diverges():
    (found,) = findings(drawn(lambda step: learning(step) if step < 950 else math.nan))
    assert found.finding is Finding.DIVERGING and "near step 950" in found.reason


def test_leaps_are_unstable_and_one_leap_is_not():
    (found,) = findings(drawn(learning, spikes=(30, 50, 70, 90)), loss=FLAT_AFTER)
    assert found.finding is Finding.UNSTABLE and "leaps 4 times" in found.reason
    assert findings(drawn(learning, spikes=(50,)), loss=FLAT_AFTER) == ()


def test_leaps_far_below_what_was_learned_are_no_instability():
    def learned_by_heart(step):
        return 7 * math.exp(-step / 40) + 0.002

    train = drawn(learned_by_heart, noise=0.0002)
    leapt = [
        dataclasses.replace(column, high=0.25) if column.first_step in range(500, 1000, 50) else column
        for column in train
    ]
    told = {diagnosis.finding for diagnosis in findings(leapt, loss=FLAT_AFTER)}
    assert Finding.UNSTABLE not in told
    far = [
        dataclasses.replace(column, high=3.0) if column.first_step in range(500, 1000, 50) else column
        for column in train
    ]
    assert Finding.UNSTABLE in {diagnosis.finding for diagnosis in findings(far, loss=FLAT_AFTER)}


def test_a_validation_loss_at_its_lowest_and_falling_is_still_improving():
    falling = evaluated(1.2, 1.0, 0.9, 0.8, 0.72, 0.66, 0.61, 0.57)
    (done,) = findings(drawn(learning), loss=falling)
    (going,) = findings(drawn(learning), loss=falling, finished=False, share_done=0.5)
    assert done.finding is going.finding is Finding.STILL_IMPROVING
    assert "More epochs" in done.advice and "go on" in going.advice
    (named,) = diagnose(drawn(learning), {"eval/loss": falling}, finished=True, run_id=41)
    assert named.advice == "More epochs would probably help: finetop resume 41 --epochs N."
    assert "0.57, its lowest" in done.reason


def test_without_validation_the_training_loss_tells():
    (found,) = findings(drawn(lambda step: 3 - step / 500))
    assert found.finding is Finding.STILL_IMPROVING and "training loss fell" in found.reason


def test_a_loss_that_never_moved_is_under_fitting_unless_it_is_early():
    train = drawn(lambda step: 2.3 - step / 50_000)
    (found,) = findings(train, loss=evaluated(2.31, 2.305, 2.302, 2.30))
    assert found.finding is Finding.UNDER_FITTING and "2.296 at the beginning" in found.reason
    assert findings(train, finished=False, share_done=0.1) == ()


def test_answers_that_lose_their_form_are_told():
    (swinging,) = findings(drawn(learning), loss=FLAT_AFTER, json_valid=evaluated(0.9, 0.5, 0.95, 0.6, 0.9))
    assert swinging.finding is Finding.UNSTABLE_FORMAT and "0.90, 0.50, 0.95, 0.60, 0.90" in swinging.reason
    (lost,) = findings(drawn(learning), loss=FLAT_AFTER, json_valid=evaluated(0.5, 0.98, 0.97, 0.7))
    assert "fell from 0.98 to 0.70" in lost.reason
    assert findings(drawn(learning), loss=FLAT_AFTER, json_valid=evaluated(0.2, 0.7, 0.95, 0.99)) == ()
    assert findings(drawn(learning), loss=FLAT_AFTER, exact_match=evaluated(0.9, 0.5, 0.95, 0.6, 0.9)) == ()


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_too_little_to_judge_says_nothing(count):
    assert findings(drawn(learning, steps=10 * count, count=count) if count else []) == ()
    assert findings([], loss=evaluated(*[0.5] * min(count, 2))) == ()
