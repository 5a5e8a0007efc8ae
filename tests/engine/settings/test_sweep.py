"""A sweep makes the runs that were meant, names them for what varies, and tells every mistake at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import ConfigError, InputError
from engine.settings import sweep
from engine.settings.resolve import Layer


def test_a_grid_is_every_combination_in_order():
    varied = [sweep.parse_varied("learning_rate=1e-4,5e-5"), sweep.parse_varied("lora.r=8,16")]
    assert sweep.grid(varied) == [
        {"optim.learning_rate": 1e-4, "lora.r": 8},
        {"optim.learning_rate": 1e-4, "lora.r": 16},
        {"optim.learning_rate": 5e-5, "lora.r": 8},
        {"optim.learning_rate": 5e-5, "lora.r": 16},
    ]


@pytest.mark.parametrize(
    ("text", "path", "choices"),
    [
        ("epochs=1,2", "train.epochs", (1, 2)),
        ("batch-size=4", "train.batch_size", (4,)),
        ("seed=1,1,2", "train.seed", (1, 2)),
        ("kind=lora,full", "method.kind", ("lora", "full")),
        ('targets=["q_proj","v_proj"],"all-linear"', "lora.targets", (["q_proj", "v_proj"], "all-linear")),
        ("dora=true,false", "lora.dora", (True, False)),
        ("name=实验,对照", "run.name", ("实验", "对照")),
    ],
)
def test_settings_go_by_short_names_and_values_are_typed(text, path, choices):
    assert sweep.parse_varied(text) == sweep.Varied(path, choices)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rate", "expected key=value"),
        ("=1", "expected key=value"),
        ("every=1,2", "several settings are called 'every'"),
        ("r=a..b", "is no range"),
        ("r=64..4", "is no range"),
        ("learning_rate=0..1:log", "begins above 0"),
        ("r=1.5..3", "whole ends"),
        ("r=1..3:lin", "is no range"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(text, words):
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        sweep.parse_varied(text)


def test_a_range_needs_a_number_of_draws_and_a_grid_a_sane_size():
    with pytest.raises(InputError, match="how many values"):
        sweep.grid([sweep.parse_varied("r=4..64")])
    with pytest.raises(InputError, match="more than 10,000"):
        sweep.grid(
            [sweep.parse_varied(f"{key}={','.join(map(str, range(1, 200)))}") for key in ("r", "seed", "epochs")]
        )
    with pytest.raises(InputError, match="only 4 combinations"):
        sweep.draw([sweep.parse_varied("r=1,2"), sweep.parse_varied("epochs=1,2")], 5, seed=0)
    with pytest.raises(InputError, match="only 3 different"):
        sweep.draw([sweep.parse_varied("r=1..3")], 9, seed=0)


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_draws_lie_in_their_ranges_differ_and_repeat_with_their_seed(seed, count):
    varied = [sweep.parse_varied(t) for t in ("learning_rate=1e-5..1e-3:log", "r=4..64:log", "kind=lora,qlora")]
    drawn = sweep.draw(varied, count, seed)
    assert drawn == sweep.draw(varied, count, seed)
    assert len({str(one) for one in drawn}) == count
    for one in drawn:
        assert 1e-5 <= one["optim.learning_rate"] <= 1e-3
        assert isinstance(one["lora.r"], int) and 4 <= one["lora.r"] <= 64
        assert one["method.kind"] in ("lora", "qlora")


def test_a_logarithmic_range_is_drawn_from_evenly_in_its_logarithm():
    drawn = sweep.draw([sweep.parse_varied("learning_rate=1e-5..1e-3:log")], 400, seed=3)
    below = sum(one["optim.learning_rate"] < 1e-4 for one in drawn)
    assert 160 < below < 240


def test_runs_are_named_for_what_varies_and_know_where_it_came_from():
    made = sweep.runs([Layer("--epochs", {"train.epochs": 3})], [{"lora.r": 8, "data.seed": 1}], "--grid")
    assert made[0].config.run.name == "r=8 seed=1"
    assert made[0].config.train.epochs == 3
    assert (made[0].origin["lora.r"], made[0].origin["train.epochs"]) == ("--grid", "--epochs")
    both = sweep.runs([], [{"data.seed": 1, "train.seed": 2}], "--grid")
    assert both[0].config.run.name == "data.seed=1 train.seed=2"


def test_names_begin_with_what_differs_in_the_words_people_use():
    varied = [
        sweep.parse_varied("lr=2e-3,1e-05,0.05"),
        sweep.parse_varied("lora.r=16"),
        sweep.parse_varied("name=对照"),
    ]
    names = [one.config.run.name for one in sweep.runs([], sweep.grid(varied), "--grid")]
    assert names == ["lr=2e-3 r=16 对照", "lr=1e-5 r=16 对照", "lr=0.05 r=16 对照"]


def test_every_mistake_of_every_run_is_told_once():
    with pytest.raises(ConfigError) as told:
        sweep.runs([Layer("--set", {"lr": 1})], [{"lora.r": 0}, {"lora.r": -1}, {"lora.dropout": 2}], "--grid")
    assert len(told.value.problems) == 4
    assert sum("there is no setting 'lr'" in problem for problem in told.value.problems) == 1
