"""Trained tokens are what the model must produce from the prompt at that turn until generation stops, or the row is
refused in words that are true: over generated templates and conversations, and over the shapes of the real ones."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from template_chats import chats, recipes
from template_oracle import Oracle
from template_recipes import DRESSES, Recipe, plain, source
from tokenizer_kit import tokenizer

from engine.records import Example
from engine.worker.template import ChatTemplate

_SHARED = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": False,
}


def verdict(recipe: Recipe, example: Example) -> str:
    text = source(recipe)
    tokens = tokenizer(DRESSES[recipe.dress].family)
    tokens.chat_template = plain(text)
    template = ChatTemplate(tokens)
    (outcome,) = template.encode_chats([example])
    return Oracle(tokens, text).check(template, example, outcome)


def over_many(count: int) -> Counter:
    seen: Counter = Counter()

    @settings(max_examples=count, **_SHARED)
    @given(recipe=recipes(), example=chats())
    def check(recipe: Recipe, example: Example) -> None:
        seen[verdict(recipe, example)] += 1

    check()
    return seen


def test_generated_conversations_in_generated_templates_are_trained_as_they_are_asked_or_refused_truly() -> None:
    over_many(300)


@pytest.mark.long
def test_ten_thousand_of_them() -> None:
    over_many(10_000)
