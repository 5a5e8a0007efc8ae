"""Looking after data files: check, clean, convert, split. Rows are streamed; what is compared is held as numbers.

No torch. The names are handed on when they are first used (PEP 562).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.data.checking import check
    from engine.data.cleaning import clean
    from engine.data.conversion import convert
    from engine.data.kinds import KINDS
    from engine.data.report import CheckReport, Find
    from engine.data.splitting import split

__all__ = ["KINDS", "CheckReport", "Find", "check", "clean", "convert", "split"]

# No module has the name of a function: importing it would put the module in the function's place.
_MODULES = {
    "KINDS": "kinds",
    "CheckReport": "report",
    "Find": "report",
    "check": "checking",
    "clean": "cleaning",
    "convert": "conversion",
    "split": "splitting",
}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
