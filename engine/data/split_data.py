"""Cut a data file into training, validation and test files, with equal and nearly equal questions on one side."""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from engine.base.errors import DataError, InputError
from engine.base.messages import msg
from engine.data.check_report import Progress
from engine.data.duplicate_groups import joined, near_pairs
from engine.data.row_index import RowIndex, answer_text
from engine.data.row_writer import Outputs, Seal, one_file, opened_like, proven, rows_of
from engine.formats import Opened
from engine.formats.train_val_split import LONGEST_LABEL

PARTS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Parts:
    files: dict[str, Path]
    rows: dict[str, int]
    bad_rows: int
    """Rows that cannot be used; they are in none of the files."""
    kept_together: int
    """Rows that stand with another because their questions are equal or nearly so."""
    largest_group: int
    notes: tuple[str, ...]


def split(
    source: str,
    *,
    val: float,
    test: float = 0.0,
    by_label: bool = False,
    seed: int = 0,
    folder: str | Path | None = None,
    force: bool = False,
    mapping: dict[str, str] | None = None,
    format: str = "auto",
    progress: Progress = lambda doing, done, total: None,
) -> Parts:
    """Write NAME.train, NAME.val and (with `test`) NAME.test beside the source or in `folder`, in its own format.

    The shares are of rows, met as nearly as whole groups of like questions allow; with `by_label` within each label.
    Which rows go where follows from their questions and the seed, not from their order in the file.
    """
    if not 0 <= val < 1 or not 0 <= test < 1 or not 0 < val + test < 1:
        raise InputError(
            msg(
                "the shares --val {val:g} and --test {test:g} must be at least 0 and leave something to train on",
                val=val,
                test=test,
            ),
            "For example --val 0.1 --test 0.1.",
        )
    path = one_file(source)
    names = [part for part, share in zip(PARTS, (1, val, test), strict=True) if share]
    where = Path(folder).expanduser() if folder else path.parent
    files = {part: where / f"{path.stem}.{part}{path.suffix}" for part in names}
    reading = {"mapping": mapping, "format": format}

    with Outputs(files, [str(path)], force) as outputs:
        labels: list[str] = []
        with RowIndex() as pool:
            for item in rows_of(str(path), **reading):
                if not isinstance(item, Opened) and item.example is not None:
                    pool.add(item.example)
                    if by_label:
                        labels.append(_label(item.example))
            if len(pool) < 2:
                raise DataError(
                    msg("{path} has {usable:,} usable rows; there is nothing to split", path=path, usable=len(pool))
                )
            groups = _groups(pool, progress)
            order = [_rank(key, seed) for key in pool.question]
        chosen, notes = _choose(groups, order, labels, {"val": val, "test": test})
        seals = {part: Seal() for part in names}
        row = bad = 0
        with contextlib.ExitStack() as opened:
            for item in rows_of(str(path), **reading):
                if isinstance(item, Opened):
                    out = {part: opened.enter_context(opened_like(item, outputs.temporary[part])) for part in names}
                elif item.example is None:
                    bad += not item.is_line_note
                else:
                    part = chosen[groups[row]]
                    row += 1
                    out[part].write_again(item)
                    seals[part].add(item.example)
        progress("reading the result", 0, 1)
        for part, seal in seals.items():
            if not seal.count:
                raise DataError(
                    msg("{path}: no row would be left in {part}", path=path, part=part),
                    "Its questions are too few, or too much alike, for these shares.",
                )
            proven(outputs.temporary[part], seal, files[part], **reading)
    sizes = Counter(groups.tolist())
    return Parts(
        files,
        {part: seal.count for part, seal in seals.items()},
        bad,
        sum(size for size in sizes.values() if size > 1),
        max(sizes.values()),
        tuple(notes),
    )


def _label(example) -> str:
    label = answer_text(example).strip()
    if example.text is not None or len(label) > LONGEST_LABEL:
        raise DataError(
            msg(
                "{file}:{line}: this row has no label: its answer is a text of {characters:,} characters",
                file=example.file,
                line=example.line,
                characters=len(label),
            ),
            "Leave out --by-label; it is for classification data.",
        )
    return label


def _groups(pool: RowIndex, progress: Progress) -> np.ndarray:
    """The group of each row, named by its first row."""

    def pairs() -> Iterator[tuple[int, int]]:
        for group in pool.groups(np.array(pool.question, np.uint64)):
            first = int(group[0])
            yield from ((first, int(row)) for row in group[1:])
        for pair in near_pairs(pool, answers=False, advance=lambda done, total: progress("comparing", done, total)):
            yield pair.row, pair.other

    return joined(len(pool), pairs())


def _rank(key: int, seed: int) -> int:
    digest = blake2b(key.to_bytes(8, "big"), digest_size=8, key=str(seed).encode()[:64]).digest()
    return int.from_bytes(digest, "big")


def _choose(
    groups: np.ndarray, order: list[int], labels: list[str], shares: dict[str, float]
) -> tuple[dict[int, str], list[str]]:
    """(part of each group, what could not be done as asked)."""
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups.tolist()):
        members[group].append(row)
    strata: dict[str, list[int]] = defaultdict(list)
    for group, rows in members.items():
        # A group whose rows have several labels counts for the most frequent one.
        label = Counter(labels[row] for row in rows).most_common(1)[0][0] if labels else ""
        strata[label].append(group)
    part_of: dict[int, str] = {}
    notes = []
    unheld = []
    for label, within in sorted(strata.items()):
        within.sort(key=lambda group: (min(order[row] for row in members[group]), group))
        total = sum(len(members[group]) for group in within)
        left = list(within)
        for part in ("test", "val"):
            left, took = _fill(left, members, round(shares[part] * total), bool(shares[part]), part, part_of)
            if shares[part] and not took:
                unheld.append(
                    msg("'{label}' has none in {part}", label=label, part=part)
                    if labels
                    else msg("no group fits {part}", part=part)
                )
        part_of.update(dict.fromkeys(left, "train"))
    if unheld and labels:
        notes.append(
            msg("too few rows: {unheld}", unheld=", ".join(unheld[:5]))
            + (msg(" and {more} more", more=len(unheld) - 5) * (len(unheld) > 5))
        )
    return part_of, notes


def _fill(
    left: list[int],
    members: dict[int, list[int]],
    target_rows: int,
    at_least_one: bool,
    part: str,
    part_of: dict[int, str],
) -> tuple[list[int], int]:
    """Groups in their order that fit into the rows that this part is to have; (the groups not taken, rows taken)."""
    if at_least_one:
        target_rows = max(target_rows, 1)
    took = 0
    skipped: list[int] = []
    for index, group in enumerate(left):
        size = len(members[group])
        # One group stays behind for training.
        remains = len(skipped) + len(left) - index - 1
        if took + size <= target_rows and remains:
            part_of[group] = part
            took += size
        else:
            skipped.append(group)
    return skipped, took
