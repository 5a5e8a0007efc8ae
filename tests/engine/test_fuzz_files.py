"""Damaged files of every format through all that reads them: a report or words, in time, each row accounted for."""

import os
import time

import fuzzing
import pytest

from engine.errors import EngineError
from engine.formats import read_data

SECONDS = float(os.environ.get("FINETOP_FUZZ_SECONDS", "180"))
"""How long the long run goes on; its first seed is FINETOP_FUZZ_SEED."""
FIRST_SEED = int(os.environ.get("FINETOP_FUZZ_SEED", "1000000"))


def test_damaged_files_are_read_refused_or_told(tmp_path):
    said = [complaint for seed in range(100) if (complaint := fuzzing.run(seed, tmp_path))]
    assert not said, "\n".join(said[:5])


@pytest.mark.parametrize("name", ["\ud800a.jsonl", "b\udcfd/c.csv"])
def test_what_no_encoding_has_is_told_in_words_that_can_be_written_anywhere(name):
    for source in (name, f"{name}:train"):
        with pytest.raises(EngineError, match=r"\\ud"):
            read_data([source])


@pytest.mark.long
def test_damaged_files_are_read_refused_or_told_for_minutes(tmp_path):
    ends, seed, said = time.monotonic() + SECONDS, FIRST_SEED, []
    while time.monotonic() < ends:
        if complaint := fuzzing.run(seed, tmp_path):
            said.append(complaint)
        seed += 1
    print(f"{seed - FIRST_SEED:,} cases")
    assert not said, f"{len(said)} of {seed - FIRST_SEED:,} cases:\n" + "\n".join(said[:20])
