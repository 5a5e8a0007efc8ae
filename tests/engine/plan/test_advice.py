"""Advice, time and cost: pure functions from facts to what is said."""

import dataclasses

import pytest

from engine.base.errors import InputError
from engine.plan import memory_estimate
from engine.plan.advice import DatasetStats, advise
from engine.plan.cost import cost, read_prices, user_prices
from engine.plan.throughput import PastRun, Speed, correction, duration, estimated_throughput, speed_of_past
from engine.runs.lr_schedule import evaluations_of
from engine.settings.resolve import Layer, resolve

SOUND = DatasetStats(
    examples=800,
    longest=900,
    max_length=2048,
    median_tokens=220,
    epochs=3,
    learning_rate=2e-4,
    method="lora",
    validation=400,
    median_answer_tokens=90,
)


def codes(**changes):
    return [piece.code for piece in advise(dataclasses.replace(SOUND, **changes))]


def test_where_nothing_is_wrong_nothing_is_said():
    assert advise(SOUND) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"examples": 49}, "too-few"),
        ({"examples": 499}, "few"),
        ({"duplicates": 100}, "duplicates"),
        ({"contradictions": 60}, "contradictions"),
        ({"same_answer": 0.7}, "one-answer"),
        ({"overlong": 3, "cut_tokens": 900, "cut_supervised": 500}, "overlong"),
        ({"labels": 12, "median_answer_tokens": 3}, "classifier"),
        ({"median_tokens": 7}, "short"),
        ({"learning_rate": 5e-3}, "high-rate"),
        ({"learning_rate": 5e-4, "method": "full"}, "high-rate"),
        ({"epochs": 10}, "many-epochs"),
        ({"validation": 0}, "no-validation"),
        ({"validation": 60}, "small-validation"),
        ({"dated": 0.4}, "facts-that-change"),
    ],
)
def test_each_fault_is_told_with_its_reason_and_source(changes, code):
    (piece,) = (one for one in advise(dataclasses.replace(SOUND, **changes)) if one.code == code)
    assert piece.message and piece.reason and piece.source
    assert codes(**changes) == [code]


def test_borders_are_where_they_are_said_to_be():
    assert codes(examples=50) == ["few"] and codes(examples=500) == []
    assert codes(duplicates=40) == [] and codes(contradictions=16) == []
    assert codes(epochs=5) == [] and codes(validation=100) == []
    assert codes(examples=10, objective="pretrain") == []
    assert "a-prompt" in codes(examples=150, labels=3, median_answer_tokens=2)


def test_small_validation_says_how_many_points_it_cannot_tell_apart():
    """1.96 * sqrt(0.25 / 96) = 10 points."""
    (piece,) = advise(dataclasses.replace(SOUND, validation=96))
    assert "10 points" in piece.message


# -- time ------------------------------------------------------------------------------------------------------------

PAST = [
    PastRun("m", "lora", 1000.0, "H100", 10_000, 11_000),
    PastRun("m", "lora", 3000.0, "H100", 10_000, 12_000),
    PastRun("m", "lora", 2000.0, "H100", 10_000, 13_000),
    PastRun("m", "lora", 9000.0, "cpu", None, None),
    PastRun("m", "full", 500.0, "H100", 10_000, 90_000),
]


def test_past_runs_of_the_same_model_method_and_device_tell_the_speed():
    speed = speed_of_past(PAST, "m", "lora", "H100")
    assert speed.tokens_per_second == 2000 and "3 runs" in speed.source
    assert speed_of_past(PAST, "m", "qlora", "H100") is None and speed_of_past(PAST, "other", "lora", "H100") is None


def test_measured_runs_correct_the_next_estimate_within_bounds():
    assert correction(PAST, "lora", "H100") == (1.2, 3)
    assert correction(PAST, "full", "H100") == (1.4, 1)
    assert correction(PAST, "lora", "cpu") == (1.0, 0)


def test_the_guess_follows_the_work_a_token_makes():
    """7.6B parameters less the embedding, 4 operations each for an adapter and 2 more recomputed, on 35 % of 989."""
    config = resolve(
        [Layer("t", {"model.name": "Qwen/Qwen2.5-7B", "train.activation_checkpointing": True})]
    ).config  # fmt: skip
    speed = estimated_throughput(config, memory_estimate(config), "NVIDIA H100 80GB HBM3")
    assert speed.tokens_per_second == pytest.approx(0.35 * 989e12 / (6 * 6.53e9 + 4 * 0.545e9), rel=0.05)
    assert "989" in speed.source and speed.factor == 2
    assert estimated_throughput(config, memory_estimate(config), "Unheard Of 9000").factor > 2


def test_evaluations_count_the_one_before_the_first_step_and_the_last():
    config = resolve([Layer("t", {"eval.every": 4})]).config
    assert evaluations_of(config, 10, 10) == 1 + 3
    assert evaluations_of(resolve([]).config, 10, 30) == 1 + 3
    took = duration(Speed(100.0, "", 1), 1000, 300, 4)
    assert took.training_seconds == 10 and took.evaluation_seconds == 4 and took.seconds == 14


# -- cost ------------------------------------------------------------------------------------------------------------


def test_electricity_at_the_users_price_and_the_same_tokens_at_openai():
    bill = cost(7200.0, 2_000_000, 500.0, "", read_prices(kwh=0.30))
    assert bill.kwh == 1.0 and bill.electricity == pytest.approx(0.30)
    assert bill.openai["gpt-4o-mini"] == pytest.approx(6.0) and bill.prices_as_of
    unknown = cost(7200.0, 2_000_000, None, "", read_prices())
    assert unknown.kwh is None and unknown.electricity is None


def test_the_users_own_prices_win_and_nonsense_is_named():
    path = user_prices()
    path.parent.mkdir(parents=True)
    path.write_text(
        '[electricity]\nkwh = 0.25\ncurrency = "EUR"\nwatts = 300\n[training_per_million_tokens]\n"new" = 2\n'
    )
    prices = read_prices()
    assert (prices.kwh, prices.currency, prices.watts) == (0.25, "EUR", 300)
    assert prices.training["new"] == 2 and "gpt-4o-mini" in prices.training
    assert read_prices(kwh=0.5).kwh == 0.5
    for wrong in ('[electricity]\nkwh = "much"\n', "electricity = 3\n", "not toml", "[electricity]\nkwh = -1\n"):
        path.write_text(wrong)
        with pytest.raises(InputError, match=r"prices\.toml"):
            read_prices()
