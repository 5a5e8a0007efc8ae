"""Faults that software which marks trained tokens has been seen to have, put back into what `encode_chats` gives, so
that a test can tell whether the oracle would find them. Each takes the template, the example and the sound outcome."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from engine.errors import DataError
from engine.records import Example
from engine.worker.template import ChatTemplate, Encoded, Turn

Outcome = Encoded | DataError
Fault = Callable[[ChatTemplate, Example, Outcome], Outcome]


def _changed(encoded: Encoded, change: Callable[[Turn], Turn]) -> Encoded:
    """With other turns, and trained what is in them."""
    turns = tuple(change(turn) for turn in encoded.turns)
    trained = np.zeros_like(encoded.trained)
    for turn in turns:
        trained[turn.start : turn.end] = True
    return replace(encoded, trained=trained, turns=turns)


def _added(template: ChatTemplate) -> set[int]:
    return set(template.tokenizer.get_added_vocab().values())


def end_of_turn_left_out_after_a_call_that_ends_in_an_added_token(
    template: ChatTemplate, example: Example, outcome: Outcome
) -> Outcome:
    if isinstance(outcome, DataError):
        return outcome
    added, ids = _added(template), outcome.ids.tolist()

    def change(turn: Turn) -> Turn:
        calls = example.messages[turn.message].get("tool_calls")
        return replace(turn, end=turn.end - 1) if calls and added.issuperset(ids[turn.end - 2 : turn.end]) else turn

    return _changed(outcome, change)


def results_inside_the_calling_turn_trained(template: ChatTemplate, example: Example, outcome: Outcome) -> Outcome:
    if isinstance(outcome, DataError):
        return outcome
    starts = {turn.message: turn.start for turn in outcome.turns}
    own_turn = template.tokenizer.decode(outcome.ids.tolist()).count("[result ") == 0

    def change(turn: Turn) -> Turn:
        following = starts.get(turn.message + len(example.messages[turn.message].get("tool_calls") or ()) + 1)
        calls = example.messages[turn.message].get("tool_calls")
        return replace(turn, end=following) if calls and following and not own_turn else turn

    return _changed(outcome, change)


def null_written_as_none(template: ChatTemplate, example: Example, outcome: Outcome) -> Outcome:
    messages = tuple(
        message | {"content": "None"} if message.get("tool_calls") and not message["content"] else message
        for message in example.messages
    )
    return template.encode_chats([replace(example, messages=messages)])[0]


def system_prompt_missing_and_not_told(template: ChatTemplate, example: Example, outcome: Outcome) -> Outcome:
    if isinstance(outcome, DataError) or example.messages[0]["role"] != "system":
        return outcome
    without = template.encode_chats([replace(example, messages=example.messages[1:])])[0]
    if isinstance(without, DataError):
        return outcome
    return replace(without, turns=tuple(replace(turn, message=turn.message + 1) for turn in without.turns))


def only_the_first_of_two_closing_tokens_trained(template: ChatTemplate, example: Example, outcome: Outcome) -> Outcome:
    if isinstance(outcome, DataError):
        return outcome
    added, ids = _added(template), outcome.ids.tolist()

    def change(turn: Turn) -> Turn:
        calls = example.messages[turn.message].get("tool_calls")
        two = not calls and added.issuperset(ids[turn.end - 2 : turn.end])
        return replace(turn, end=turn.end - 1) if two else turn

    return _changed(outcome, change)


def opening_that_the_prompt_lacks_not_trained(template: ChatTemplate, example: Example, outcome: Outcome) -> Outcome:
    if isinstance(outcome, DataError):
        return outcome
    added, ids = _added(template), outcome.ids.tolist()
    return _changed(
        outcome,
        lambda turn: replace(turn, start=turn.start + (ids[turn.start] in added and turn.end - turn.start > 2)),
    )


def several_rounds_of_calls_refused(template: ChatTemplate, example: Example, outcome: Outcome) -> Outcome:
    rounds = sum(bool(message.get("tool_calls")) for message in example.messages)
    return DataError("the chat template refuses this conversation: roles must alternate") if rounds > 1 else outcome


def words_beside_a_call_refused(template: ChatTemplate, example: Example, outcome: Outcome) -> Outcome:
    beside = any(message.get("tool_calls") and message["content"] for message in example.messages)
    return DataError("the chat template refuses this conversation: roles must alternate") if beside else outcome


def clock_that_ticks_while_a_row_is_rendered(template: ChatTemplate, example: Example, outcome: Outcome) -> Outcome:
    if isinstance(outcome, DataError) or "Now: " not in template.tokenizer.decode(outcome.ids.tolist()):
        return outcome
    return _changed(outcome, lambda turn: replace(turn, start=max(0, turn.start - 30)))


def start_moved_back_across_another_message(template: ChatTemplate, example: Example, outcome: Outcome) -> Outcome:
    if isinstance(outcome, DataError) or len(outcome.turns) < 2:
        return outcome
    first, second = outcome.turns[:2]
    return _changed(outcome, lambda turn: replace(turn, start=first.end) if turn is second else turn)


def unlike_prompt_not_told(template: ChatTemplate, example: Example, outcome: Outcome) -> Outcome:
    if isinstance(outcome, DataError):
        return outcome
    return replace(outcome, turns=tuple(replace(turn, notes=()) for turn in outcome.turns))


def dropped_words_not_told(template: ChatTemplate, example: Example, outcome: Outcome) -> Outcome:
    if isinstance(outcome, DataError):
        return outcome

    def change(turn: Turn) -> Turn:
        return replace(turn, notes=tuple(note for note in turn.notes if not note.endswith("-dropped")))

    return replace(outcome, turns=tuple(map(change, outcome.turns)))


def answer_left_out_and_only_its_end_trained(template: ChatTemplate, example: Example, outcome: Outcome) -> Outcome:
    if not isinstance(outcome, DataError) or "leaves out" not in outcome.message:
        return outcome
    messages = tuple(
        {"role": "assistant", "content": "x"} if message["role"] == "assistant" else message
        for message in example.messages
        if message["role"] != "tool"
    )
    encoded = template.encode_chats([replace(example, messages=messages)])[0]
    if isinstance(encoded, DataError) or len(messages) != len(example.messages):
        return outcome
    return _changed(encoded, lambda turn: replace(turn, start=turn.end - 1))


def end_of_the_prompt_trained(template: ChatTemplate, example: Example, outcome: Outcome) -> Outcome:
    if isinstance(outcome, DataError):
        return outcome
    ids, tokens = outcome.ids.tolist(), template.tokenizer

    def change(turn: Turn) -> Turn:
        for start in range(turn.start - 1, max(0, turn.start - 12), -1):
            if tokens.decode(ids[start : turn.start]).startswith("<think>"):
                return replace(turn, start=start)
        return turn

    return _changed(outcome, change)


def next_header_trained_after_the_end(template: ChatTemplate, example: Example, outcome: Outcome) -> Outcome:
    if isinstance(outcome, DataError):
        return outcome
    starts = [turn.start for turn in outcome.turns[1:]] + [len(outcome.ids)]
    return _changed(outcome, lambda turn: replace(turn, end=min(turn.end + 4, starts[outcome.turns.index(turn)])))


def second_call_of_one_function_lost(template: ChatTemplate, example: Example, outcome: Outcome) -> Outcome:
    if not isinstance(outcome, DataError) or ("tool calls" not in outcome.message and "call of" not in outcome.message):
        return outcome
    messages = tuple(
        message | {"tool_calls": message["tool_calls"][:1]} if message.get("tool_calls") else message
        for message in example.messages
    )
    return template.encode_chats([replace(example, messages=messages)])[0]


FAULTS: dict[str, tuple[Fault, ...]] = {
    "end of turn after a call": (end_of_turn_left_out_after_a_call_that_ends_in_an_added_token,),
    "results in the calling turn": (results_inside_the_calling_turn_trained,),
    "null": (null_written_as_none,),
    "system prompt": (system_prompt_missing_and_not_told,),
    "closings and openings": (
        only_the_first_of_two_closing_tokens_trained,
        opening_that_the_prompt_lacks_not_trained,
    ),
    "refusals": (several_rounds_of_calls_refused, words_beside_a_call_refused),
    "clock": (clock_that_ticks_while_a_row_is_rendered,),
    "another message": (start_moved_back_across_another_message,),
    "unlike prompts": (unlike_prompt_not_told,),
    "dropped words": (dropped_words_not_told,),
    "answer left out": (answer_left_out_and_only_its_end_trained,),
    "prompt and header": (end_of_the_prompt_trained, next_header_trained_after_the_end),
    "equal calls": (second_call_of_one_function_lost,),
}
