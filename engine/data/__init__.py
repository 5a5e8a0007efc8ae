"""Looking after data files: check, show, clean, convert, split. Rows are streamed; what is compared is held as numbers.

No torch. The names are handed on when they are first used.
"""

from typing import TYPE_CHECKING

from engine.lazy import handing_on

if TYPE_CHECKING:
    from engine.data.checking import check
    from engine.data.cleaning import clean
    from engine.data.conversion import convert
    from engine.data.kinds import KINDS
    from engine.data.report import CheckReport, Find
    from engine.data.showing import show
    from engine.data.splitting import split

__all__ = ["KINDS", "CheckReport", "Find", "check", "clean", "convert", "show", "split"]

__getattr__ = handing_on(
    __name__,
    {
        "KINDS": "kinds",
        "CheckReport": "report",
        "Find": "report",
        "check": "checking",
        "clean": "cleaning",
        "convert": "conversion",
        "show": "showing",
        "split": "splitting",
    },
)
