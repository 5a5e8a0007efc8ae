"""Data files -> examples, with every bad row counted and named by its line. No torch, no transformers.

The names are handed on when they are first used: a command that only names a format does not pay 30 ms for
the readers.
"""

from typing import TYPE_CHECKING

from engine.base.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from engine.formats.columns import FORMATS, ROLES
    from engine.formats.read import read_data, stream_data
    from engine.formats.read_report import check_bad_share, files_told
    from engine.formats.row_errors import NOTE_CODES
    from engine.formats.row_stream import Opened, Row
    from engine.formats.train_val_split import example_key, label_set, split_examples

__all__ = [
    "FORMATS",
    "NOTE_CODES",
    "ROLES",
    "Opened",
    "Row",
    "check_bad_share",
    "example_key",
    "files_told",
    "label_set",
    "read_data",
    "split_examples",
    "stream_data",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "FORMATS": "columns",
        "NOTE_CODES": "row_errors",
        "Opened": "row_stream",
        "ROLES": "columns",
        "Row": "row_stream",
        "check_bad_share": "read_report",
        "example_key": "train_val_split",
        "files_told": "read_report",
        "label_set": "train_val_split",
        "read_data": "read",
        "split_examples": "train_val_split",
        "stream_data": "read",
    },
)
