"""Events in words: a worker's own figures become sentences, and nonsense becomes silence."""

import dataclasses

import pytest

from engine.present import event_text
from engine.store.run_records import Event

_SAID = {
    "data": (
        {
            "train": {"examples": 369, "tokens": 11376, "supervised": 4001},
            "val": {"examples": 30, "tokens": 900},
        },
        "369 examples, 11,376 tokens, 4,001 of them trained on; 30 held out",
    ),
    "plan": (
        {
            "total_steps": 279,
            "epochs": 3,
            "steps_per_epoch": 93,
            "batch_size": 4,
            "settings": {"optim.learning_rate": 0.0001},
        },
        "279 steps, 3 epochs of 93, batch 4, rate 1e-4",
    ),
    "model": (
        {"class": "Qwen2ForCausalLM", "parameters": 4_773_120, "trainable": 295_936, "device": "cpu"},
        "Qwen2ForCausalLM, 4.8M parameters, 0.30M trained (6.2%), on cpu",
    ),
    "memory": (
        {"peak_bytes": 701566976, "predicted_bytes": 1 << 31, "micro_tokens": 68, "activation_checkpointing": True},
        "669.1 MiB at most; 2.0 GiB predicted; 68 tokens a pass, activations recomputed",
    ),
}


@pytest.mark.parametrize("kind", _SAID)
def test_events_without_words_are_told_from_their_figures(kind):
    fields, words = _SAID[kind]
    assert event_text.describe_event(kind, "", fields) == words


@pytest.mark.parametrize("kind", _SAID)
@pytest.mark.parametrize("nonsense", [{}, {"train": 3, "val": []}, {"parameters": 0, "trainable": 0, "peak_bytes": ""}])
def test_fields_that_lack_or_make_no_sense_leave_out_the_sentence_and_raise_nothing(kind, nonsense):
    assert event_text.describe_event(kind, "", nonsense) == ""


def test_a_run_begins_once_and_resumes_after_that():
    assert event_text.event_name("resume", "starts from the beginning") == "begin"
    assert event_text.event_name("resume", "goes on from step 40") == "resume"
    assert event_text.describe_event("state", "failed", {"reason": "out of memory"}) == "failed: out of memory"


def test_a_failure_is_told_once():
    """The worker's journal and the daemon both say it."""
    said = {"reason": "the loss became NaN at step 2"}
    state = Event(1, 4, 1.0, "state", 2, "failed", said)
    again = dataclasses.replace(
        state, id=2, kind="ended", message="not-finite: the loss became NaN at step 2", detail={}
    )
    other = dataclasses.replace(again, id=3, message="killed: killed by signal 9")
    assert event_text.told_once([state, again, other]) == [state, other]
