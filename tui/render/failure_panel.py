"""The failure panel: what happened, why, the last lines of the log, and what usually helps, cheapest first."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.base.messages import msg
from engine.present import numbers
from engine.present.text import cells, fit, one_line, wrap
from engine.store.run_records import Checkpoint, Run, RunState
from tui.data.snapshot import Detail
from tui.render.line import Line
from tui.render.theme import state_style

if TYPE_CHECKING:
    from engine.plan.fixes import Fix  # brings the plan and the settings with it, when the first failure is looked at

_LOG_LINES = 8
_AT_ONCE = 10.0


def failure_panel(
    run: Run, detail: Detail | None, fixes: "Sequence[Fix] | None", log: Sequence[str], width: int
) -> list[Line]:
    """The panel's lines. `fixes` is None while they are being worked out."""
    style = state_style(run)
    took = run.finished - run.started if run.finished and run.started else None
    reason = one_line(
        run.reason or {RunState.INTERRUPTED: "interrupted"}.get(run.state, "it failed, and left no word why")
    )
    # Of one that failed at once, when says nothing.
    elapsed = msg(", {took} after start", took=numbers.duration(took)) if took is not None and took >= _AT_ONCE else ""
    lines: list[Line] = [[]]
    for index, text in enumerate(wrap(f"{reason[:1].upper()}{reason[1:]}{elapsed}", width - 5)):
        lines.append(
            [(f" {style.glyph if not index else ' '} ", style.role), (text, style.role if not index else "text")]
        )
    lines.append([])
    why = _why(run, detail)
    for text in why:
        lines += [[("   " + part, "text")] for part in wrap(text, width - 5)]
    if good := last_good(detail):
        lines.append(
            [
                ("   ", "text"),
                (msg("The checkpoint of step {step} is good", step=numbers.count(good.step)), "done"),
                (": r goes on from it", "text"),
            ]
        )
    if fixes:
        lines += [[], [("   What usually helps, cheapest first", "bright")]]
        label_width = min(44, max(cells(fix.label) for fix in fixes)) + 2
        for fix in fixes:
            count = len(fix.effects)
            while count and label_width + 5 + cells(", ".join(fix.effects[:count])) > width:
                count -= 1
            beside, below = ", ".join(fix.effects[:count]), ", ".join(fix.effects[count:])
            label = fit(one_line(fix.label), label_width)
            lines.append([("   · ", "key"), (label, "text"), (beside, "dim")])
            lines += [[("     " + part, "dim")] for part in wrap(below, width - 8) if part]
        ways = "e queues it again with some of these, or edits it"
        lines += [[("   " + part, "dim")] for part in wrap(ways, max(20, width - 4))]
    elif fixes is None:
        lines += [[], [("   looking for what helps", "dim")]]
    printed = [text for text in log if text.strip()][-_LOG_LINES:]
    above = f"{run.reason or ''}\n" + "\n".join(why)
    if any(text.strip() not in above for text in printed):
        lines += [[], [("   Last lines of the log", "bright"), ("   L shows all of it", "dim")]]
        lines += [[("   " + one_line(text), "dim")] for text in printed[:-1]]
        # Of a traceback the last line says what it was.
        lines += [[("   " + part, "dim")] for part in wrap(printed[-1], max(20, width - 4))]
    return lines


def _why(run: Run, detail: Detail | None) -> list[str]:
    """The error's own words and the worker's hint, each once, and not what the reason says already."""
    if detail is None:
        return []
    hint = next((event.detail["hint"] for event in reversed(detail.events) if event.detail.get("hint")), None)
    error_lines = [line for line in detail.error.strip().splitlines() if line.strip()]
    texts: list[str] = []
    for text in [*error_lines[-1:], hint if isinstance(hint, str) else ""]:
        text = text.strip()
        # A traceback names the error's module, where the reason has its name alone.
        sentences = [run.reason or "", *texts]
        if text and not any(text in line or (line and text.endswith(line)) for line in sentences):
            texts.append(text)
    return texts


def last_good(detail: Detail | None) -> Checkpoint | None:
    """The newest checkpoint whose files are there."""
    if detail is None:
        return None
    return next((point for point in detail.checkpoints if detail.present is None or point.step in detail.present), None)
