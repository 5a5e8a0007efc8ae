"""Looking after data files: check, clean, convert, split. Rows are streamed; what is compared is held as numbers.

No torch. The names are handed on when they are first used (PEP 562).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.data.check import check
    from engine.data.clean import clean
    from engine.data.convert import convert
    from engine.data.kinds import KINDS
    from engine.data.report import CheckReport, Find
    from engine.data.split import split

__all__ = ["KINDS", "CheckReport", "Find", "check", "clean", "convert", "split"]

_MODULES = {
    "KINDS": "kinds",
    "CheckReport": "report",
    "Find": "report",
}


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_MODULES.get(name, name)}"), name)
    globals()[name] = value
    return value
