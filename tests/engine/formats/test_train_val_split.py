"""What finetop promises about validation splits and label sets."""

import pytest

from engine.base.errors import InputError
from engine.formats import example_key, label_set, split_examples
from engine.formats.examples import Example


def pair(prompt, answer="x", **more):
    return Example(messages=({"role": "user", "content": prompt}, {"role": "assistant", "content": answer}), **more)


def test_the_same_question_never_stands_on_both_sides_however_it_is_written():
    examples = [pair(f"Question {n}?", "a") for n in range(300)]
    examples += [pair(f"  QUESTION\u3000{n}？ ", "b") for n in range(300)]
    train, validation = split_examples(examples, 0.2, seed=1)
    assert len(train) + len(validation) == 600 and len(validation) % 2 == 0
    assert {example_key(e) for e in train}.isdisjoint(example_key(e) for e in validation)


def test_the_share_is_about_right_the_order_is_kept_and_the_seed_matters():
    examples = [pair(str(n), line=n) for n in range(5000)]
    train, validation = split_examples(examples, 0.1, seed=0)
    assert 400 < len(validation) < 600
    for side in (train, validation):
        assert [example.line for example in side] == sorted(example.line for example in side)
    assert split_examples(examples, 0.1, seed=0)[1] == validation
    assert split_examples(examples, 0.1, seed=7)[1] != validation


def test_adding_rows_moves_none_of_the_others():
    examples = [pair(str(n)) for n in range(1000)]
    before = set(example_key(e) for e in split_examples(examples[:500], 0.1)[1])
    after = set(example_key(e) for e in split_examples(examples, 0.1)[1])
    assert before <= after


def test_neither_side_is_empty_when_there_are_two_questions():
    two = [pair("a"), pair("b"), pair("a", "other")]
    for fraction in (1e-9, 0.5, 0.999999):
        for seed in range(20):
            train, validation = split_examples(two, fraction, seed)
            assert train and validation
    one = [pair("a"), pair("A")]
    assert split_examples(one, 0.9) == (tuple(one), ())
    assert split_examples(two, 0) == (tuple(two), ())
    assert split_examples([], 0.5) == ((), ())


def test_plain_text_is_split_by_its_text():
    assert example_key(Example(text="One  two")) == example_key(Example(text="one two"))
    assert example_key(Example(text="one")) != example_key(pair("one"))


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2])
def test_a_share_that_is_none_is_refused(fraction):
    with pytest.raises(InputError):
        split_examples([pair("a")], fraction)


def test_labels_are_found_for_classifications_only():
    rows = [pair(str(n), "even" if n % 2 == 0 else "odd") for n in range(10)]
    assert label_set(rows) == ("even", "odd")
    assert label_set([pair(str(n), str(n)) for n in range(10)]) is None
    assert label_set([pair("a", "x" * 65)] * 5 + rows) is None
    assert label_set([pair(str(n), "always") for n in range(10)]) is None
    assert label_set([*rows, Example(text="x")]) is None
    assert label_set([pair(str(n), str(n % 201)) for n in range(1000)]) is None
    assert label_set([]) is None
    two_turns = Example(messages=rows[0].messages * 2)
    assert label_set([*rows, two_turns]) is None
