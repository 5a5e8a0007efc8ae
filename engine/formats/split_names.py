"""Training, validation and test parts of a data set, told by the names people give to files, keys and rows."""

import re
from collections.abc import Sequence

TRAIN, VALIDATION, TEST = "train", "validation", "test"

_NAMES = {
    "train": TRAIN, "training": TRAIN,
    "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION, "eval": VALIDATION,
    "evaluation": VALIDATION,
    "test": TEST, "testing": TEST, "holdout": TEST,
    "训练集": TRAIN, "验证集": VALIDATION, "测试集": TEST,
}  # fmt: skip
_HELD_OUT = re.compile(r"h[eo]ld[-_ ]?out")
_SHARD = re.compile(r"([-_.]\d+)+([-_.]of[-_.]\d+)?$|[-_.]part[-_.]?\d+$", re.IGNORECASE)
_ENDS = re.compile(r"^([^\W\d_]+)(?=$|[\W\d_])|(?:^|[\W_])([^\W\d_]+)\d*$")
_LONGEST_NAME = 255
"""Characters of a name that a file can have; a key may be any text."""
COLUMNS = ("split", "partition", "data_split", "dataset_split")
"""Columns in which a row can say which part it belongs to."""

USES = {
    "training": ((TRAIN, VALIDATION), True),
    "training-only": ((TRAIN,), True),
    "validation": ((VALIDATION, TEST, TRAIN), False),
    "evaluation": ((TEST, VALIDATION, TRAIN), False),
    "all": ((TRAIN, VALIDATION, TEST), True),
}
"""What a source is read for -> the parts used, and whether all of them are, or the first that is there."""
TRAINING_USES = ("training", "training-only")


def part_of_name(name: str) -> str:
    """The part a file's stem, a folder or a key names at its beginning or its end; '' where it names none.

    So 'train', 'squad_test', 'dev-00000-of-00002' and 'test2' do; 'unit-test-questions' and 'latest' do not.
    """
    if len(name) > _LONGEST_NAME:
        return ""
    name = _SHARD.sub("", _plain(name))
    for match in _ENDS.finditer(name):
        if part := _NAMES.get(match[1] or match[2]):
            return part
    return ""


def part_of_value(value: object) -> str:
    """The part a row's own column names."""
    return _NAMES.get(_plain(value), "") if isinstance(value, str) else ""


def split_column(rows: Sequence[dict]) -> str:
    """The column, whatever its name, that says which part a row belongs to: it holds nothing but names of parts, that
    of the training part among them. '' for none."""
    held: dict[str, set[str]] = {}
    for row in rows:
        for column, value in row.items():
            if value not in (None, ""):
                held.setdefault(column, set()).add(part_of_value(value))
    return next((column for column, parts in held.items() if TRAIN in parts and "" not in parts), "")


def _plain(name: str) -> str:
    return _HELD_OUT.sub("holdout", name.strip().casefold())
