"""From data files to token sets: read, split, render, tokenise, and report what happened to every row."""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.base.errors import DataError
from engine.base.messages import msg
from engine.data.check_report import length_histogram
from engine.formats import NOTE_CODES, check_bad_share, label_set, read_data, split_examples
from engine.formats.examples import DataReport, Example, Problem, rows_told
from engine.formats.source_names import groups
from engine.formats.turn_notes import CONTROL_TOKEN, DIFFERING, DROPPED, control_token_line
from engine.settings.schema import RunConfig
from engine.worker.data.chat_template import ChatTemplate, Encoded
from engine.worker.data.packing import TokenSet
from engine.worker.data.thinking import Tags, Thoughts, has_thought, without_thoughts

_BATCH = 1000
_MAX_PROBLEMS = 20
_MAX_SHOWN = 5
_REFUSED = "template"
"""Code of a row that is valid but that the chat template cannot render."""
OVERLONG = "overlong"
"""Code of a row that is longer than data.max_length and left out for it; these are counted, not reported one by one."""


Piece = tuple[np.ndarray, np.ndarray, str]
"""Of plain text: token ids, loss mask, and the file it is from."""


@dataclass
class TokenCounts:
    """What tokenising did to one set of examples."""

    examples: int = 0
    tokens: int = 0
    supervised: int = 0
    longest: int = 0
    overlong: int = 0
    """Examples longer than max_length (for plain text: documents cut into several examples)."""
    overlong_skipped: int = 0
    """Those of them that are left out for it."""
    cut_tokens: int = 0
    cut_supervised: int = 0
    turns: int = 0
    """Trained answers of conversations."""
    differing: dict[str, int] = field(default_factory=dict)
    """Those that the template makes differ from inference, by note (`engine.formats.turn_notes`)."""
    skipped: int = 0
    """Examples left out: without a supervised token, refused by the template, or overlong where these are skipped."""
    thoughts: int = 0
    """Examples whose answers come with a thought; those that data.thinking=drop removed are not counted."""
    empty_thoughts: int = 0
    """Examples with an empty thought before an answer, as some templates write it where a row has none."""
    empty_thoughts_trained: bool = True
    """Whether the loss is on these too, see data.thinking."""
    histogram: dict[int, int] = field(default_factory=dict)
    """See `length_histogram`."""


@dataclass(frozen=True)
class Prepared:
    """Everything the training loop needs of the data."""

    train: TokenSet
    val: TokenSet
    val_examples: tuple[Example, ...]
    """The conversations behind `val`, for generated answers; empty for plain text."""
    labels: tuple[str, ...]
    """The label set of classification data, else empty."""
    val_files: tuple[str, ...]
    """Where each example of `val` is from: a file, or a dataset on the hub."""
    report: dict[str, Any]
    """JSON-ready, see docs/journal.md under `data`."""
    with_system: int | None = None
    """Examples that data.system became the system prompt of; None: it is not set."""


def prepare(config: RunConfig, template: ChatTemplate) -> Prepared:
    """Read and tokenise the run's data. Raises DataError when there is too little or too much of it is bad."""
    tags = template.thought_tags
    report = read_source(config, config.data.files, training_use(config), tags)
    examples: Sequence[Example] = report.examples
    val_report = read_source(config, config.data.val_files, "validation", tags) if config.data.val_files else None
    validation = val_report.examples if val_report else report.validation
    counts = {"train": TokenCounts(), "val": TokenCounts()}
    problems: list[Problem] = []
    fraction = 0.0 if validation else config.data.val_fraction
    val_examples: Sequence[Example] = ()
    held_out: list[Piece] = []
    if config.method.objective == "pretrain":
        chunks = encode_texts(config, template, examples, counts["train"], problems)
        if validation:
            held_out = encode_texts(config, template, validation, counts["val"], problems)
        else:
            chunks, held_out = split_chunks(chunks, fraction, config.data.seed)
        val = TokenSet.join(held_out)
        train = TokenSet.join(chunks)
    else:
        if validation:
            val_examples = validation
        else:
            examples, val_examples = split_examples(examples, fraction, config.data.seed)
        train, _ = encode_chats(config, template, examples, counts["train"], problems)
        val, val_examples = encode_chats(config, template, val_examples, counts["val"], problems)
    for name, tokens in (("train", train), ("val", val)):
        count(counts[name], tokens)
    rows = len(report.examples) + len(validation)
    _check_refused(problems, rows, config.data.max_bad_share)
    if len(train) == 0:
        lines = "\n".join(map(str, problems[:_MAX_PROBLEMS]))
        raise DataError(
            msg(
                "no example is left to train on: {skipped} were skipped\n{lines}",
                skipped=counts["train"].skipped,
                lines=lines,
            ).rstrip(),
            "Check data.max_length and data.train_on, and look at examples with `--dry-run --show 3`.",
        )
    labels = label_set(report.examples) or ()
    val_files = tuple(example.file for example in val_examples) or tuple(file for *_, file in held_out)
    reports = [report, val_report] if val_report else [report]
    summary = _summary(reports, counts, problems, labels, config.data.val_fraction)
    summary["val"]["sources"] = {name: len(indices) for name, indices in groups(val_files).items()}
    with_system = _with_system(reports, config.data.system)
    return Prepared(train, val, tuple(val_examples), labels, val_files, summary, with_system)


def _with_system(reports: list[DataReport], system: str) -> int | None:
    if not system:
        return None
    first = (example.messages[0] for report in reports for example in report.examples if example.messages)
    return sum(message["role"] == "system" and message.get("content") == system for message in first)


def training_use(config: RunConfig) -> str:
    """What a run's training files are read for: their validation split too, unless there are files for that."""
    return "training-only" if config.data.val_files else "training"


def read_source(config: RunConfig, files: list[str], use: str, tags: Tags) -> DataReport:
    """`use` is a key of formats.parts.USES; `tags`: what opens and closes a thought, for data.thinking=drop."""
    data = config.data
    report = read_data(
        files,
        mapping=data.map or None,
        format=data.format,
        system=data.system or None,
        objective=config.method.objective,
        use=use,
    )
    check_bad_share(report, data.max_bad_share)
    if data.thinking == "drop":
        dropped = sum(has_thought(example, tags) for example in (*report.examples, *report.validation))
        examples, validation = (
            tuple(without_thoughts(row, tags) for row in rows) for rows in (report.examples, report.validation)
        )
        return dataclasses.replace(report, examples=examples, validation=validation, thoughts_dropped=dropped)
    return report


@dataclass(frozen=True)
class Taken:
    """One example as a run uses it."""

    example: Example
    encoded: Encoded | None
    """All of its tokens; None where the template refuses it."""
    kept: int = 0
    """How many of the first of them are used: all, or data.max_length of them; 0 where the example is left out."""
    thought: bool = False
    empty_thought: bool = False
    problem: Problem | None = None
    """Why it is left out."""


def take_chats(
    config: RunConfig, template: ChatTemplate, examples: Sequence[Example], thoughts: Thoughts
) -> Iterator[Taken]:
    """Conversations as they are trained, in order; those trained turn by turn become several."""
    limit = config.data.max_length
    for example, encoded in _encoded(template, examples, config.data.train_on):
        if isinstance(encoded, DataError):
            yield Taken(example, None, problem=Problem(example.file, example.line, _REFUSED, encoded.message))
            continue
        encoded, thought, empty = thoughts.look(example, encoded)
        kept, problem = min(len(encoded.ids), limit), None
        if len(encoded.ids) > limit and config.data.overlong == "skip":
            message = msg(
                "{tokens:,} tokens, more than data.max_length {limit} (data.overlong skip)",
                tokens=len(encoded.ids),
                limit=limit,
            )
            kept, problem = 0, Problem(example.file, example.line, OVERLONG, message)
        elif not encoded.loss_mask[1:kept].any():
            message = "no trained token is left" + (f" within data.max_length {limit}" if kept == limit else "")
            if config.data.train_on == "matching" and encoded.turns and not encoded.loss_mask.any():
                message = "none of its answers reads as at inference (data.train_on matching)"
            kept, problem = 0, Problem(example.file, example.line, "nothing-trained", message)
        yield Taken(example, encoded, kept, thought, empty, problem)


def encode_chats(
    config: RunConfig, template: ChatTemplate, examples: Sequence[Example], counts: TokenCounts, problems: list[Problem]
) -> tuple[TokenSet, list[Example]]:
    """The token set, and the examples in it: those that kept a supervised token."""
    limit = config.data.max_length
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    kept_examples: list[Example] = []
    thoughts = Thoughts(template, config.data.thinking)
    counts.empty_thoughts_trained = thoughts.trains_empty
    for start in range(0, len(examples), _BATCH):
        for row in take_chats(config, template, examples[start : start + _BATCH], thoughts):
            encoded, problem = row.encoded, row.problem
            if encoded is not None:
                _note(template, row.example, encoded, counts, problems)
                counts.thoughts += row.thought
                counts.empty_thoughts += row.empty_thought
                counts.overlong += len(encoded.ids) > limit
                if problem is None or problem.code != OVERLONG:
                    counts.cut_tokens += max(0, len(encoded.ids) - limit)
                    counts.cut_supervised += int(encoded.loss_mask[limit:].sum())
            if problem is None and encoded is not None:
                kept.append((encoded.ids[: row.kept], encoded.loss_mask[: row.kept]))
                kept_examples.append(row.example)
            elif problem is not None:
                counts.skipped += 1
                if problem.code == OVERLONG:
                    counts.overlong_skipped += 1
                else:
                    problems.append(problem)
    return TokenSet.join(kept), kept_examples


def _encoded(
    template: ChatTemplate, examples: Sequence[Example], train_on: str
) -> Iterator[tuple[Example, Encoded | DataError]]:
    """Examples with their tokens. Where turns are trained separately, a conversation of several answers, any of which
    differs from inference, becomes one for each."""
    for example, encoded in zip(examples, template.encode_chats(examples, train_on), strict=True):
        turns = () if isinstance(encoded, DataError) else encoded.turns
        if train_on == "separate" and len(turns) > 1 and any(not DIFFERING.keys().isdisjoint(t.notes) for t in turns):
            parts = template.separate(example)
            yield from zip(parts, template.encode_chats(parts), strict=True)
        else:
            yield example, encoded


def _note(
    template: ChatTemplate, example: Example, encoded: Encoded, counts: TokenCounts, problems: list[Problem]
) -> None:
    """What the template makes of a row that is used: counted, and reported by its line where something is left out."""
    counts.turns += len(encoded.turns)
    notes: dict[str, str] = {}
    for turn in encoded.turns:
        for note in turn.notes:
            if note in DIFFERING:
                counts.differing[note] = counts.differing.get(note, 0) + 1
            else:
                notes[note] = DROPPED[note]
    for index, token in template.control_tokens(example)[:1]:
        notes[CONTROL_TOKEN] = control_token_line(example.messages[index]["role"], index, token)
    problems += [Problem(example.file, example.line, code, message) for code, message in notes.items()]


def encode_texts(
    config: RunConfig, template: ChatTemplate, examples: Sequence[Example], counts: TokenCounts, problems: list[Problem]
) -> list[Piece]:
    """Documents cut into pieces of at most max_length tokens; nothing is lost, but documents of one token."""
    pieces: list[Piece] = []
    for example in examples:
        encoded = encode_document(template, example)
        if isinstance(encoded, DataError):
            problems.append(Problem(example.file, example.line, _REFUSED, encoded.message))
            counts.skipped += 1
            continue
        counts.overlong += len(encoded.ids) > config.data.max_length
        cut = document_pieces(encoded, config.data.max_length)
        pieces += [(ids, loss_mask, example.file) for ids, loss_mask in cut]
    return pieces


def document_pieces(encoded: Encoded, limit: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The ids and trained flags of a document's pieces, each an example of at most `limit` tokens."""
    length = len(encoded.ids)
    cuts = [*range(0, length, limit), length]
    if cuts[-1] - cuts[-2] == 1 and len(cuts) > 2:
        cuts[-2] -= 1  # a piece of one token has nothing that predicts it
    spans = itertools.pairwise(cuts)
    return [(encoded.ids[start:end], encoded.loss_mask[start:end]) for start, end in spans if end - start > 1]


def encode_document(template: ChatTemplate, example: Example) -> Encoded | DataError:
    """The tokens of a row of continued pre-training, or why there are none: its text, or its conversation whole."""
    if example.text is not None:
        return template.encode_text(example.text)
    return template.encode_chats([example], "all")[0]


def _check_refused(problems: list[Problem], rows: int, allowed_share: float) -> None:
    """DataError when the chat template refuses more of the rows than may be bad."""
    refused = [problem for problem in problems if problem.code == _REFUSED]
    if len(refused) > allowed_share * rows:
        lines = "\n".join(f"  {problem}" for problem in refused[:_MAX_SHOWN])
        raise DataError(
            msg(
                "the chat template cannot take {refused:,} of {rows:,} rows: {percent:.3g}%, more "
                "than the {allowed:.3g}% allowed\n{lines}",
                refused=len(refused),
                rows=rows,
                percent=100 * len(refused) / rows,
                allowed=100 * allowed_share,
                lines=lines,
            ),
            "Mend these rows, give data.template another template, or allow more with data.max_bad_share.",
        )


def split_chunks(pieces: list[Piece], fraction: float, seed: int) -> tuple[list[Piece], list[Piece]]:
    """By a seeded hash of the tokens, so that equal pieces never fall on both sides."""
    if fraction == 0 or len(pieces) < 2:
        return pieces, []
    salt = seed.to_bytes(8, "little", signed=True)
    keys = [hashlib.blake2b(ids.tobytes(), digest_size=8, key=salt).digest() for ids, *_ in pieces]
    border = int(fraction * 2**64).to_bytes(8, "big")
    if not any(key < border for key in keys) and len(set(keys)) > 1:
        border = sorted(set(keys))[1]  # hold out one piece at least
    train = [piece for piece, key in zip(pieces, keys, strict=True) if key >= border]
    return train, [piece for piece, key in zip(pieces, keys, strict=True) if key < border]


def count(counts: TokenCounts, tokens: TokenSet) -> None:
    """Count the examples that are left, and their tokens."""
    lengths = tokens.lengths
    counts.examples = len(tokens)
    counts.tokens = int(lengths.sum())
    counts.supervised = int(tokens.loss_mask.sum())
    counts.longest = int(lengths.max(initial=0))
    counts.histogram = length_histogram(lengths)


def _summary(
    reports: list[DataReport],
    counts: dict[str, TokenCounts],
    problems: list[Problem],
    labels: Sequence[str],
    fraction: float,
) -> dict[str, Any]:
    return {
        **rows_told(reports, in_order(problems)),
        "labels": len(labels),
        "val_from": "file"
        if len(reports) > 1
        else "split"
        if reports[0].validation
        else msg("{fraction:g} of the rows", fraction=fraction),
        **{name: dataclasses.asdict(token_counts) for name, token_counts in counts.items()},
    }


def in_order(problems: list[Problem]) -> list[Problem]:
    """Problems that leave a row out come first: not all of them are shown."""
    return sorted(problems, key=lambda problem: problem.code in NOTE_CODES)


def data_hashes(dataset: Prepared) -> dict[str, str]:
    """sha256 of each data file, by its path."""
    return {file["path"]: file["sha256"] for file in dataset.report["files"]}
