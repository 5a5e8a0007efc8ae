"""What of a turn is trained is what inference asks for: from the prompt that the template gives at that turn, until
generation stops. Where a template makes the two differ, it is said."""

import copy
import json
import shutil
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from engine.base.errors import DataError, InputError
from engine.formats.examples import Example
from engine.formats.turn_notes import (
    EARLY_STOP,
    NAME_DROPPED,
    NO_STOP,
    PROMPT_DIFFERS,
    QUESTION_DROPPED,
    REASONING_DROPPED,
    RESULT_DROPPED,
    SYSTEM_DROPPED,
    TEXT_DROPPED,
    TOOLS_DROPPED,
    TURN_DIFFERS,
)
from engine.settings.presets import STARTER_MODEL
from engine.settings.resolve import Layer, resolve
from engine.settings.schema import RunConfig
from engine.worker.data.chat_template import ChatTemplate, Encoded, clock_of
from engine.worker.data.tokenize import prepare
from tests.engine.tiny_runs import write_jsonl

S, E, X = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}

HEAD = "{{ '<|im_start|>' + m.role + '\\n' }}"
CALLS = "{% for c in m.tool_calls or [] %}CALL {{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}"
FIRST_CALL = CALLS.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]")
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"


def template_of(assistant: str, other: str = "{{ m.content }}", prompt: str = PROMPT, begin: str = "") -> str:
    """Turns as in ChatML, with what stands in an assistant's between its header and its end."""
    return (
        begin
        + "{% for m in messages %}"
        + HEAD
        + "{% if m.role == 'assistant' %}"
        + assistant
        + "{% else %}"
        + other
        + "{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
        + prompt
    )


PLAIN = template_of("{{ m.content }}")
EITHER = template_of("{% if m.tool_calls %}" + CALLS + "{% else %}{{ m.content }}{% endif %}")


@cache
def _starter() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(STARTER_MODEL)


def make(template: str, **options: Any) -> ChatTemplate:
    tokenizer = copy.deepcopy(_starter())
    tokenizer.chat_template = template
    return ChatTemplate(tokenizer, **options)


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def said(text: str, **more: Any) -> dict:
    return {"role": "assistant", "content": text, **more}


def calling(*arguments: dict, text: str | None = None) -> dict:
    calls = [{"type": "function", "function": {"name": "look", "arguments": one}} for one in arguments]
    return {"role": "assistant", "content": text, "tool_calls": calls}


def result(text: str) -> dict:
    return {"role": "tool", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [user("q"), calling({"at": "sky"}), result("sunny"), said("fine")]
SKY = 'CALL look {"at": "sky"}'


def encode(template: ChatTemplate, messages: list[dict], train_on: str = "assistant", tools: tuple = ()) -> Encoded:
    (encoded,) = template.encode_chats([Example(messages=tuple(messages), tools=tools)], train_on)
    if isinstance(encoded, DataError):
        raise encoded
    return encoded


def turns(template: ChatTemplate, messages: list[dict], **options: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Text and notes of each trained turn; whatever has no note is held against inference."""
    encoded = encode(template, messages, **options)
    decode, ids = template.tokenizer.decode, encoded.ids.tolist()
    for turn in encoded.turns:
        asked = Example(messages=tuple(messages[: turn.message]), tools=options.get("tools", ()))
        if PROMPT_DIFFERS not in turn.notes:
            assert ids[: turn.start] == template.encode_prompt(asked)
        if not {NO_STOP, EARLY_STOP} & set(turn.notes):
            assert ids[turn.end - 1] in template.stop_token_ids
    return [(decode(ids[turn.start : turn.end]), turn.notes) for turn in encoded.turns]


# --- where a turn ends ------------------------------------------------------------------------------------------------


def test_a_call_that_ends_in_a_token_of_its_own_is_followed_by_the_end_of_turn() -> None:
    body = "{{ '~' if loop.last }}{% if m.tool_calls %}" + CALLS + X + "{% else %}{{ m.content }}{% endif %}"
    template = make(template_of(body))
    assert turns(template, TALK) == [(f"{SKY}{X}{E}", (TURN_DIFFERS,)), (f"~fine{E}", ())]
    assert turns(template, TALK[:2]) == [(f"~{SKY}{X}{E}", ())]
    chain = [*TALK[:3], calling({"at": "sea"}), result("wet"), said("both")]
    assert [text for text, _ in turns(template, chain)][1] == f'CALL look {{"at": "sea"}}{X}{E}'


def test_a_token_that_only_closes_calls_ends_no_answer() -> None:
    """GLM-4.5's kind: the next turn's token ends a turn, and nothing ends the last."""
    template = make(
        "{% for m in messages %}{{ {'user': '<|im_start|>', 'tool': '<|im_end|>', 'assistant': 'A:'}[m.role] }}"
        "{{ m.content or '' }}" + CALLS.replace("{% endfor %}", X + "{% endfor %}") + "{% endfor %}"
        "{% if add_generation_prompt %}A:{% endif %}"
    )
    template.tokenizer.eos_token = S
    template = ChatTemplate(template.tokenizer)
    assert template.tokenizer.convert_ids_to_tokens(template.stop_token_ids) == [S, E]
    assert turns(template, TALK, tools=(TOOL,)) == [(f"{SKY}{X}{E}", ()), (f"fine{S}", (TOOLS_DROPPED,))]
    assert turns(template, TALK[:2], tools=(TOOL,)) == [(f"{SKY}{X}{E}", (TOOLS_DROPPED,))]


def test_results_written_into_the_calling_turn_are_not_trained() -> None:
    template = make(
        "{% for m in messages %}{% set before = messages[loop.index0 - 1] if loop.index0 else m %}"
        "{% if m.role == 'assistant' %}{% if before.role != 'tool' %}" + HEAD + "{% endif %}{{ m.content or '' }}"
        + CALLS + "{% if m.tool_calls %}{% set at = loop.index %}"
        "{% for r in messages[at:] if r.role == 'tool' %}[{{ r.content }}]{% endfor %}"
        "{% else %}{{ '<|im_end|>\\n' }}{% endif %}"
        "{% elif m.role == 'user' %}" + HEAD + "{{ m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt and messages[-1].role == 'user' %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )  # fmt: skip
    assert turns(template, TALK) == [(SKY, (NO_STOP,)), (f"fine{E}", ())]


def test_an_end_of_several_tokens_is_trained_whole() -> None:
    talk = [user("a"), said("b"), user("c"), said("d")]
    template = make(template_of("{{ m.content }}" + X))
    assert turns(template, talk) == [(f"b{X}{E}", ()), (f"d{X}{E}", ())]


def test_what_opens_an_answer_and_is_not_in_the_prompt_is_trained() -> None:
    template = make(template_of(X + "{{ m.content }}"))
    assert turns(template, [user("a"), said("b"), user("c"), said("d")]) == [(f"{X}b{E}", ()), (f"{X}d{E}", ())]


def test_a_header_that_always_follows_is_not_trained() -> None:
    body = EITHER.replace("{% if add_generation_prompt %}", "").removesuffix("{% endif %}")
    assert turns(make(body), TALK[:2]) == [(f"{SKY}{E}", ())]
    assert turns(make(body), TALK) == [(f"{SKY}{E}", ()), (f"fine{E}", ())]


# --- where a turn begins ----------------------------------------------------------------------------------------------


def test_a_header_is_never_looked_for_across_another_message() -> None:
    template = make(PLAIN.replace("assistant\\n' }}{% endif", "assistant\\n\\n' }}{% endif"))
    talk = [user("a"), said("\nb"), user("c"), said("d")]
    assert turns(template, talk) == [(f"b{E}", ()), (f"d{E}", (PROMPT_DIFFERS,))]


def test_a_prompt_that_opens_a_thought_which_the_answers_lack_is_said() -> None:
    template = make(PLAIN.replace("assistant\\n' }}{% endif", "assistant\\n<think>\\n' }}{% endif"))
    talk = [user("a"), said("four"), user("b"), said("five")]
    assert turns(template, talk) == [(f"four{E}", (PROMPT_DIFFERS,)), (f"five{E}", (PROMPT_DIFFERS,))]
    thought = [user("a"), said("<think>\nhm\n</think>\nfour")]
    assert turns(template, thought) == [(f"hm\n</think>\nfour{E}", ())]  # the prompt's own <think> is not trained


def test_the_last_answer_follows_the_prompt_it_is_asked_with_wherever_the_system_prompt_stands() -> None:
    other = "{% if m.role == 'user' and loop.last %}{{ messages[0].content + '\\n' }}{% endif %}{{ m.content }}"
    body = template_of("{{ m.content }}", other).replace("in messages %}", "in messages if m.role != 'system' %}")
    template = make(body)
    talk = [{"role": "system", "content": "Be kind."}, user("a"), said("b"), user("c"), said("d")]
    assert turns(template, talk[:3]) == [(f"b{E}", ())]
    assert "Be kind.\na" in template.tokenizer.decode(encode(template, talk[:3]).ids)
    assert turns(template, talk) == [(f"b{E}", (PROMPT_DIFFERS,)), (f"d{E}", ())]


def test_where_prompt_and_answer_would_share_a_token_the_tokens_are_those_of_inference() -> None:
    alphabet = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bpe = Tokenizer(models.BPE(alphabet | {"ĊĊ": len(alphabet)}, [("Ċ", "Ċ")]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    tokens = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=E)
    tokens.add_special_tokens({"additional_special_tokens": [S]})
    tokens.chat_template = PLAIN
    assert turns(ChatTemplate(tokens), [user("a"), said("\nyes")]) == [(f"\nyes{E}", ())]


# --- whose words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", ["| tojson", ""])
def test_null_beside_a_call_is_never_trained_as_a_word(args: str) -> None:
    template = make(template_of("{{ m.content ~ '' }}" + CALLS.replace("| tojson", args)))
    talk = [user("q"), calling({"at": "sky"}), result("None"), said("fine")]
    assert turns(template, talk) == [(f"{SKY}{E}", ()), (f"fine{E}", ())]


def test_null_is_kept_where_the_template_asks_for_it() -> None:
    template = make(template_of("{% if m.content is none %}" + CALLS + "{% else %}{{ m.content }}{% endif %}"))
    assert turns(template, TALK) == [(f"{SKY}{E}", ()), (f"fine{E}", ())]


def test_arguments_are_given_as_text_to_a_template_that_wants_text() -> None:
    template = make(template_of("{{ m.content or '' }}" + CALLS.replace("| tojson", "+ ''")))
    assert turns(template, TALK)[0] == (f"{SKY}{E}", ())


def test_two_rounds_of_calls_are_trained_though_parts_of_the_conversation_are_refused() -> None:
    begin = (
        "{% set n = namespace(turns=0, last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set n.last = loop.index0 %}{% endif %}"
        "{% if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}"
        "{% if (m.role == 'user') != (n.turns % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
        "{% set n.turns = n.turns + 1 %}{% endif %}{% endfor %}"
    )
    other = "{{ tools | tojson if tools and loop.index0 == n.last else '' }}{{ m.content }}"
    template = make(template_of("{{ m.content or '' }}" + CALLS, other, begin=begin))
    talk = [*TALK, user("r"), calling({"at": "sea"}), result("wet"), said("good")]
    found = turns(template, talk, tools=(TOOL,))
    assert [text for text, _ in found] == [f"{SKY}{E}", f"fine{E}", f'CALL look {{"at": "sea"}}{E}', f"good{E}"]
    # The tools stand at the last question only, so that the first round has another prompt at inference.
    assert [notes for _, notes in found] == [(PROMPT_DIFFERS,), (PROMPT_DIFFERS,), (), ()]


def test_what_a_template_leaves_out_is_said() -> None:
    thoughtful = [user("a"), said("four", reasoning_content="because")]
    assert turns(make(PLAIN), thoughtful) == [(f"four{E}", (REASONING_DROPPED,))]
    assert turns(make(EITHER), [user("q"), calling({"at": "sky"}, text="Let me look.")]) == [
        (f"{SKY}{E}", (TEXT_DROPPED,))
    ]


@pytest.mark.parametrize(
    ("loop", "messages", "tools", "notes"),
    [
        ("m in messages if m.role != 'system'", [SYSTEM, user("q"), said("fine")], (), (SYSTEM_DROPPED,)),
        ("m in messages if m.role != 'tool'", TALK, (), (RESULT_DROPPED,)),
        ("m in messages[-2:]", [user("long ago"), said("b"), user("c"), said("d")], (), (QUESTION_DROPPED,)),
        ("m in messages", [user("q"), said("fine")], (TOOL,), (TOOLS_DROPPED,)),
        ("m in messages", TALK, (TOOL,), (TOOLS_DROPPED,)),
        ("m in messages", [SYSTEM, *TALK], (), ()),
        ("m in messages", [user("q") | {"name": "Ada"}, said("fine")], (), (NAME_DROPPED,)),
        ("m in messages", [TALK[0], TALK[1], TALK[2] | {"name": "look"}, TALK[3]], (), ()),
    ],
)
def test_what_a_template_leaves_out_of_what_is_asked_is_said(
    loop: str, messages: list[dict], tools: tuple, notes: tuple[str, ...]
) -> None:
    template = template_of("{{ m.content or '' }}" + CALLS).replace("m in messages", loop, 1)
    (*_, (_, found)) = turns(make(template), messages, tools=tools)
    assert found == notes


def test_words_that_a_template_only_moves_or_rewrites_are_not_left_out() -> None:
    moved = template_of(
        "{{ m.content }}",
        "{% if m.role == 'user' %}{{ messages[0].content + ' ' if loop.index0 == 1 }}{{ m.content |upper }}{% endif %}",
    )
    assert turns(make(moved), [SYSTEM, user("q"), said("fine")]) == [(f"fine{E}", ())]


def test_each_answer_begins_with_its_own_first_token_where_the_prompt_ends_in_a_space() -> None:
    """ " do" is one token, and so are the space that ends the prompt, and "do"."""
    template = make(
        "{% for m in messages %}{{ m.role | upper + ': ' + m.content + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
    )
    talk = [user("a"), said("do it"), user("b"), said("do not worry"), user("c"), said("do")]
    assert turns(template, talk) == [
        (f"do it{E}", ()),
        (f"do not worry{E}", (PROMPT_DIFFERS,)),
        (f"do{E}", (PROMPT_DIFFERS,)),
    ]


@pytest.mark.parametrize("others", [{"at": "sea"}, {"at": "sky"}, {}])
def test_the_second_of_two_calls_that_the_template_drops_is_refused(others: dict) -> None:
    template = make(template_of("{{ m.content or '' }}" + FIRST_CALL))
    talk = [user("q"), calling({"at": "sky"}, others), result("a"), result("b"), said("fine")]
    with pytest.raises(DataError, match="leaves out the assistant's tool calls"):
        encode(template, talk)


def test_arguments_that_the_template_drops_are_refused() -> None:
    template = make(template_of("{{ m.content or '' }}" + CALLS.replace("{{ c.function.arguments | tojson }}", "")))
    with pytest.raises(DataError, match="leaves out the arguments of the assistant's call of look"):
        encode(template, TALK)


def test_marks_around_nothing_but_the_end_of_turn_are_no_answer() -> None:
    marked = PLAIN.replace(
        "{{ m.content }}{% else", "{% generation %}{{ m.content.text }}{% endgeneration %}{% else", 1
    )
    with pytest.raises(DataError, match="leaves out the assistant's answer"):
        encode(make(marked), [user("q"), said("x")])


# --- one stop rule ----------------------------------------------------------------------------------------------------


def test_the_end_of_turn_stops_answers_whatever_the_tokenizers_own_end_is() -> None:
    template = make(PLAIN)
    template.tokenizer.eos_token = X
    ends = template.tokenizer.convert_tokens_to_ids([X, E])
    assert ChatTemplate(template.tokenizer).stop_token_ids == tuple(sorted(ends))
    more = template.tokenizer.convert_tokens_to_ids(S)
    assert ChatTemplate(template.tokenizer, ends=[more]).stop_token_ids == tuple(sorted([*ends, more]))


def test_two_ends_whose_names_begin_alike_are_told_apart() -> None:
    """Where no prompt is written, an end is what stands behind a last turn as behind others."""
    template = make(
        "{% for m in messages %}" + HEAD + "{{ m.content }}"
        "{{ '<|endoftext|>' if loop.last and m.role == 'assistant' else '<|im_end|>\n' }}{% endfor %}"
    )
    assert set(template.tokenizer.convert_tokens_to_ids([E, X])) == set(template.stop_token_ids)


def test_an_answer_that_holds_a_stop_token_ends_there_at_inference() -> None:
    template = make(PLAIN)
    talk = [user(f"a {S} b"), said(f"one {E} two")]
    assert turns(template, talk) == [(f"one {E} two{E}", (EARLY_STOP,))]
    assert template.control_tokens(Example(messages=tuple(talk))) == [(0, S), (1, E)]
    assert template.control_tokens(Example(messages=(user("<think>"), said("im_end")))) == []


# --- one clock a run --------------------------------------------------------------------------------------------------


def test_a_template_that_writes_the_time_is_told_the_same_time_again_and_again(tmp_path: Path) -> None:
    clocked = "{{ strftime_now('%H:%M:%S.%f') }}\n" + PLAIN
    talk = [user("a"), said("b"), user("c"), said("d")]
    template = make(clocked)
    assert turns(template, talk) == [(f"b{E}", ()), (f"d{E}", ())]
    (tmp_path / "journal.jsonl").write_text('{"t":1700000000.25,"kind":"state"}\n{"t":1800000000,"kind":"state"}\n')
    config = RunConfig().data
    one, other = (make(clocked, now=clock_of(config, tmp_path)) for _ in range(2))
    assert encode(one, talk).ids.tolist() == encode(other, talk).ids.tolist()
    assert clock_of(config, tmp_path) == datetime.fromtimestamp(1700000000.25)
    set_by_hand = resolve([Layer("test", {"data.clock": "2026-01-31 12:00"})]).config.data
    assert clock_of(set_by_hand, tmp_path) == datetime(2026, 1, 31, 12)
    with pytest.raises(InputError, match=r"data\.clock noon"):
        clock_of(resolve([Layer("test", {"data.clock": "noon"})]).config.data)


# --- what is said, and what is to be done -----------------------------------------------------------------------------


def config_of(path: Path, **changes: Any) -> RunConfig:
    values = {"data.files": [str(path)], "data.val_fraction": 0.0}
    return resolve([Layer("test", values | {k.replace("__", "."): v for k, v in changes.items()})]).config


DROPS_THOUGHTS = template_of(
    "{{ '<think>' ~ m.reasoning_content ~ '</think>' if loop.last and m.reasoning_content }}{{ m.content }}"
)


def test_turns_that_differ_from_inference_are_counted_left_out_or_trained_separately(tmp_path: Path) -> None:
    talk = [user("a"), said("one", reasoning_content="hm"), user("b"), said("two", reasoning_content="so")]
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": talk}])
    template = make(DROPS_THOUGHTS)

    def texts(train_on: str) -> list[str]:
        prepared = prepare(config_of(path, data__train_on=train_on), template)
        found = []
        for index in range(len(prepared.train)):
            ids, trained = prepared.train.example(index)
            found.append(template.tokenizer.decode(ids[trained].tolist()))
        return found

    report = prepare(config_of(path), template).report
    assert (report["train"]["turns"], report["train"]["differing"]) == (2, {TURN_DIFFERS: 1})
    assert report["problem_counts"] == {REASONING_DROPPED: 1}
    first, second = f"<think>hm</think>one{E}", f"<think>so</think>two{E}"
    assert texts("assistant") == [f"one{E}{second}"]
    assert texts("matching") == [second]
    assert texts("separate") == [first, second]


def test_a_conversation_whose_turns_all_match_stays_one_example(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": [user("a"), said("b"), user("c"), said("d")]}])
    for train_on in ("separate", "matching"):
        assert len(prepare(config_of(path, data__train_on=train_on), make(PLAIN)).train) == 1


def test_a_row_without_a_turn_that_matches_says_so(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": [user("a"), said("b")]}])
    template = make(PLAIN.replace("assistant\\n' }}{% endif", "assistant\\n<think>\\n' }}{% endif"))
    with pytest.raises(DataError, match="none of its answers reads as at inference"):
        prepare(config_of(path, data__train_on="matching"), template)


def test_control_tokens_in_texts_are_named_by_row(tmp_path: Path) -> None:
    rows = [[user("a"), said("b")], [user("a"), said(f"With {E} at its end.")], [user(f"{S}c"), said("d")]]
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": row} for row in rows])
    report = prepare(config_of(path), make(PLAIN)).report
    assert [(p["line"], p["code"]) for p in report["problems"]] == [(2, "control-token"), (3, "control-token")]
    assert f"message 2 (assistant) contains {E}" in report["problems"][0]["message"]
    assert "splits the turn" in report["problems"][1]["message"]
    assert report["train"]["examples"] == 3


def test_a_base_whose_tokenizer_ends_documents_only_is_scored_by_its_answers(tmp_path: Path) -> None:
    """The usual base model: the template ends turns with a token that neither tokenizer nor configs call an end."""
    from engine.worker.model.load import generation_ends

    base = tmp_path / "base"
    shutil.copytree(STARTER_MODEL, base)
    base.chmod(0o700)
    for name, changes in {
        "tokenizer_config.json": {"eos_token": X},
        "generation_config.json": {"eos_token_id": 6141},
    }.items():
        (base / name).chmod(0o600)
        (base / name).write_text(json.dumps(json.loads((base / name).read_text()) | changes))
    model = RunConfig().replace({"model.name": str(base)}).model
    assert generation_ends(model) == [6141]
    template = ChatTemplate(AutoTokenizer.from_pretrained(base), ends=generation_ends(model))
    assert template.stop_token_ids == (6141, 6143)


AFTER_RESULTS = (
    "{% for m in messages %}{% if m.role == 'tool' %}"
    "{{ '<|im_start|>tool\\n<r>' + m.content + '</r>' + ('' if loop.last else '\\n') + '<|im_end|>' }}"
    "{% else %}" + HEAD + "{{ m.content or '' }}" + CALLS + "{{ '<|im_end|>\\n' }}{% endif %}{% endfor %}" + PROMPT
)


def test_white_space_that_differs_behind_a_result_does_not_move_the_turn() -> None:
    """As in Hermes' template: a prompt lacks a line end behind a result that the conversation has."""
    talk = (user("q"), calling({"a": 1}), result("found"), said("It is 5."))
    template = make(AFTER_RESULTS)
    (encoded,) = template.encode_chats([Example(messages=talk)])
    text = template.tokenizer.decode(encoded.ids[encoded.loss_mask].tolist())
    assert text == f'CALL look {{"a": 1}}{E}It is 5.{E}'


def test_an_empty_text_beside_a_call_makes_no_empty_answer() -> None:
    """As in the templates of distilled R1: whatever is not null is written as an answer of its own."""
    template = make(
        "{% for m in messages %}{% if m.tool_calls %}{{ '<|im_start|>a\\n' }}"
        + CALLS
        + "{{ '<|im_end|>' }}{% endif %}{% if m.role != 'assistant' or m.content is not none %}"
        + HEAD
        + "{{ m.content }}{{ '<|im_end|>\\n' }}{% endif %}{% endfor %}"
        + PROMPT
    )
    talk = (user("q"), calling({"a": 1}, text=""), result("found"), said("It is 5."))
    (encoded,) = template.encode_chats([Example(messages=talk)])
    assert f"{S}assistant\n{E}" not in template.tokenizer.decode(encoded.ids.tolist())


def test_arguments_stay_arguments_though_their_text_is_shorter() -> None:
    """As in Gemma 4's: a text of arguments is written as it is, and is not what the model is to write."""
    write = (
        "{% for c in m.tool_calls or [] %}{{ c.function.name }}"
        "{% if c.function.arguments is mapping %}{% for k, v in c.function.arguments.items() %}{{ ' ' ~ k }}"
        "{{ ' is set to the value of ' ~ v }}{% endfor %}{% else %}{{ c.function.arguments }}{% endif %}{% endfor %}"
    )
    template = make(template_of("{{ m.content or '' }}" + write))
    (encoded,) = template.encode_chats([Example(messages=(user("q"), calling({"a": "one"})))])
    assert "look a is set to the value of one" in template.tokenizer.decode(encoded.ids.tolist())


def test_a_template_that_reads_the_description_of_every_parameter_shows_its_ends() -> None:
    """As in Command R+'s: without descriptions it refuses the tools, and then nothing of it is seen."""
    reads = "{% for t in tools %}{% for p in t.function.parameters.properties.values() %}{{ p.description + '' }}"
    tokenizer = copy.deepcopy(_starter())
    tokenizer.eos_token = X
    tokenizer.chat_template = template_of("{{ m.content or '' }}" + CALLS, begin=reads + "{% endfor %}{% endfor %}")
    template = ChatTemplate(tokenizer)
    assert E in template.tokenizer.convert_ids_to_tokens(list(template.stop_token_ids))
