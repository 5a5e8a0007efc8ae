"""What a run needs of memory and where it fits, as lines of the screen: `engine.present.memory_view` drawn."""

from engine.base.messages import msg
from engine.present.memory_view import MemoryFit, MemoryView, Verdict
from engine.present.text import cells, fit, one_line, wrap
from tui.render.line import Line

_MOST_CARDS = 8
_VERDICTS = {Verdict.FITS: ("✔", "done"), Verdict.MAY_FIT: ("!", "warning"), Verdict.DOES_NOT_FIT: ("✖", "failed")}


def memory_lines(view: MemoryView, width: int, short: bool = False) -> list[Line]:
    """The sum, each memory of this machine, the largest parts; where the run does not fit, what would make it fit.

    Of cards that are not here nothing is said. `short` leaves the parts out.
    """
    lines = _wrapped(msg("needs {expected}: {source}", expected=view.expected, source=view.source), width, "bright")
    if view.best is not None:
        on_cpu = view.best is view.cpu
        memories = (view.best,) if on_cpu else view.cards[:_MOST_CARDS]
        widest = max(cells(memory.verdict.value) for memory in memories)
        for memory in memories:
            lines += _fit_lines(memory, widest, width)
        for saving in () if on_cpu else view.savings:
            change = msg("{settings} → {needed}; {why}", settings=saving.settings, needed=saving.needed, why=saving.why)
            lines += _wrapped(change, width, "text")
    if not short and view.best is not None:
        lines += _wrapped(msg("of it {largest}; {passes}", largest=view.largest, passes=view.passes), width, "dim")
    return lines


def _wrapped(text: str, width: int, role: str) -> list[Line]:
    return [[(line, role)] for line in wrap(text, width, "", "  ")]


def _fit_lines(memory: MemoryFit, verdict_width: int, width: int) -> list[Line]:
    sign, role = _VERDICTS[memory.verdict]
    verdict = f"{sign} {fit(memory.verdict.value, verdict_width)}"
    where = msg("{name}, {free} free", name=one_line(memory.name), free=memory.free)
    if cells(verdict) + 2 + cells(where) <= width:
        return [[(verdict, role), (f"  {where}", "text")]]
    return [[(verdict.rstrip(), role)], *([(line, "text")] for line in wrap(where, width, "  ", "  "))]
