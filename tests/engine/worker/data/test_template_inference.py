"""Trained tokens are what the model must produce from the prompt at that turn until generation stops, or the row is
refused in words that are true: over generated templates and conversations, and over the shapes of the real ones."""

from collections import Counter
from collections.abc import Callable, Collection

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine.base.errors import DataError
from engine.formats.examples import Example
from engine.worker.data.chat_template import ChatTemplate, Encoded
from tests.engine.worker.data.template_chats import chats, recipes
from tests.engine.worker.data.template_faults import FAULTS
from tests.engine.worker.data.template_oracle import Oracle, Violation
from tests.engine.worker.data.template_recipes import DRESSES, Recipe, plain, sound, source
from tests.engine.worker.data.template_shapes import SHAPES
from tests.engine.worker.data.tokenizer_kit import tokenizer

_SHARED = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
_MOST_REFUSED = 0.45
"""Of generated cases, in which templates that refuse system prompts, calls or a second user in turn are frequent."""


def encoded(family: str, text: str, example: Example) -> tuple[ChatTemplate, Encoded | DataError]:
    tokens = tokenizer(family)
    tokens.chat_template = plain(text)
    template = ChatTemplate(tokens)
    return template, template.encode_chats([example])[0]


def verdict(family: str, text: str, example: Example) -> str:
    template, outcome = encoded(family, text, example)
    return Oracle(template.tokenizer, text).check(template, example, outcome)


def over_generated(count: int, phases: Collection[Phase] = tuple(Phase)) -> Counter:
    seen: Counter = Counter()

    @settings(max_examples=count, phases=phases, **_SHARED)
    @given(recipe=recipes(), example=chats())
    def check(recipe: Recipe, example: Example) -> None:
        seen[verdict(DRESSES[recipe.dress].family, source(recipe), example)] += 1

    check()
    return seen


def over_shapes(count: int) -> Counter:
    seen: Counter = Counter()

    @settings(max_examples=count, **_SHARED)
    @given(name=st.sampled_from(list(SHAPES)), example=chats())
    def check(name: str, example: Example) -> None:
        seen[verdict(SHAPES[name].family, SHAPES[name].source, example)] += 1

    check()
    return seen


def test_any_conversation_in_any_template_is_trained_as_it_is_asked_or_refused_truly() -> None:
    seen = over_generated(100)
    assert seen["refused"] < _MOST_REFUSED * seen.total()


def test_any_conversation_in_the_shapes_of_the_real_templates_too() -> None:
    seen = over_shapes(75)
    assert seen["refused"] < _MOST_REFUSED * seen.total()


_CALL = {"type": "function", "id": "call00000", "function": {"name": "look", "arguments": {"city": "zqfjwga"}}}
_CALLS = (
    {"role": "user", "content": "zqqqkga"},
    {"role": "assistant", "content": None, "tool_calls": [_CALL]},
    {"role": "tool", "content": "zqubiha", "tool_call_id": "call00000"},
    {"role": "assistant", "content": "zqjutha"},
)


@pytest.mark.parametrize("dress", ["chatml", "glm", "deepseek", "phi3", "mistral"])
@pytest.mark.parametrize("closing", ["end", "next header", "second if last"])
@pytest.mark.parametrize("prompt", ["always", "unasked"])
def test_a_header_that_nobody_asked_for_is_no_part_of_an_answer(dress: str, closing: str, prompt: str) -> None:
    for call_closing in ("same", "second", "none"):
        recipe = sound(Recipe(dress, closing, line_after=False, prompt=prompt, call_closing=call_closing, bos=False))
        for count in (2, 4):
            assert verdict(DRESSES[dress].family, source(recipe), Example(messages=_CALLS[:count])) != "refused"


@pytest.mark.parametrize("dress", ["chatml", "hermes", "glm", "llama3", "deepseek"])
@pytest.mark.parametrize("closing", ["end", "second if last", "second+end", "next header"])
def test_what_closes_a_call_ends_no_turn_where_a_template_writes_one_call_only(dress: str, closing: str) -> None:
    for prompt in ("header", "think", "always"):
        for call_closing in ("same", "second", "none"):
            recipe = Recipe(dress, closing, False, prompt, calls="first", call_closing=call_closing, bos=False)
            for count in (2, 4):
                verdict(DRESSES[dress].family, source(sound(recipe)), Example(messages=_CALLS[:count]))


@pytest.mark.parametrize("name", SHAPES)
def test_words_beside_a_call_that_come_last_are_trained_with_it_or_told(name: str) -> None:
    call = _CALL | {"function": {"name": "look", "arguments": {"city": "zqzmjla"}}}
    asked, said = (
        {"role": "user", "content": "zqkuxka"},
        {"role": "assistant", "content": "zqofvla", "tool_calls": [call]},
    )
    for messages in ((asked, said), (*_CALLS, asked, said), (asked, said, *_CALLS[2:])):
        verdict(SHAPES[name].family, SHAPES[name].source, Example(messages=messages))


@pytest.mark.long
def test_ten_thousand_of_them() -> None:
    seen = over_generated(7_500) + over_shapes(2_500)
    assert seen.total() >= 10_000 and seen["refused"] < _MOST_REFUSED * seen.total()


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_known_fault_is_found_when_it_is_put_back_into_the_code(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(Violation):
        over_generated(600, [Phase.generate])


STOPS = {
    "qwen2.5-base": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "glm4": "<|user|> <|observation|>",
    "glm4.5": "<|user|> <|observation|>",
    "llama3.1": "<|eot_id|>",
    "llama2": "</s>",
    "mistral3": "</s>",
    "gemma3": "<end_of_turn>",
    "gemma4": "<turn|> <|tool_response>",
    "deepseek3": "<｜end▁of▁sentence｜>",
    "r1": "<｜end▁of▁sentence｜>",
    "phi3": "<|end|>",
    "phi4-mini": "<|end|>",
    "command-r7b": "<|END_OF_TURN_TOKEN|>",
    "gpt-oss": "<|return|> <|call|>",
    "hermes": "<|im_end|>",
    "hunyuan": "<|eos|>",
}


@pytest.mark.parametrize("name", STOPS)
def test_answers_stop_at_what_the_template_ends_turns_with_and_at_the_end_token(name: str) -> None:
    tokens = tokenizer(SHAPES[name].family)
    tokens.chat_template = plain(SHAPES[name].source)
    stops = set(tokens.convert_ids_to_tokens(list(ChatTemplate(tokens).stop_token_ids)))
    assert stops == {*STOPS[name].split(), tokens.eos_token}
