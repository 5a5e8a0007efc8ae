"""The examples a model is evaluated on: of files, or a run's own validation data, as in its training."""

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.base.errors import DataError, InputError
from engine.base.messages import msg
from engine.formats import label_set, split_examples
from engine.formats.examples import DataReport, Example, Problem, rows_told
from engine.metrics.reasoning import TAGS
from engine.settings.schema import RunConfig
from engine.worker.data.chat_template import ChatTemplate
from engine.worker.data.packing import TokenSet
from engine.worker.data.thinking import without_thoughts
from engine.worker.data.tokenize import (
    TokenCounts,
    count,
    encode_chats,
    encode_texts,
    in_order,
    read_source,
    split_chunks,
    training_use,
)
from engine.worker.evaluate.measure import add_few_shot, example_id

_NO_LIMIT = 1 << 40


@dataclass(frozen=True)
class Sources:
    """Read once, whatever models are evaluated on it."""

    examples: tuple[Example, ...]
    """To be evaluated on."""
    train: tuple[Example, ...]
    """The training data without them, for examples in the prompt; empty where it was not needed."""
    labels: tuple[str, ...]
    """The label set of the training data, else that of the examples; empty when they are no classification."""
    from_run: bool
    """These are the run's own validation data."""
    report: DataReport
    """Of the reading of these files, also where only a part of what they hold is evaluated on."""
    held_out: bool = False
    """A share of the run's training data; for plain text it is still to be taken."""


def read_sources(config: RunConfig, files: Sequence[str], with_train: bool) -> Sources:
    """`files`, or without any the validation data of the run that `config` belongs to. Raises DataError, InputError."""
    if not files and not config.data.files:
        raise InputError("no data to evaluate on", "Give --data FILE.")
    paths = list(files) or config.data.val_files
    report = read_source(config, paths, "evaluation" if files else "validation", TAGS) if paths else None
    train: tuple[Example, ...] = ()
    labels = None
    if config.data.files and (with_train or report is None):
        try:
            train_report = read_source(config, config.data.files, training_use(config), TAGS)
        except InputError:  # the run's data may be gone by now, and only a part of this needs it
            if report is None:
                raise
        else:
            labels = label_set(train_report.examples)
            train = tuple(train_report.examples)
            if report is None:
                report = train_report
    assert report is not None
    examples = tuple(report.examples)
    held_out = not paths and not report.validation
    if not paths and report.validation:
        train, examples = examples, report.validation
    elif held_out and config.method.objective == "sft":
        train, examples = split_examples(report.examples, config.data.val_fraction, config.data.seed)
        if not examples:
            raise InputError("the run has no validation data", "Give --data FILE.")
    labels = labels or label_set(report.examples) or ()
    return Sources(examples, train, labels, not files, report, held_out)


def choose_shots(sources: Sources, count: int, seed: int) -> list[Example]:
    """`count` training examples for the prompt, drawn with the seed; none with a question that is evaluated.

    Raises InputError when there are too few to draw from.
    """
    if not count:
        return []
    evaluated = {example_id(example) for example in sources.examples}
    pool = [example for example in sources.train if example_id(example) not in evaluated]
    if len(pool) < count:
        raise InputError(
            msg(
                "--shots {count}: there are {available:,} training examples whose question is not evaluated",
                count=count,
                available=len(pool),
            ),
            "Examples come from a run's training data: evaluate 41@base, or give --run 41.",
        )
    return random.Random(seed).sample(pool, count)


@dataclass(frozen=True)
class EvalSet:
    """Tokens, and the conversations behind them with their keys; no conversations for plain text."""

    tokens: TokenSet
    examples: list[Example]
    keys: list[str]
    files: list[str]
    """Where each is from."""
    rows: dict[str, Any]
    """What became of the rows, as in the journal's `data`; the counts of tokenizing under `eval`."""


def encode(config: RunConfig, template: ChatTemplate, sources: Sources, shots: Sequence[Example] = ()) -> EvalSet:
    """Cut to data.max_length as in training; with examples in the prompt nothing is cut. Raises DataError."""
    counts = TokenCounts()
    problems: list[Problem] = []
    kept: list[Example] = []
    keys: list[str] = []
    if config.method.objective == "pretrain":
        if shots:
            raise InputError("--shots needs questions and answers; this run learned plain text")
        pieces = encode_texts(config, template, sources.examples, counts, problems)
        if sources.held_out:
            _, pieces = split_chunks(pieces, config.data.val_fraction, config.data.seed)
        tokens = TokenSet.join(pieces)
        files = [file for *_, file in pieces]
    else:
        examples = sources.examples
        if config.data.thinking == "drop":  # also those that only this template shows to be thoughts
            examples = tuple(without_thoughts(example, template.thought_tags) for example in examples)
        if shots:
            config = config.replace({"data.max_length": _NO_LIMIT, "data.train_on": "assistant"})
            examples = tuple(add_few_shot(example, shots) for example in examples)
        ids = {id(shown): example_id(example) for shown, example in zip(examples, sources.examples, strict=True)}
        tokens, kept = encode_chats(config, template, examples, counts, problems)
        keys, files = [ids[id(example)] for example in kept], [example.file for example in kept]
    if not len(tokens):
        example = f": {in_order(problems)[0]}" if problems else ""
        raise DataError(
            msg("no example is left to evaluate on{example}", example=example),
            msg(
                "Examples are cut to {max_length:,} tokens; --max-length N cuts them elsewhere.",
                max_length=config.data.max_length,
            ),
        )
    count(counts, tokens)
    rows = rows_told([sources.report], in_order(problems)) | {"eval": dataclasses.asdict(counts)}
    return EvalSet(tokens, kept, keys, files, rows)
