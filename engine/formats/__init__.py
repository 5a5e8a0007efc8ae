"""Data files -> examples, with every bad row counted and named by its line. No torch, no transformers.

The names are handed on when they are first used: a command that only names a format does not pay 30 ms for
the readers.
"""

from typing import TYPE_CHECKING

from engine.lazy import handing_on

if TYPE_CHECKING:
    from engine.formats.columns import FORMATS, ROLES
    from engine.formats.faults import NOTE_CODES
    from engine.formats.read import read_data, stream_data
    from engine.formats.reading import Opened, Row
    from engine.formats.report import check_bad_share, files_told
    from engine.formats.split import example_key, label_set, split_examples

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

__getattr__ = handing_on(
    __name__,
    {
        "FORMATS": "columns",
        "NOTE_CODES": "faults",
        "Opened": "reading",
        "ROLES": "columns",
        "Row": "reading",
        "check_bad_share": "report",
        "example_key": "split",
        "files_told": "report",
        "label_set": "split",
        "read_data": "read",
        "split_examples": "split",
        "stream_data": "read",
    },
)
