"""The failure card: what happened, why, the last words of the log, and what usually helps, cheapest first.

The effects on memory are the plan's own estimates, before and after each change; where a model's shape is not known
they are left out rather than guessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.base.messages import msg
from engine.present import numbers
from engine.present.text import cells, fit, one_line, wrap
from engine.store.run_records import Checkpoint, Run, RunState
from tui.data.snapshot import Detail
from tui.render.line import Line
from tui.render.theme import look

if TYPE_CHECKING:
    from engine.settings.schema import RunConfig

_LOG_LINES = 8


@dataclass(frozen=True, slots=True)
class Fix:
    label: str
    changes: Mapping[str, Any]
    """Settings by path."""
    effect: str = ""


def cause(run: Run, detail: Detail | None) -> str:
    """In one word, as worker and daemon call it: 'out-of-memory', 'not-finite', 'input', ...; 'failed' if unknown."""
    for event in reversed(detail.events if detail else ()):
        said = event.detail.get("cause") or event.detail.get("end")
        if isinstance(said, str):
            return said
        if event.kind == "state" and event.message == "starting":
            break
    reason = (run.reason or "").lower()
    if "memory" in reason:
        return "out-of-memory"
    return "not-finite" if "nan" in reason or "finite" in reason else "failed"


def fixes(config: "RunConfig", why: str) -> list[Fix]:
    """What usually helps. Called on the feed's thread: it may read the model's config file."""
    if why == "out-of-memory":
        return _memory_fixes(config)
    if why == "not-finite":
        found = []
        rate = config.optim.learning_rate
        if isinstance(rate, float) and rate > 0:
            found.append(
                Fix(
                    msg(
                        "learning rate {rate} → {lower}",
                        rate=numbers.plain_number(rate),
                        lower=numbers.plain_number(rate / 3),
                    ),
                    {"optim.learning_rate": rate / 3},
                    "the usual reason",
                )
            )
        if config.optim.warmup < 0.1:
            found.append(Fix("warm-up over the first tenth", {"optim.warmup": 0.1}, "the first steps are the wildest"))
        if config.optim.grad_clip == 0 or config.optim.grad_clip > 0.5:
            found.append(Fix("gradients clipped at 0.5", {"optim.grad_clip": 0.5}, ""))
        if config.model.dtype == "bfloat16":
            found.append(Fix("arithmetic in float32", {"model.dtype": "float32"}, "slower, more memory"))
        return found
    if why == "oom-killer":
        return [fix for fix in _memory_fixes(config) if fix.changes.keys() & {"train.micro_tokens", "data.max_length"}]
    return []


def _memory_fixes(config: "RunConfig") -> list[Fix]:
    from engine.plan import memory_estimate

    before = memory_estimate(config)
    wished: list[tuple[str, dict[str, Any], str]] = []
    passing = (
        config.train.micro_tokens
        if isinstance(config.train.micro_tokens, int)
        else before.micro_tokens
        if before
        else 0
    )
    if passing >= 256:
        wished.append(
            (
                msg("{passing} → {passing_2} tokens in a pass", passing=passing, passing_2=passing // 2),
                {"train.micro_tokens": passing // 2},
                "a little slower, the same result",
            )
        )
    if config.train.activation_checkpointing is not True:
        # One more forward pass beside a forward and a backward one that costs two (Chen et al. 2016).
        wished.append(
            (
                "activation checkpointing on",
                {"train.activation_checkpointing": True},
                "about a third slower, the same result",
            )
        )
    if config.method.kind == "full" and config.optim.name == "adamw":
        wished.append(("8-bit optimizer", {"optim.name": "adamw8bit"}, "about as fast"))
    if config.data.max_length >= 512:
        half = config.data.max_length // 2
        wished.append(
            (msg("examples cut at {half} tokens", half=half), {"data.max_length": half}, "longer ones lose their end")
        )
    if config.method.kind == "lora":
        wished.append(("4-bit base weights", {"method.kind": "qlora"}, "slower"))
    if config.method.kind == "full":
        wished.append(
            ("an adapter in place of all weights", {"method.kind": "lora"}, "another method: set the rate anew")
        )
    found = []
    for label, changes, price in wished:
        after = memory_estimate(config.replace(changes)) if before else None
        saved = before.expected - after.expected if before and after else None
        if saved is not None and saved < 0.005 * before.expected:
            continue  # no help here
        memory = f"~−{numbers.size(saved)}" if saved is not None else ""
        found.append(Fix(label, changes, ", ".join(filter(None, (memory, price)))))
    return found


def failure_panel(
    run: Run, detail: Detail | None, helps: Sequence[Fix] | None, log: Sequence[str], width: int
) -> list[Line]:
    """The card's lines. `helps` is None while they are being worked out."""
    known = look(run)
    took = run.finished - run.started if run.finished and run.started else None
    story = one_line(
        run.reason or {RunState.INTERRUPTED: "interrupted"}.get(run.state, "it failed, and left no word why")
    )
    after = msg(", {took} after start", took=numbers.duration(took)) if took is not None and took >= 0 else ""
    lines: list[Line] = [[]]
    for index, text in enumerate(wrap(f"{story[:1].upper()}{story[1:]}{after}", width - 5)):
        lines.append(
            [(f" {known.glyph if not index else ' '} ", known.role), (text, known.role if not index else "text")]
        )
    lines.append([])
    for text in _why(run, detail):
        lines += [[("   " + part, "text")] for part in wrap(text, width - 5)]
    if good := last_good(detail):
        lines.append(
            [
                ("   ", "text"),
                (msg("The checkpoint of step {step} is good", step=numbers.count(good.step)), "done"),
                (": r goes on from it", "text"),
            ]
        )
    if helps:
        lines += [[], [("   What usually helps, cheapest first", "bright")]]
        label_width = min(44, max(cells(fix.label) for fix in helps)) + 2
        for number, fix in enumerate(helps, 1):
            effect = fix.effect.partition(", ") if label_width + 6 + cells(fix.effect) > width else (fix.effect, "", "")
            line: Line = [(f"   {number}  ", "key"), (fit(one_line(fix.label), label_width), "text")]
            lines.append([*line, (effect[0], "dim")])
            if effect[2]:
                lines.append([("      " + effect[2], "dim")])
        lines.append([("   e queues the run again with one of them", "dim")])
    elif helps is None:
        lines += [[], [("   looking for what helps", "dim")]]
    if log:
        lines += [[], [("   Last lines of the log", "bright"), ("   L shows all of it", "dim")]]
        lines += [[("   " + one_line(text), "dim")] for text in [text for text in log if text.strip()][-_LOG_LINES:]]
    return lines


def _why(run: Run, detail: Detail | None) -> list[str]:
    """The error's own words and the worker's hint."""
    found = []
    hint = (
        next((event.detail["hint"] for event in reversed(detail.events) if event.detail.get("hint")), None)
        if detail
        else None
    )
    if detail and detail.error:
        last = [line for line in detail.error.strip().splitlines() if line.strip()]
        found.append(last[-1] if last else "")
    if isinstance(hint, str):
        found.append(hint)
    return [text for text in found if text and text != run.reason]


def last_good(detail: Detail | None) -> Checkpoint | None:
    """The newest checkpoint whose files are there."""
    if detail is None:
        return None
    return next((point for point in detail.checkpoints if detail.present is None or point.step in detail.present), None)
