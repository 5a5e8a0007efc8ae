"""What a run needs of memory and where it fits, as lines of the screen: `engine.present.memory_view` drawn."""

from engine.base.messages import msg
from engine.present.memory_view import MemoryFit, MemoryView, Verdict
from engine.present.text import fit, one_line
from tui.render.line import Line

_MOST_CARDS = 8
_VERDICTS = {Verdict.FITS: ("✔", "done"), Verdict.MAY_FIT: ("!", "warning"), Verdict.DOES_NOT_FIT: ("✖", "failed")}


def memory_lines(view: MemoryView) -> list[Line]:
    """The sum, its largest parts, each memory of the machine; where the run does not fit, what would make it fit."""
    lines: list[Line] = [
        [(msg("needs {expected} ", expected=view.expected), "bright"), (view.source, "dim")],
        [(msg("of it {largest}", largest=view.largest), "dim")],
    ]
    if view.cpu is not None:
        lines.append(_fit_line(view.cpu))
    if view.no_cards:
        lines.append([(msg("{reason}; on common cards:", reason=one_line(view.no_cards)), "dim")])
    lines += map(_fit_line, view.cards[:_MOST_CARDS])
    for saving in view.savings:
        lines.append([(f"  {saving.settings} ", "bright"), (f"→ {saving.needed}; {one_line(saving.why)}", "dim")])
    return lines


def _fit_line(memory: MemoryFit) -> Line:
    sign, role = _VERDICTS[memory.verdict]
    words = fit(memory.verdict.value, max(len(verdict.value) for verdict in Verdict))
    where = msg("  {name}, {free} free", name=one_line(memory.name), free=memory.free)
    return [(f"{sign} {words}", role), (where, "text")]
