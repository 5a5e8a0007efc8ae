"""The plan as lines of text: pure, from what is known to lines."""

import sys
from typing import Any

from engine.cli.text import Column, bytes_text, cut, duration, table, visible
from engine.cli.watch import PLAN_PROBLEMS, data_warnings
from engine.config import SETTINGS, Resolved, RunConfig
from engine.plan.fit import Change, Fit
from engine.plan.machine import Machine
from engine.plan.outline import Course, Memory

_PARTS = {
    "weights": "weights of the model",
    "quantisation": "constants of the 4-bit weights",
    "adapter": "adapter",
    "casts": "bfloat16 copies during a pass",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "logits": "logits",
    "workspace": "workspace",
    "context": "CUDA context and libraries",
}


def model_lines(config: RunConfig, needs: Memory | None) -> list[str]:
    """How large the model is, and how much of it is trained."""
    if needs is None:
        return []
    estimate = needs.estimate
    return [
        "model",
        f"  {visible(config.model.name)}: {_count(estimate.parameters)} parameters, {_count(estimate.trainable)} "
        f"trained ({estimate.trainable / estimate.parameters:.2%}); shape from {estimate.shape.source}",
        "",
    ]


def memory_lines(
    config: RunConfig, machine: Machine, needs: Memory | None, width: int, title: str = "memory"
) -> list[str]:
    """What the run needs by part, and where it fits."""
    if needs is None:
        return [
            "memory",
            f"  not known: {visible(config.model.name)} is no dense model that finetop knows, and its config.json is "
            "neither in a folder nor in the hub's cache",
        ]
    estimate = needs.estimate
    lines = [
        title,
        f"  {_gb(estimate.expected)} expected, {_gb(estimate.low)} at least, {_gb(estimate.high)} at most; "
        f"{_how(needs)}",
        f"  with {estimate.micro_tokens:,} tokens a pass, activations "
        f"{'recomputed' if estimate.activation_checkpointing else 'kept'}, on {_device(machine)}",
    ]
    rows = [
        (_PARTS.get(name, name) if not (name == "context" and estimate.device == "cpu") else "libraries", _gb(size))
        for name, size in estimate.parts.items()
        if size >= 500_000
    ]
    lines += table([Column("part"), Column("", right=True)], rows, width, indent=4)[1:]
    lines += ["", *_where(machine, needs, width)]
    return lines


def _where(machine: Machine, needs: Memory, width: int) -> list[str]:
    lines = ["fits on"]
    if not machine.cards:
        lines.append(f"  {machine.no_cards.rstrip('.')}; cards of common sizes instead:")
        if machine.memory_bytes is not None and needs.estimate.device == "cpu":
            enough = needs.estimate.expected <= (machine.memory_free_bytes or machine.memory_bytes)
            lines.insert(
                1,
                f"  {'✓' if enough else '✗'} this machine's CPU: {_gb(machine.memory_bytes)} of memory, "
                f"{_gb(machine.memory_free_bytes)} free",
            )
    titles = [
        Column(""),
        Column("card", least=12),
        Column("free", True),
        Column("takes", True),
        Column("in passes of"),
    ]
    lines += table(titles, [_card_row(one) for one in needs.fits], width, indent=2)
    if needs.changes:
        lines.append("  cheapest first, each with those before it:")
        lines += [cut(f"    {_change(change)}", width) for change in needs.changes]
    elif not any(one.fits for one in needs.fits):
        lines.append("  no setting makes it fit; a smaller model would")
    return lines


def _card_row(one: Fit) -> tuple[str, ...]:
    free = one.card.free_bytes if one.card.free_bytes is not None else one.card.total_bytes
    estimate = one.estimate
    mark = "✓" if one.surely else "?" if one.fits else "✗"
    how = f"{estimate.micro_tokens:,} tokens{', recomputing' if estimate.activation_checkpointing else ''}"
    return mark, one.card.name, _gb(free), _gb(estimate.expected), how


def _change(change: Change) -> str:
    settings = " ".join(f"--set {path}={_value(value)}" for path, value in change.settings.items())
    return f"{'✓' if change.fits else '·'} {settings}: {_gb(change.expected)}; {change.why}"


def settings_lines(resolved: Resolved, auto: dict[str, Any]) -> list[str]:
    """Every setting, its value, and where it came from."""
    flat = resolved.config.flat()
    width = max(map(len, SETTINGS))
    lines = ["settings"]
    for path in SETTINGS:
        value = flat[path]
        shown = f"auto → {auto[path]:g}" if path in auto else _short(value)
        lines.append(f"  {path:<{width}}  {visible(shown):<32}  {visible(resolved.origin[path])}")
    return lines


def data_lines(report: dict[str, Any]) -> list[str]:
    """What the data files were found to be."""
    data = report["data"]
    lines = ["data"]
    for file in data["files"]:
        columns = ", ".join(f"{role}={column}" for role, column in file["columns"].items())
        lines.append(f"  {visible(file['path'])}")
        lines.append(
            f"    {file['rows']:,} rows, {file['bad_rows']:,} bad; {file['container']}, {file['encoding']}, "
            f"{file['format']}{f' ({visible(columns)})' if columns else ''}; sha256 {file['sha256'][:12]}"
        )
    for name in ("train", "val"):
        counts = data[name]
        if counts["examples"]:
            lines.append(
                f"  {name}: {counts['examples']:,} examples, {counts['tokens']:,} tokens, {counts['supervised']:,} "
                f"trained on, longest {counts['longest']:,}"
            )
            histogram = ", ".join(f"{length}: {count:,}" for length, count in counts["histogram"].items())
            lines.append(f"    lengths up to: {histogram}")
    if data["labels"]:
        lines.append(f"  classification with {data['labels']} labels")
    return lines + [f"  {visible(line)}" for line in data_warnings(data, PLAN_PROBLEMS)]


def course_lines(report: dict[str, Any], way: Course, width: int) -> list[str]:
    """Steps, tokens, time, cost and advice."""
    plan = report["plan"]
    lines = [
        "plan",
        f"  {plan['total_steps']:,} optimizer steps, {plan['steps_per_epoch']:,} an epoch",
        f"  {way.training_tokens:,} tokens in all; packing saves {report['padding_saved']:.0%} padding",
    ]
    if way.duration is None:
        lines.append("  time not known; --probe measures it")
    else:
        took, speed = way.duration, way.duration.speed
        span = f"{duration(took.seconds / speed.factor)} to {duration(took.seconds * speed.factor)}"
        lines.append(
            f"  {duration(took.seconds)} ({span}), {duration(took.evaluation_seconds)} of it evaluations, at "
            f"{speed.tokens_per_second:,.0f} tokens/s by {visible(speed.source)}"
        )
    lines += _cost_lines(way)
    if way.advice:
        lines += ["", "advice"]
        for piece in way.advice:
            lines += [f"  · {visible(piece.message)}", f"    {piece.reason}", f"    {piece.source}"]
    return lines


def _cost_lines(way: Course) -> list[str]:
    bill = way.cost
    lines = []
    if bill.kwh is not None:
        price = (
            f", {bill.electricity:,.2f} {visible(bill.currency)}".rstrip()
            if bill.electricity is not None
            else "; --price-kwh says what that costs"
        )
        lines.append(f"  {bill.kwh:,.2f} kWh at {bill.watts:,.0f} W ({bill.watts_from}){price}")
    elif way.duration is not None:
        lines.append("  electricity not known: no GPU tells its power; electricity.watts in prices.toml says it")
    openai = ", ".join(f"{visible(model)} ${price:,.2f}" for model, price in bill.openai.items())
    lines.append(
        f"  the same {bill.training_tokens:,} tokens at OpenAI (prices of {visible(bill.prices_as_of)}): {openai}"
    )
    return lines


def marked(text: str, trained: bool) -> str:
    """Trained text in reverse video, or in brackets where there is no terminal."""
    if not trained:
        return text
    return f"\x1b[7m{text}\x1b[0m" if sys.stdout.isatty() else f"⟦{text}⟧"


def _how(needs: Memory) -> str:
    how = "by a trace of one step" if needs.traced else "by arithmetic"
    if needs.corrected_by:
        runs = "a run" if needs.corrected_by == 1 else f"{needs.corrected_by} runs"
        how += f", times {needs.known.correction:.2f} after {runs} on this machine"
    return how


def _device(machine: Machine) -> str:
    return visible(machine.cards[0].name) if machine.cards else "the CPU"


def _count(number: int) -> str:
    """`7.62B`, `40.4M`, `9.5k`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _gb(size: int | None) -> str:
    return "n/a" if size is None else bytes_text(size)


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = text if len(text) <= 60 else f"…{text[-59:]}"
    return text.replace("\n", "⏎") or "—"
