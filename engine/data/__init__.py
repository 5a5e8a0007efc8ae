"""Looking after data files: check, show, clean, convert, split. Rows are streamed; what is compared is held as numbers.

No torch. The names are handed on when they are first used.
"""

from typing import TYPE_CHECKING

from engine.base.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from engine.data.check_data import check
    from engine.data.check_report import CheckReport, Issue
    from engine.data.clean_data import clean
    from engine.data.convert_data import convert
    from engine.data.issue_types import ISSUE_TYPES
    from engine.data.show_data import show
    from engine.data.split_data import split

__all__ = ["ISSUE_TYPES", "CheckReport", "Issue", "check", "clean", "convert", "show", "split"]

__getattr__ = lazy_exports(
    __name__,
    {
        "ISSUE_TYPES": "issue_types",
        "CheckReport": "check_report",
        "Issue": "check_report",
        "check": "check_data",
        "clean": "clean_data",
        "convert": "convert_data",
        "show": "show_data",
        "split": "split_data",
    },
)
