"""The plan as lines of text: pure, from what is known to lines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.base.messages import msg
from engine.metrics.best_evaluation import LOSS, parse
from engine.metrics.scoring_command import ScoreCommand
from engine.plan.forecast import Forecast, Memory
from engine.present.data_warnings import PLAN_PROBLEMS, data_warnings
from engine.present.numbers import auto_text, duration, setting_text
from engine.present.text import visible
from engine.runs.settings_findings import Finding
from engine.settings.resolve import Resolved
from engine.settings.schema import SETTINGS, RunConfig


def model_lines(config: RunConfig, needs: Memory) -> list[str]:
    """How large the model is, and how much of it is trained."""
    estimate = needs.estimate
    return [
        "model",
        msg(
            "  {model_name}: {parameters} parameters, {trainable} trained ({trainable_share:.2%}); shape from {source}",
            model_name=visible(config.model.name),
            parameters=_count(estimate.parameters),
            trainable=_count(estimate.trainable),
            trainable_share=estimate.trainable / estimate.parameters,
            source=estimate.shape.source,
        ),
    ]


def settings_lines(resolved: Resolved, auto: dict[str, Any], everything: bool) -> list[str]:
    """Settings that somebody gave or the data decides, or every one: its value, and where it came from."""
    flat = resolved.config.flat()
    shown = [path for path in SETTINGS if everything or path in auto or resolved.origin[path] not in ("default", "")]
    width = max(map(len, shown), default=0)
    lines = ["settings" if everything else "settings that are not the default (--all shows every one)"]
    for path in shown:
        text = auto_text(auto[path]) if path in auto else setting_text(flat[path])
        lines.append(f"  {path:<{width}}  {visible(text):<32}  {visible(resolved.origin[path])}")
    return lines


def evaluation_lines(config: RunConfig, report: dict[str, Any]) -> list[str]:
    """What evaluations do beyond the usual: what best goes by, the user's program, the sources; nothing if nothing."""
    lines = []
    criterion = parse(config.eval.best)
    if criterion != LOSS:
        lines.append(msg("  best checkpoint, early stopping and rankings go by the {words}", words=criterion.words))
    if config.eval.command:
        command = ScoreCommand(config.eval.command, Path.cwd(), config.eval.command_seconds)
        lines.append(
            msg(
                "  answers are scored by {command}, which has {limit} each time",
                command=visible(command.text),
                limit=duration(command.seconds),
            )
        )
        lines += [f"    {visible(path)}; sha256 {sha[:12]}" for path, sha in command.files.items()]
    if sources := report["data"]["val"].get("sources"):
        shown = ", ".join(f"{visible(name)} ({count:,})" for name, count in sources.items())
        lines.append(msg("  loss and scores of each source beside the whole: {shown}", shown=shown))
    return ["", "evaluation", *lines] if lines else []


def data_lines(report: dict[str, Any]) -> list[str]:
    """What the data files were found to be."""
    data = report["data"]
    lines = ["data"]
    for file in data["files"]:
        columns = ", ".join(f"{role}={column}" for role, column in file["columns"].items())
        lines.append(f"  {visible(file['path'])}")
        lines.append(
            f"    {rows_of(file)}; {file['container']}, {file['encoding']}, "
            f"{file['format']}{f' ({visible(columns)})' if columns else ''}; sha256 {file['sha256'][:12]}"
        )
    for name in ("train", "val"):
        counts = data[name]
        if counts["examples"]:
            lines.append(
                msg(
                    "  {name}: {examples:,} examples, {tokens:,} tokens, {supervised:,} "
                    "trained on, longest {longest:,}",
                    name=name,
                    examples=counts["examples"],
                    tokens=counts["tokens"],
                    supervised=counts["supervised"],
                    longest=counts["longest"],
                )
            )
            histogram = ", ".join(f"{length}: {count:,}" for length, count in counts["histogram"].items())
            lines.append(msg("    lengths up to: {histogram}", histogram=histogram))
    if data["labels"]:
        lines.append(msg("  classification with {labels:,} labels", labels=data["labels"]))
    return lines + [f"  {visible(line)}" for line in data_warnings(data, PLAN_PROBLEMS)]


def rows_of(file: dict[str, Any]) -> str:
    """What became of every row that was given."""
    aside = msg(", {set_aside:,} set aside", set_aside=file["set_aside"]) if file.get("set_aside") else ""
    used = f": {file['read_rows']:,} read" if "read_rows" in file and (file["bad_rows"] or aside) else ""
    return msg(
        "{rows:,} rows{used}, {bad_rows:,} bad{aside}",
        rows=file["rows"],
        used=used,
        bad_rows=file["bad_rows"],
        aside=aside,
    )


def course_lines(report: dict[str, Any], way: Forecast) -> list[str]:
    """Steps, tokens, time, cost and advice."""
    plan = report["plan"]
    lines = [
        msg(
            "  {total_steps:,} optimizer steps, {steps_per_epoch:,} an epoch",
            total_steps=plan["total_steps"],
            steps_per_epoch=plan["steps_per_epoch"],
        ),
        msg(
            "  {training_tokens:,} tokens in all; packing saves {padding_saved:.0%} padding",
            training_tokens=way.training_tokens,
            padding_saved=report["padding_saved"],
        ),
    ]
    lines += [f"  {line}" for line in forecast_lines(way)]
    if way.advice:
        lines += ["", "advice"]
        for piece in way.advice:
            lines += [f"  · {visible(piece.message)}", f"    {piece.reason}", f"    {piece.source}"]
    return lines


def forecast_lines(way: Forecast) -> list[str]:
    """How long it takes, and what that costs here and elsewhere."""
    if way.duration is None:
        lines = ["time not known; `finetop plan --probe` measures it"]
    else:
        took, speed = way.duration, way.duration.speed
        span = f"{duration(took.seconds / speed.factor)} to {duration(took.seconds * speed.factor)}"
        lines = [
            msg(
                "{seconds} ({span}), {evaluation_seconds} of it evaluations, at "
                "{tokens_per_second:,.0f} tokens/s by {source}",
                seconds=duration(took.seconds),
                span=span,
                evaluation_seconds=duration(took.evaluation_seconds),
                tokens_per_second=speed.tokens_per_second,
                source=visible(speed.source),
            )
        ]
    return [*lines, *_cost_lines(way)]


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """Where what was asked for and what the run will do differ."""
    lines = ["", "not as asked"] if findings else []
    for finding in findings:
        lines.append(f"  ! {visible(finding.message)}")
        lines += [f"    {visible(finding.hint)}"] if finding.hint else []
    return lines


def _cost_lines(way: Forecast) -> list[str]:
    bill = way.cost
    lines = []
    if bill.kwh is not None:
        price = (
            f", {bill.electricity:,.2f} {visible(bill.currency)}".rstrip()
            if bill.electricity is not None
            else "; --price-kwh says what that costs"
        )
        lines.append(
            msg(
                "{kwh:,.2f} kWh at {watts:,.0f} W ({watts_from}){price}",
                kwh=bill.kwh,
                watts=bill.watts,
                watts_from=bill.watts_from,
                price=price,
            )
        )
    elif way.duration is not None:
        lines.append("electricity not known: no GPU tells its power; electricity.watts in prices.toml says it")
    openai = ", ".join(f"{visible(model)} ${price:,.2f}" for model, price in bill.openai.items())
    dated = ", ".join(part for part in (bill.prices_as_of, bill.prices_note) if part)
    lines.append(
        msg(
            "the same {training_tokens:,} tokens at OpenAI (prices of {dated}): {openai}",
            training_tokens=bill.training_tokens,
            dated=visible(dated),
            openai=openai,
        )
    )
    return lines


def _count(number: int) -> str:
    """`7.62B`, `40.4M`, `9.5k`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
