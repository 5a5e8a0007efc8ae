"""A prompt cut out of a conversation's rendering is the one that the template renders, whatever it does with its
messages; and it is cut wherever the template does nothing but write them one by one."""

import copy
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.base.errors import DataError
from engine.formats.examples import Example
from engine.worker.data.rendering import Rendering
from tests.engine.worker.data.template_chats import TOOLS, chats, recipes
from tests.engine.worker.data.template_recipes import Recipe, plain, source
from tests.engine.worker.data.template_shapes import SHAPES
from tests.engine.worker.data.tokenizer_kit import tokenizer

TALK = tuple(
    {"role": role, "content": f"{role} {number}"}
    for number, role in enumerate(("system", "user", "assistant", "user", "assistant", "user", "assistant"))
)
_SHARED = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
PROMPT = "{% if add_generation_prompt %}<assistant>{% endif %}"


def rendering_of(text: str, family: str = "qwen3") -> Rendering:
    tokens = copy.copy(tokenizer(family))
    tokens.chat_template = text
    return Rendering(tokens, datetime(2026, 1, 1))


def cut(rendering: Rendering, messages: tuple[dict, ...], tools: tuple[dict, ...] = ()) -> list[int]:
    """The messages whose prompts are cut, each compared with the one rendered."""
    try:
        text = rendering.text(messages, tools)
    except DataError as refused:
        with pytest.raises(DataError) as error:
            rendering.whole(messages, tools)
        assert error.value.message == refused.message
        return []
    whole = rendering.whole(messages, tools)
    assert whole.text == text
    for message in whole.cuts:
        prompt = rendering.text(messages[:message], tools, prompt=True)
        assert whole.prompt(message) == prompt
        assert whole.prompt_end(message) == (len(prompt) if text.startswith(prompt) else None)
    return list(whole.cuts)


def bare(example: Example) -> tuple[dict, ...]:
    return tuple({"role": m["role"], "content": m["content"] or "none"} for m in example.messages)


@settings(max_examples=120, **_SHARED)
@given(recipe=recipes(), example=chats(), is_bare=st.booleans())
def test_what_is_cut_is_what_is_rendered_by_generated_templates(
    recipe: Recipe, example: Example, is_bare: bool
) -> None:
    rendering = rendering_of(plain(source(recipe)))
    for _ in range(2):  # a template that is not followed the first time must be right the second, too
        cut(rendering, bare(example) if is_bare else example.messages, example.tools)


@settings(max_examples=80, **_SHARED)
@given(name=st.sampled_from(list(SHAPES)), example=chats())
def test_what_is_cut_is_what_is_rendered_by_the_shapes_of_the_real_ones(name: str, example: Example) -> None:
    cut(rendering_of(plain(SHAPES[name].source), SHAPES[name].family), bare(example), example.tools)


@pytest.mark.parametrize("name", ["hermes", "llama3.1", "phi3", "gemma3", "glm4"])
def test_templates_that_write_one_message_after_another_are_rendered_once(name: str) -> None:
    rendering = rendering_of(plain(SHAPES[name].source), SHAPES[name].family)
    assert {2, 4, 6} <= set(cut(rendering, TALK))


WRITE = "<{{ message.role }}>{{ message.content }}"


def looped(body: str, head: str = "{% for message in messages %}", behind: str = PROMPT) -> str:
    return head + body + "{% endfor %}" + behind


LOOP = looped(WRITE)
ALL = tuple(range(len(TALK)))
FOLLOWED = {
    LOOP: ALL,
    "{{ messages[0].content }}" + LOOP: ALL[1:],
    "{{ messages[3].content }}" + LOOP: ALL[4:],
    "{% set messages = messages[1:] %}{{ messages[0].content }}" + LOOP: ALL[2:],
    "{% set ns = namespace(n=0) %}" + looped("{% set ns.n = ns.n + 1 %}{{ ns.n }}" + WRITE): ALL,
    looped(WRITE + "{{ loop.first or loop.previtem.role == 'user' }}{{ loop.index }}{{ loop.cycle('a', 'b') }}"): ALL,
    looped("{{ messages[loop.index0].role }}"): ALL,
    looped("{% if loop.index0 == 3 %}{% break %}{% endif %}" + WRITE): ALL[:4],
}
LOOKING_AHEAD = {
    looped(WRITE + "{% if loop.index0 == 3 and loop.last %}!{% endif %}"): ALL[:4],
    looped(WRITE + "{% if loop['last'] %}!{% endif %}"): (0,),
    looped("{% set outer = loop %}{% if outer.last %}!{% endif %}" + WRITE): (0,),
    looped(WRITE + "{{ loop.revindex }}"): (0,),
    looped(WRITE + "{{ loop.length }}"): (0,),
    looped(WRITE + "{{ loop.nextitem is defined }}"): (0,),
    looped("{{ messages[loop.index0 - 1].role }}"): (0,),
    looped("{{ messages[loop.index0 + 1] is defined }}"): (0,),
    "{% macro end() %}{{ messages[-1].role }}{% endmacro %}"
    + looped(WRITE + "{% if message.content == 'user 3' %}{{ end() }}{% endif %}"): ALL[:4],
    looped(WRITE + "{% if add_generation_prompt %}?{% endif %}"): (0,),
    "{{ messages | length }}" + LOOP: (),
    "{% if messages %}x{% endif %}" + LOOP: (),
    "{{ messages[-1].content }}" + LOOP: (),
    "{{ messages[:2] | length }}" + LOOP: (),
    "{{ messages | map(attribute='role') | join(',') }}" + LOOP: (),
    "{{ (messages | last).content }}" + LOOP: (),
    "{% if {'role': 'x'} in messages %}x{% endif %}" + LOOP: (),
    looped(WRITE, "{% for message in messages[::-1] %}"): (),
    looped("{{ pair[0].role }}", "{% for pair in messages | batch(2) %}"): (),
    looped(WRITE, "{% for message in messages | rejectattr('role', 'equalto', 'system') %}"): (),
    looped(WRITE, "{% for message in messages if message.role != 'system' %}"): (),
    looped(WRITE + "{% else %}none"): (),
    "{% if true %}" + looped(WRITE, behind="") + "{% endif %}" + PROMPT: (),
    looped(WRITE, behind=LOOP): (),
}
AS_ONLY_A_LIST = [
    "{{ messages }}" + LOOP,
    "{{ messages | tojson }}" + LOOP,
    "{{ messages ~ '' }}" + LOOP,
    "{% if messages == [] %}x{% endif %}" + LOOP,
    looped(WRITE, "{% for message in messages + [{'role': 'x', 'content': 'y'}] %}"),
    "{{ messages.index(messages[0]) }}" + LOOP,
    "{{ messages is sequence }}{{ messages is iterable }}{{ messages is mapping }}" + LOOP,
]
PROMPTS_THAT_DIFFER = [
    looped(WRITE, behind="{% if add_generation_prompt and messages[-1].role == 'user' %}<assistant>{% endif %}"),
    "{% set ns = namespace(r='') %}"
    + looped("{% set ns.r = message.role %}" + WRITE, behind="{% if ns.r == 'user' %}<assistant>{% endif %}"),
    "{% set first = messages[0].content %}" + LOOP + "{{ first }}",
    LOOP + "{% macro end() %}{{ messages[0].role }}{% endmacro %}{{ end() }}",
    LOOP + "{% if tools %}{{ tools[0].function.name }}{% endif %}",
    LOOP + "{% block tail %}{{ messages[0].role }}{% endblock %}",
]


@pytest.mark.parametrize(
    ("text", "is_cut"),
    [*FOLLOWED.items(), *LOOKING_AHEAD.items(), *((text, ()) for text in AS_ONLY_A_LIST + PROMPTS_THAT_DIFFER)],
)
def test_prompts_are_cut_up_to_where_a_template_looks_ahead(text: str, is_cut: tuple[int, ...]) -> None:
    rendering = rendering_of(text)
    for _ in range(2):
        assert tuple(cut(rendering, TALK)) == is_cut
    cut(rendering, TALK, TOOLS)
