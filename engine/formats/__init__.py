"""Data files -> examples, with every bad row counted and named by its line. No torch, no transformers."""

from engine.formats.columns import FORMATS, ROLES
from engine.formats.faults import NOTE_CODES
from engine.formats.read import read_data
from engine.formats.report import check_bad_share
from engine.formats.split import example_key, label_set, split_examples

__all__ = [
    "FORMATS",
    "NOTE_CODES",
    "ROLES",
    "check_bad_share",
    "example_key",
    "label_set",
    "read_data",
    "split_examples",
]
