"""The last event in words, and what happened since the user last looked. Pure."""

from collections import Counter
from collections.abc import Sequence

from engine.base.messages import msg
from engine.metrics.best_evaluation import LOSS
from engine.present import numbers
from engine.present.numbers import listed
from engine.present.text import one_line
from engine.store.run_records import Run, RunState
from tui.data.snapshot import News
from tui.render.theme import STATE_STYLES, state_style


def since_last_time(runs: Sequence[Run], seen: float) -> list[str]:
    """What ended and how, the best of it, and what got worse; nothing if nothing ended."""
    ended = _ended(runs, seen)
    if not ended:
        return []
    pieces = []
    for state, word in (
        (RunState.DONE, "finished"),
        (RunState.FAILED, "failed"),
        (RunState.STOPPED, "stopped"),
        (RunState.INTERRUPTED, "interrupted"),
    ):
        of_state = [run for run in ended if run.state is state]
        if of_state:
            pieces.append(f"{len(of_state)} {word} ({listed(sorted(run.id for run in of_state))})")
    scored = [run for run in ended if run.best.improved]
    if scored:
        # Values of different metrics say nothing about each other: those by which most of the runs are judged.
        by = Counter(run.best_by for run in scored).most_common(1)[0][0]
        best = min((run for run in scored if run.best_by == by), key=_badness)
        rivals = [run for run in runs if run.best_eval is not None and (run.data, run.best_by) == (best.data, by)]
        first = all(_badness(run) >= _badness(best) for run in rivals)
        pieces.append(
            msg(
                "best {id} with {best} {best_eval}",
                id=best.id,
                best=_metric(best),
                best_eval=numbers.short_metric(best.best_eval),
            )
            + (msg(", best of {num_rivals} on its data", num_rivals=len(rivals)) if first and len(rivals) > 1 else "")
        )
    if worse := sorted(run.id for run in ended if run.best.improved is False):
        pieces.append(msg("never better than at the start: {worse}", worse=listed(worse)))
    return pieces


def ended_since(runs: Sequence[Run], seen: float) -> list[str]:
    """Each run that ended, a line, the last first: how, and why or how well."""
    lines = []
    for run in _ended(runs, seen):
        style = STATE_STYLES[run.state]
        outcome = one_line(run.reason or "") if run.state is not RunState.DONE else ""
        if not outcome and run.best_eval is not None:
            outcome = f"{_metric(run)} {run.best.brief(numbers.short_metric)}"
        ending = f"{style.glyph} {run.id} {one_line(run.name)} {style.word}" + (f": {outcome}" if outcome else "")
        lines.append(f"{numbers.clock(run.finished or seen)}  {ending}")
    return lines


def _ended(runs: Sequence[Run], seen: float) -> list[Run]:
    ended = [run for run in runs if run.ended and run.finished is not None and run.finished > seen]
    return sorted(ended, key=lambda run: run.finished or 0.0, reverse=True)


def event_words(news: News) -> tuple[str, str] | None:
    """An event as the line above the footer gives it, and its role; None for what is not worth a line."""
    event, run = news.event, news.run
    name = f"{event.run_id} {one_line(run.name)}" if run is not None else str(event.run_id)
    if event.kind != "state":
        return f"! {name}: {one_line(event.message)}", "warning"
    state = event.message
    if state == "starting":
        return None
    if state == RunState.RUNNING:
        return f"{STATE_STYLES[RunState.RUNNING].glyph} {name} runs", "text"
    if state not in set(RunState):
        return None
    style = STATE_STYLES[RunState(state)]
    if state == RunState.DONE:
        return f"{style.glyph} {name} finished{_result(news)}", style.role if run is None else state_style(run).role
    reason = event.detail.get("reason") or (run.reason if run else "")
    return f"{style.glyph} {name} {style.word}{': ' + one_line(str(reason)) if reason else ''}", style.role


def _result(news: News) -> str:
    if news.run is None or news.run.best_eval is None or not news.rank:
        return ""
    if not news.run.best.improved:
        return f": {_metric(news.run)} {news.run.best.words(numbers.short_metric)}"
    rank = "best" if news.rank == 1 else _ordinal(news.rank)
    return f": {_metric(news.run)} {numbers.short_metric(news.run.best_eval)}" + (
        msg(", {rank} of {scored:,} runs on this data", rank=rank, scored=news.scored) if news.scored > 1 else ""
    )


def _badness(run: Run) -> float:
    return run.best.badness or 0.0


def _metric(run: Run) -> str:
    """What a run is judged by, in short."""
    return "eval" if run.best.criterion == LOSS else one_line(run.best.criterion.name)


def _ordinal(number: int) -> str:
    """`2nd`, `11th`."""
    word = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{word}"
