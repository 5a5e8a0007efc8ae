"""What `data` tells as lines for a terminal: rows as they are trained, and a check's report: what the data is, what was
found, most important first, the verdict."""

import os.path
from collections.abc import Iterator
from typing import Any

from engine.base.messages import msg
from engine.data.check_report import CheckReport, Issue, Lengths
from engine.data.issue_types import ISSUE_TYPES
from engine.formats.read_report import ignored_words
from engine.formats.turn_notes import LINES
from engine.present.text import cells, cut, marked, one_line, output_width, trained_text, visible, wrap

_WIDEST = 100
_BAR = 24
_LABELS_SHOWN = 2
_UNTRAINED = {"assistant": "assistant (weight 0)"}
_LEFT_OUT = {"assistant": "assistant (left out by data.train_on)"}
_FEW_ROWS = 10
"""Rows of a label below which it is told: a validation share of a tenth holds one of them."""


def printed(report: CheckReport) -> list[str]:
    width = min(output_width(), _WIDEST)
    lines = [*_head(report), *_size(report), *_found(report), *_advice(report), "", _verdict(report)]
    return [cut(line, width) for line in _wrapped(lines, width)]


def shown_rows(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Rows as `engine.data.show` gives them, each turn with what is trained of it marked."""
    yield msg("trained tokens {marked}", marked=marked("like this", True))
    for row in rows:
        yield ""
        where = f"{one_line(row['file'])}:{row['line']}"
        if "turns" not in row:
            yield f"{where}: {'not trained: ' if 'error' in row else ''}{visible(row.get('error') or row['problem'])}"
            continue
        cut = msg("; {cut:,} more behind data.max_length are cut off", cut=row["cut"]) if row["cut"] else ""
        yield msg(
            "{where}: {tokens:,} tokens, {trained:,} trained{cut}",
            where=where,
            tokens=row["tokens"],
            trained=row["trained"],
            cut=cut,
        )
        if row["problem"]:
            yield f"  note: {visible(row['problem'])}"
        if row["ignored"]:
            yield msg("  note: nothing is learnt from {ignored}", ignored=one_line(", ".join(row["ignored"])))
        for turn in row["turns"]:
            yield from _turn(turn)


def _turn(turn: dict[str, Any]) -> Iterator[str]:
    untrained = _LEFT_OUT if "notes" in turn else _UNTRAINED
    roles = turn["roles"] if turn["trained"] else [untrained.get(role, role) for role in turn["roles"]]
    who = ", ".join(roles) or ("text" if turn["trained"] else "after it")
    ends = ""
    if "stop" in turn:
        ends = msg(", ends at {stop}", stop=one_line(turn["stop"])) if turn["stop"] else ", with no token that ends it"
    count = f"{turn['tokens']:,} {'token' if turn['tokens'] == 1 else 'tokens'}"
    yield f"  {who}: {count}{ends}"
    yield trained_text(turn["pieces"], indent="    ")
    for note in turn.get("notes", ()):
        yield f"    note: {LINES.get(note, note)} [{note}]"
    if turn.get("prompt") is not None:
        yield "  asked otherwise: at this turn the model is given"
        yield trained_text([(turn["prompt"], False)], indent="    ")


def _head(report: CheckReport) -> Iterator[str]:
    for file in report.files:
        encoding = {"utf-8-sig": "UTF-8 with byte-order mark", "gb18030": "GB18030"}.get(
            file.encoding, file.encoding.upper()
        )
        yield one_line(file.path)
        file_kind = ", ".join(part for part in (file.container, encoding, file.format) if part)
        columns = ", ".join(f"{role}={column}" for role, column in file.columns.items())
        rows = f"{file.rows:,} {'row' if file.rows == 1 else 'rows'}"
        bad = msg(", {bad_rows:,} of them bad", bad_rows=file.bad_rows) if file.bad_rows else ""
        aside = msg(", {set_aside:,} set aside", set_aside=file.set_aside) if file.set_aside else ""
        read = f": {file.read_rows:,} read" if bad or aside else ""
        yield f"  {rows}{read}{bad}{aside}; {file_kind}" + (f" ({one_line(columns)})" if columns else "")
        yield from (f"  · {one_line(note)}" for note in file.notes)
        if file.ignored:
            yield msg("  · nothing is learnt from {ignored}", ignored=one_line(ignored_words(file.ignored)))
    yield from (f"· {one_line(line)}" for line in report.left_out)


def _size(report: CheckReport) -> Iterator[str]:
    lengths = report.lengths
    if report.roles and set(report.roles) != {"text"}:
        yield "  messages: " + ", ".join(f"{count:,} {role}" for role, count in report.roles.items())
    if lengths.total:
        yield msg(
            "  {unit}: {total:,} in all, {shortest:,} to {longest:,} a row, half of the rows up to {median:,}",
            unit=lengths.unit,
            total=lengths.total,
            shortest=lengths.shortest,
            longest=lengths.longest,
            median=lengths.median,
        )
        if lengths.cut_tokens:
            yield msg(
                "  beyond max_length {max_length:,}: {cut_tokens:,} tokens, which are cut off",
                max_length=lengths.max_length,
                cut_tokens=lengths.cut_tokens,
            )
        yield from _histogram(lengths)
        if lengths.unit == "characters":
            yield "  tokens are counted with --model NAME"
    yield from _labels(report.labels)


def _histogram(lengths: Lengths) -> Iterator[str]:
    most = max(lengths.histogram.values())
    for length, count in lengths.histogram.items():
        bar = "█" * max(1, round(_BAR * count / most))
        yield msg(
            "    up to {length:>7,}  {bar:<{bar_width}} {count:>9,}",
            length=length,
            bar=bar,
            bar_width=_BAR,
            count=count,
        )


def _labels(labels: dict[str, int]) -> Iterator[str]:
    if not labels:
        return
    counts = list(labels.values())
    yield msg(
        "  {num_labels:,} labels: {counts:,} rows for the most frequent, {last_counts:,} for the rarest",
        num_labels=len(labels),
        counts=counts[0],
        last_counts=counts[-1],
    )
    pairs = [f"{one_line(label)} {count:,}" for label, count in labels.items()]
    if len(pairs) > 2 * _LABELS_SHOWN:
        pairs = [*pairs[:_LABELS_SHOWN], "…", *pairs[-_LABELS_SHOWN:]]
    yield msg("  such as {pairs}", pairs=", ".join(pairs))
    rare = sum(count < _FEW_ROWS for count in counts)
    if rare:
        yield msg(
            "  {rare:,} of them with less than {few_rows:,} rows, too few to learn or to measure",
            rare=rare,
            few_rows=_FEW_ROWS,
        )


def _found(report: CheckReport) -> Iterator[str]:
    by_kind: dict[str, list[Issue]] = {}
    for find in report.finds:
        by_kind.setdefault(find.kind, []).append(find)
    several = len(report.files) > 1
    for kind, count in report.counts.items():
        yield ""
        known = ISSUE_TYPES[kind]
        advice = f" ({known.advice})" if known.advice else ""
        yield f"{'✗' if known.serious else '·'} {known.title}: {count:,}{advice}"
        finds = by_kind.get(kind, [])
        for find in finds:
            yield from _find(find, several)
        rows_told = len({(find.file, find.line) for find in finds})
        if rows_told < count:
            yield msg("  and {count:,} more (--all)", count=count - rows_told)


def _advice(report: CheckReport) -> Iterator[str]:
    if report.advice:
        yield ""
        yield msg("· no row with {advice}: worth some rows if users may send that", advice=", ".join(report.advice))


def _find(find: Issue, several: bool) -> Iterator[str]:
    where = f"{find.file}:{find.line}" if several else f"line {find.line}"
    other = ""
    if find.other_line:
        # Beside its own file a line says enough.
        name = os.path.basename(find.other_file)
        other = f" line {find.other_line}" if find.other_file == find.file else f" {name}:{find.other_line}"
    yield f"  {one_line(where)}: {one_line(find.message)}{one_line(other)}"
    if find.excerpt:
        yield f"      {one_line(find.excerpt)}"


def _verdict(report: CheckReport) -> str:
    if report.failed:
        rows = sum(report.serious.values())
        return msg("✗ {verdict}; {rows:,} serious finds, see ✗ above", verdict=report.verdict, rows=rows)
    return msg("✓ {verdict}; nothing serious found", verdict=report.verdict)


def _wrapped(lines: list[str], width: int) -> Iterator[str]:
    """Sentences that are too long go on below, indented; excerpts and bars are cut."""
    for line in lines:
        if line.startswith("    ") or cells(line) <= width:
            yield line
            continue
        text = line.lstrip()
        indent = " " * (len(line) - len(text))
        yield from wrap(text, width, indent, indent + "  ")
