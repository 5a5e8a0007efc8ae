"""A sentence with a name is known by its template; of texts that have none any more, by how it reads."""

import json
import pickle

from engine.base.messages import Message, MessageTemplate, msg, records, restored

TOO_LARGE = MessageTemplate("out of memory with {tokens:,} tokens: {failure}")


def test_a_named_sentence_is_known_wherever_it_lies_in_another():
    text = TOO_LARGE(tokens=1900, failure="CUDA")
    assert text == "out of memory with 1,900 tokens: CUDA" and TOO_LARGE.values_in(text) == {
        "tokens": 1900,
        "failure": "CUDA",
    }
    wrapped = msg("rank {rank} failed: {reason}", rank=1, reason=text)
    stored = restored(str.__str__(wrapped), json.loads(json.dumps(records({"reason": wrapped})["reason"])))
    assert isinstance(stored, Message) and TOO_LARGE.values_in(stored) == TOO_LARGE.values_in(text)
    assert TOO_LARGE.values_in(pickle.loads(pickle.dumps(wrapped))) == TOO_LARGE.values_in(text)


def test_a_text_without_template_is_read_and_another_message_is_not():
    assert TOO_LARGE.values_in("rank 1 failed: out of memory with 1,900 tokens: a (b)") == {
        "tokens": "1,900",
        "failure": "a (b)",
    }
    assert TOO_LARGE.values_in("out of memory") is None and TOO_LARGE.values_in("") is None
    assert TOO_LARGE.values_in(msg("out of memory with {tokens:,} tokens: of another kind", tokens=3)) is None
