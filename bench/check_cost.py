"""What does it cost to hold every trained answer against the prompt that its template gives, beside tokenizing?

    python bench/check_cost.py [FILE ...] [--model FOLDER] [--rows N] [--rounds N]

For each file, or else for the sample that ships, and for conversations made of it, with a system prompt and of three
and ten turns, each round does in turn, on a template of its own:

    usual      transformers' own `apply_chat_template`, tokens and nothing else, as other trainers call it for each row
    tokens     each conversation rendered once and made tokens, by finetop's own way
    mask       the same, and the answers' tokens marked, where these are known to stand
    checked    what preparing the data does: answers found from the prompt of each, their tokens checked against it and
               against the stop rule

A row gives CPU time per conversation in microseconds, the least of all rounds, without what is done once a template
(3 to 15 ms go to compiling it so that it can be followed, see `prompt_cuts.py`), and what `checked` takes more than
`mask`, as a share of `usual` and of `mask`. A template that looks ahead in its messages, such as Qwen3's, is rendered
for each answer, so its share grows with their number.
"""

import argparse
import copy
import gc
import os
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np  # noqa: E402

from engine.formats import read_data  # noqa: E402
from engine.formats.examples import Example  # noqa: E402
from engine.settings.presets import SAMPLES, STARTER_MODEL  # noqa: E402
from engine.settings.schema import ModelConfig  # noqa: E402
from engine.worker.data.chat_template import ChatTemplate  # noqa: E402
from engine.worker.model.load import load_tokenizer  # noqa: E402

BATCH = 1000
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--model", default=str(STARTER_MODEL))
    parser.add_argument("--rows", type=int, default=3000, help="of each file (default: 3000)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tokenizer = load_tokenizer(ModelConfig(name=options.model))
    print(f"{'':34}{'rows':>6}{'usual':>9}{'tokens':>9}{'mask':>9}{'checked':>9}   of usual  of mask")
    for file in options.files or [SAMPLES / "intents.csv"]:
        examples = read_data([str(file)]).examples[: options.rows]
        for name, rows in variants(list(examples)).items():
            least = measured(lambda: ChatTemplate(copy.deepcopy(tokenizer)), rows, options.rounds)
            usual, tokens, mask, checked = (1e6 * seconds / len(rows) for seconds in least)
            shares = f"{(checked - mask) / usual:11.2f}{checked / mask - 1:9.2f}"
            label = f"{file.stem}, {name}"
            print(f"{label:34}{len(rows):6}{usual:9.1f}{tokens:9.1f}{mask:9.1f}{checked:9.1f}{shares}", flush=True)


def variants(examples: list[Example]) -> dict[str, list[Example]]:
    found = {"as it is": examples}
    found["with a system prompt"] = [replace(one, messages=(SYSTEM, *one.messages)) for one in examples]
    for count in (3, 10):
        parts = [examples[at : at + count] for at in range(0, len(examples) - count + 1, count)]
        joined = [tuple(message for one in part for message in one.messages) for part in parts]
        found[f"{count} in one"] = [Example(messages=messages) for messages in joined]
    return {name: rows for name, rows in found.items() if rows}


def measured(make: Callable[[], ChatTemplate], rows: Sequence[Example], rounds: int) -> list[float]:
    """The least seconds of CPU time of each way."""
    known = make()._spans
    places = {id(row): [(span.start, span.end) for span in known.find(row)[1]] for row in rows}
    ways = [
        usual,
        tokens,
        lambda template, batch: masked(template, batch, places),
        lambda template, batch: template.encode_chats(batch),
    ]
    return [
        min(times) for times in zip(*([timed(make(), way, rows) for way in ways] for _ in range(rounds)), strict=True)
    ]


def timed(template: ChatTemplate, way: Callable, rows: Sequence[Example]) -> float:
    way(template, rows[:1])  # compiles the template
    gc.collect()
    began = time.process_time()
    for start in range(0, len(rows), BATCH):
        way(template, rows[start : start + BATCH])
    return time.process_time() - began


def usual(template: ChatTemplate, rows: Sequence[Example]) -> list[list[int]]:
    return [
        template.tokenizer.apply_chat_template(list(row.messages), tokenize=True, return_dict=True)["input_ids"]
        for row in rows
    ]


def tokens(template: ChatTemplate, rows: Sequence[Example]) -> list[np.ndarray]:
    texts = [template._rendering.text(row.messages, row.tools) for row in rows]
    encodings = template._encodings(texts)
    return [np.array(template._with_bos(one.ids, [])[0], dtype=np.int32) for one in encodings]


def masked(
    template: ChatTemplate, rows: Sequence[Example], places: dict[int, list[tuple[int, int]]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    texts = [template._rendering.text(row.messages, row.tools) for row in rows]
    found = []
    for row, one in zip(rows, template._encodings(texts), strict=True):
        ids, offsets = np.array(template._with_bos(one.ids, [])[0], dtype=np.int32), one.offsets
        trained = np.zeros(len(ids), dtype=bool)
        shift = len(ids) - len(offsets)
        for start, end in places[id(row)]:
            trained[bisect_left(offsets, (start,)) + shift : bisect_left(offsets, (end,)) + shift] = True
        found.append((ids, trained))
    return found


if __name__ == "__main__":
    main()
