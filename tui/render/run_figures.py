"""What is said of the selected run beside its chart: the figures under it, or in its place why there is none. Pure."""

from collections.abc import Mapping, Sequence

from engine.base.messages import msg, msg_n
from engine.base.units import bytes_text
from engine.present import numbers
from engine.present.text import cells, one_line, wrap
from engine.store.run_records import Run, RunState, Series
from tui.render.line import Line

_MEMORY = ("VRAM", "RAM")
_SILENT_SECONDS = 5.0
"""How late a sign of life may be before it is told."""


def figure_lines(run: Run, series: Mapping[str, Series], now: float, width: int, logged: bool) -> list[Line]:
    """The two lines under a chart: how far, how fast, and the newest of each; of a run that waits why, where the chart
    shows what it `logged` before."""
    if run.state is RunState.QUEUED:
        waits = waiting_lines(run)[0] if logged else ""
        return [[(" " + text, "text")] for text in wrap(waits, max(20, width - 2))]
    first = [f"step {numbers.count(run.step)}" + (f" of {numbers.count(run.total_steps)}" if run.total_steps else "")]
    # The run's own epoch is that of its last checkpoint.
    epoch = series["train/epoch"].last if "train/epoch" in series else run.epoch
    if epoch is not None:
        first.append(f"epoch {epoch:.2f}")
    if run.active and run.step_seconds:
        first.append(f"{run.step_seconds:.3g} s/step")
    if run.tokens_per_second:
        first.append(f"{numbers.short(run.tokens_per_second)} tok/s")
    if run.seconds_left is not None:
        first.append(f"{numbers.duration(run.seconds_left)} left")
    second = [] if run.nan_since is None else [msg("loss NaN since step {step:,}", step=run.nan_since)]
    for key, name in (("train/lr", "lr"), ("train/grad_norm", "grad"), ("eval/loss", "eval")):
        if key in series and series[key].last is not None:
            second.append(f"{name} {numbers.plain_number(float(f'{series[key].last:.3g}'))}")
    loss = series.get("train/loss")
    if loss is not None and loss.nonfinite and run.nan_since is None:
        second.append(
            msg_n(
                "loss NaN at {n:,} of {count:,} steps",
                "loss NaN at {n:,} of {count:,} steps",
                loss.nonfinite,
                count=loss.count,
            )
        )
    best = run.best
    if best.improved:
        metric = "" if best.criterion.key == "eval/loss" else f"{one_line(best.criterion.name)} "
        second.append(
            msg(
                "best {metric}{best} at {step}",
                metric=metric,
                best=numbers.short_metric(best.value),
                step=numbers.count(best.step),
            )
        )
    elif best.start is not None and run.ended:
        second.append(best.words(numbers.short_metric))
    role = "text" if run.nan_since is None else "warning"
    if run.active and run.beat_due is not None and now > run.beat_due + _SILENT_SECONDS:
        # The next heartbeat is overdue; until then silence means nothing.
        second.insert(0, f"silent {numbers.duration(now - (run.beat or now))}")
        role = "warning"
    return [[(" " + _joined(first, width - 2), "text")], [(" " + _joined(second, width - 2), role)]]


def why_no_chart(run: Run, tab: str) -> str:
    """What a tab says in place of a chart of which nothing was logged."""
    if run.state is RunState.QUEUED:
        return "\n".join(waiting_lines(run))
    if run.active:
        if tab in _MEMORY:
            return "the daemon measures it while the run makes steps; nothing is there yet"
        return msg("first {tab} still to come", tab=tab.lower() if tab != "Eval" else "evaluation")
    if tab in _MEMORY:
        return "not measured: no daemon looked on while it ran, or it ended within its first steps"
    return "nothing of this was logged"


def waiting_lines(run: Run) -> list[str]:
    """Of a run that waits: why, and what it is expected to take."""
    if run.held:
        lines = ["It is held: h releases it."]
    elif run.wait_reason:
        lines = [msg("It waits: {reason}", reason=one_line(run.wait_reason))]
    else:
        lines = ["It waits for its turn."]
    expected = []
    if run.estimate_bytes:
        memory = bytes_text(run.estimate_bytes)
        expected.append(msg("about {memory} of memory, by arithmetic when it was queued", memory=memory))
    if run.estimate_seconds:
        expected.append(msg("about {time}", time=numbers.duration(run.estimate_seconds)))
    return [*lines, *(["", f"Expected: {', '.join(expected)}."] if expected else []), "", "Nothing is logged yet."]


def _joined(parts: Sequence[str], width: int) -> str:
    """As many of the parts as fit, the first first."""
    text = ""
    for part in parts:
        longer = f"{text} · {part}" if text else part
        if cells(longer) > width:
            break
        text = longer
    return text
