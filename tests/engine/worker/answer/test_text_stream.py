"""Text on its way is whole characters, ends before a stop string however that is cut, and is the whole text at last."""

import pytest
import torch

from engine.worker.answer.sampling import RowSampler, RowSampling, nucleus, token_bytes
from engine.worker.answer.text_stream import TextStream
from tests.engine.worker.data.tokenizer_kit import tokenizer

EMOJI = "中文和emoji：👩\u200d🚀👍🏽 done"
TEXTS = [
    "Hello, world. Hello!",
    EMOJI,
    "naïve café — “quotes”",
    "a" * 40,
    "  spaces  and\n\nlines\t",
]


def pieces_of(tokens, ids, stops=()):
    stream = TextStream(tokens, stops)
    pieces = []
    for token in ids:
        if not stream.stopped:
            pieces.append(stream.push(token))
    return [*pieces, stream.flush()], stream


@pytest.mark.parametrize("family", ["qwen2.5", "mistral", "gemma", "deepseek"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_whole_and_never_in_half_characters(family, text):
    tokens = tokenizer(family)
    ids = tokens.encode(text, add_special_tokens=False)
    pieces, _ = pieces_of(tokens, ids)
    assert "".join(pieces) == tokens.decode(ids, skip_special_tokens=True)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@pytest.mark.parametrize("family", ["qwen2.5", "mistral"])
@pytest.mark.parametrize("stop", ["world", "o", ". H", "文和", "🚀", "never", "done\n"])
def test_nothing_of_a_stop_string_is_handed_on(family, stop):
    tokens = tokenizer(family)
    for text in TEXTS:
        ids = tokens.encode(text, add_special_tokens=False)
        whole = tokens.decode(ids, skip_special_tokens=True)
        pieces, stream = pieces_of(tokens, ids, [stop])
        assert "".join(pieces) == whole.partition(stop)[0]
        assert stream.stopped == (stop in whole)


def test_each_token_is_told_with_its_bytes():
    tokens = tokenizer("qwen2.5")
    ids = tokens.encode("中👩\u200d🚀", add_special_tokens=False)
    assert bytes(byte for token in ids for byte in token_bytes(tokens, token)[1]) == "中👩\u200d🚀".encode()


def test_draws_follow_the_settings_of_their_row():
    logits = torch.tensor([2.0, 1.0, 0.0, -9.0])
    assert torch.isinf(nucleus(logits, 0.6)).tolist() == [False, True, True, True]
    assert torch.isinf(nucleus(logits, 0.0)).tolist() == [False, True, True, True]

    def drawn(count=200, **settings):
        sampler = RowSampler(RowSampling(**settings), 0)
        return [sampler.choose(logits)[0] for _ in range(count)]

    assert set(drawn(temperature=0)) == {0} == set(drawn(top_p=0.5))
    assert set(drawn(logit_bias={0: -100, 1: -100}, temperature=0)) == {2}
    assert drawn(4, temperature=0, frequency_penalty=1.5)[:2] == [0, 1]
    assert drawn(seed=1) == drawn(seed=1) != drawn(seed=2)
    share = drawn(4000).count(0) / 4000
    assert abs(share - float(logits.softmax(-1)[0])) < 0.03
    told = RowSampler(RowSampling(temperature=2, top_logprobs=2), 0).choose(logits)[1]
    assert told is not None and told.top[0] == (0, pytest.approx(float(logits.log_softmax(-1)[0])))
