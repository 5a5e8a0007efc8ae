"""What a run needs of memory and where it fits: one view of an estimate, written by `finetop plan` and by the screen's
form for new runs. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from engine.base.messages import msg, msg_n
from engine.plan.forecast import Memory
from engine.plan.gpu_fit import Change, Fit
from engine.plan.hardware import Hardware
from engine.present.numbers import UNKNOWN, bytes_text, setting_text
from engine.present.text import Column, cut, table, visible

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
_LEAST_PART_BYTES = 500_000


class Verdict(Enum):
    """Whether a run fits into a memory."""

    FITS = "fits"
    MAY_FIT = "may fit"
    """If all goes as expected; not if it takes the most it may."""
    DOES_NOT_FIT = "does not fit"


_SIGNS = {Verdict.FITS: "✓", Verdict.MAY_FIT: "?", Verdict.DOES_NOT_FIT: "✗"}
"""In a terminal's lines."""


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """A memory that the run may be put into, and how it would do there."""

    verdict: Verdict
    name: str
    free: str
    needed: str
    passes: str
    """Tokens of a pass there, and whether activations are recomputed."""


@dataclass(frozen=True, slots=True)
class Saving:
    """A change of settings that takes less memory, made upon those before it."""

    settings: str
    """As flags."""
    needed: str
    why: str
    fits: bool


@dataclass(frozen=True, slots=True)
class MemoryView:
    """An estimate in words, from the sentence that sums it up to what may be changed."""

    expected: str
    span: str
    """`14.5 GiB expected, 12.1 GiB at least, 17.2 GiB at most`."""
    source: str
    """How that was found out."""
    passes: str
    parts: tuple[tuple[str, str], ...]
    """Name and size, in the order of the estimate."""
    largest: str
    """The four largest, in a line."""
    no_cards: str
    """Why cards of common sizes are shown in place of this machine's; empty where it has its own."""
    cpu: MemoryFit | None
    """This machine's memory, where the run would be trained there."""
    cards: tuple[MemoryFit, ...]
    """Cards of one kind with equally much free are one of these."""
    savings: tuple[Saving, ...]
    """The cheapest changes after which it fits the card with the most room; empty where it fits, or nothing helps."""
    best: MemoryFit | None
    """Of this machine's memories the one that suits the run best; None where none is known."""


def memory_view(machine: Hardware, needs: Memory) -> MemoryView:
    """The estimate of a run for this machine."""
    estimate = needs.estimate
    cpu = _cpu(machine, needs)
    roomiest = max(needs.fits, key=lambda fit: (fit.surely, fit.fits, fit.card.usable_bytes))
    titles = _PARTS | ({"context": "libraries and their kernels"} if estimate.device == "cpu" else {})
    parts = {name: size for name, size in estimate.parts.items() if size >= _LEAST_PART_BYTES}
    largest = sorted(parts.items(), key=lambda part: -part[1])[:4]
    expected = bytes_text(estimate.expected)
    return MemoryView(
        expected,
        msg(
            "{expected} expected, {low} at least, {high} at most",
            expected=expected,
            low=bytes_text(estimate.low),
            high=bytes_text(estimate.high),
        ),
        _source(needs),
        msg(
            "with {micro_tokens:,} tokens a pass, activations {activations}, on {machine}",
            micro_tokens=estimate.micro_tokens,
            activations="recomputed" if estimate.activation_checkpointing else "kept",
            machine=device_text(machine, needs),
        ),
        tuple((titles.get(name, name), bytes_text(size)) for name, size in parts.items()),
        ", ".join(f"{titles.get(name, name)} {bytes_text(size)}" for name, size in largest),
        "" if machine.cards else machine.no_cards.rstrip("."),
        cpu,
        _grouped([_on_card(fit) for fit in needs.fits]),
        tuple(map(_saving, needs.changes)),
        _on_card(roomiest) if machine.cards else cpu,
    )


def device_text(machine: Hardware, needs: Memory) -> str:
    """What the run would be trained on: `the CPU`, a card, or each of several."""
    if not machine.cards:
        return "the CPU"
    name = visible(machine.cards[0].name)
    if needs.gpus == 1:
        return name
    return msg("each of {gpus} × {name}, where all weights are held", gpus=needs.gpus, name=name)


def estimate_line(needs: Memory, machine: Hardware) -> str:
    """What is known before the data is read, in a line."""
    return msg(
        "memory: about {size} on {machine}; reading the data for the rest",
        size=bytes_text(needs.estimate.expected),
        machine=device_text(machine, needs),
    )


def unknown_memory(model_name: str) -> str:
    """Why there is no estimate for a model."""
    return msg(
        "memory not known: {model_name} is no dense model that finetop knows, and its config.json is neither in a "
        "folder nor in the hub's cache",
        model_name=visible(model_name),
    )


def verdict_lines(view: MemoryView) -> list[str]:
    """Whether the run fits on this machine, and what would make it fit."""
    best = view.best
    if best is None:
        return [f"  ? {view.span}; {view.no_cards}"]
    where = f"in {best.name}" if best is view.cpu else f"on {best.name}"
    lines = [
        msg(
            "  {sign} {verdict} {where}: {span}, {free} free",
            sign=_SIGNS[best.verdict],
            verdict=best.verdict.value,
            where=where,
            span=view.span,
            free=best.free,
        )
    ]
    if best.verdict is Verdict.DOES_NOT_FIT and best is not view.cpu and view.savings and view.savings[-1].fits:
        flags = " ".join(saving.settings for saving in view.savings)
        lines.append(msg("    it would with {changes}", changes=flags))
    return lines


def memory_lines(view: MemoryView, width: int) -> list[str]:
    """The whole view, for a terminal."""
    lines = ["memory", f"  {view.span}; {view.source}", f"  {view.passes}"]
    lines += table([Column("part"), Column("", right=True)], view.parts, width, indent=4)[1:]
    lines += ["", "fits on"]
    columns = [
        Column(""),
        Column("card", least=12),
        Column("free", True),
        Column("takes", True),
        Column("in passes of"),
    ]
    rows = [
        (_SIGNS[memory.verdict], memory.name, memory.free, memory.needed, memory.passes)
        for memory in [*([view.cpu] if view.cpu else []), *view.cards]
    ]
    lines += table(columns, rows, width, indent=2)
    if view.no_cards:
        reason = visible(view.no_cards)
        lines.append(cut(msg("  {reason}; shown beside it: cards of common sizes", reason=reason), width))
    if view.savings:
        lines.append("  cheapest first, each with those before it:")
        for saving in view.savings:
            sign = _SIGNS[Verdict.FITS] if saving.fits else UNKNOWN
            lines.append(cut(f"    {sign} {saving.settings}: {saving.needed}; {saving.why}", width))
    elif all(card.verdict is Verdict.DOES_NOT_FIT for card in view.cards):
        lines.append("  no setting makes it fit; a smaller model would")
    return lines


def _cpu(machine: Hardware, needs: Memory) -> MemoryFit | None:
    estimate = needs.estimate
    if machine.cards or machine.memory_bytes is None or estimate.device != "cpu":
        return None
    free = machine.memory_free_bytes or machine.memory_bytes
    verdict = Verdict.FITS if estimate.expected <= free else Verdict.DOES_NOT_FIT
    return MemoryFit(
        verdict,
        _host_name(machine.memory_bytes, machine.memory_owner),
        bytes_text(free),
        bytes_text(estimate.expected),
        _passes(estimate.micro_tokens, estimate.activation_checkpointing),
    )


def _host_name(size: int, owner: str) -> str:
    if not owner:
        return "this machine's memory"
    return msg("the {size} of {owner}", size=bytes_text(size), owner=visible(owner))


def _on_card(fit: Fit) -> MemoryFit:
    estimate, card = fit.estimate, fit.card
    verdict = Verdict.FITS if fit.surely else Verdict.MAY_FIT if fit.fits else Verdict.DOES_NOT_FIT
    free = card.free_bytes if card.free_bytes is not None else card.total_bytes
    passes = _passes(estimate.micro_tokens, estimate.activation_checkpointing)
    return MemoryFit(verdict, visible(card.name), bytes_text(free), bytes_text(estimate.expected), passes)


def _grouped(cards: Sequence[MemoryFit]) -> tuple[MemoryFit, ...]:
    """Those that are alike as one, `8 × NVIDIA H200`."""
    counts = Counter(cards)
    return tuple(replace(card, name=f"{count} × {card.name}") if count > 1 else card for card, count in counts.items())


def _passes(tokens: int, recomputing: bool) -> str:
    text = msg_n("{n:,} token", "{n:,} tokens", tokens)
    return msg("{tokens}, recomputing", tokens=text) if recomputing else text


def _saving(change: Change) -> Saving:
    flags = " ".join(f"--set {path}={setting_text(value)}" for path, value in change.settings.items())
    return Saving(flags, bytes_text(change.expected), change.why, change.fits)


def _source(needs: Memory) -> str:
    how = "by a trace of one step" if needs.traced else "by arithmetic"
    if needs.inputs.longest is None:
        how = msg("a guess {how}, as if examples had data.max_length tokens", how=how)
    else:
        how = msg("{how} from the lengths of the examples", how=how)
    if not needs.corrected_by:
        return how
    runs = msg_n("a run", "{n:,} runs", needs.corrected_by)
    factor = needs.inputs.correction
    return msg("{how}, times {factor:.2f} after {runs} on this machine", how=how, factor=factor, runs=runs)
