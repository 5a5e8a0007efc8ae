"""The table of GPUs that `finetop top` prints and the screen draws: the same columns, widths and words."""

from engine.base.messages import msg
from engine.monitor.samples import GpuSample, Snapshot
from engine.present.numbers import duration, size
from engine.present.text import fit, gauge, one_line

Cells = list[tuple[str, str]]
"""Texts of a line, each with the role it plays on the screen."""
UNAVAILABLE = "n/a"
_NAME = 14
_FULL_WIDTH = 76
"""From so many cells on there are columns for the cards' names, their memory and their power limits."""


def gpu_table(snapshot: Snapshot, width: int) -> list[Cells]:
    """Titles, a line for each GPU and slice, then what is wrong with any of them."""
    full = width >= _FULL_WIDTH
    gauge_width = max(4, (width - (66 if full else 40)) // 2)
    total = next((gpu.memory_total_bytes for gpu in snapshot.gpus if gpu.memory_total_bytes), None)
    memory = "memory" if full or total is None else f"memory {size(total, 0)}"
    titles = [
        fit(" #  name" if full else "", 4 + (_NAME + 1 if full else 0)),
        fit("core", 6 + gauge_width),
        fit(memory, 7 + gauge_width + (5 if full else 0)),
        fit("temp", 6, ">"),
        fit("power", 10 if full else 7, ">"),
        "  run",
    ]
    lines: list[Cells] = [[("".join(titles), "dim")]]
    lines += [_gpu_cells(gpu, gauge_width, full) for gpu in snapshot.gpus]
    lines += [[(f" ! {note}", "warning")] for gpu in snapshot.gpus for note in gpu_notes(gpu)]
    if snapshot.gpu_problem:
        lines.append([(f" ! {one_line(snapshot.gpu_problem)}", "warning")])
    return lines


def _gpu_cells(gpu: GpuSample, gauge_width: int, full: bool) -> Cells:
    role = "stale" if gpu.stale else "text"
    used, total = gpu.memory_used_bytes, gpu.memory_total_bytes
    core_share = gpu.utilisation / 100 if gpu.utilisation is not None else None
    memory_share = used / total if used is not None and total else None
    in_slice = gpu.parent is not None  # only the whole card tells its load, temperature and power
    is_hot = "thermal" in " ".join(gpu.held_back or ())
    line: Cells = [("  └ " if in_slice else f"{gpu.index:>2}  ", "text")]
    if full:
        line.append((f"{fit(short_name(gpu), _NAME)} ", role))
    line += [
        (fit(_or_unavailable(gpu.utilisation, "{:.0f}%", in_slice), 4, ">") + " ", role),
        (gauge(core_share, gauge_width), "gauge"),
        (" ", "text"),
        (fit(UNAVAILABLE if used is None else size(used), 6, ">") + " ", role),
        (gauge(memory_share, gauge_width), "gauge2"),
        (fit(size(total, 0), 5, ">") if full and total is not None else " " * 5 * full, role),
        (fit(_or_unavailable(gpu.temperature_c, "{:.0f}°C", in_slice), 6, ">"), "warning" if is_hot else role),
        (fit("" if in_slice else _power(gpu, full), 10 if full else 7, ">"), role),
        ("  ", "text"),
        *_owners(gpu),
    ]
    return line


def _or_unavailable(figure: float | None, template: str, in_slice: bool) -> str:
    if figure is None:
        return "" if in_slice else UNAVAILABLE
    return template.format(figure)


def _power(gpu: GpuSample, with_limit: bool) -> str:
    if gpu.power_watts is None:
        return UNAVAILABLE
    limit = f"/{gpu.power_limit_watts:.0f}" if with_limit and gpu.power_limit_watts is not None else ""
    return f"{gpu.power_watts:.0f}{limit} W"


def _owners(gpu: GpuSample) -> Cells:
    """The runs on this card and the users of other processes on it, or a dash."""
    if gpu.processes is None:
        return [("" if gpu.mig_enabled else UNAVAILABLE, "dim")]
    runs = sorted({str(process.run) for process in gpu.processes if process.run is not None})
    users = sorted({process.user or "?" for process in gpu.processes if process.run is None})
    if not runs and not users:
        return [("—", "dim")]
    return [
        (one_line(" ".join(runs)), "running"),
        (" " * bool(runs and users), "text"),
        (one_line(" ".join(users)), "warning"),
    ]


def gpu_notes(gpu: GpuSample) -> list[str]:
    """What the line of a card has no room for: why it does not answer, what throttles it, errors of its memory."""
    notes = []
    if gpu.problem or gpu.stale:
        problem = one_line(gpu.problem or "is silent")
        if gpu.stale and gpu.age_seconds is not None:
            notes.append(
                msg(
                    "GPU {index} {problem} · figures are {age} old",
                    index=gpu.index,
                    problem=problem,
                    age=duration(gpu.age_seconds),
                )
            )
        else:
            notes.append(msg("GPU {index} {problem}", index=gpu.index, problem=problem))
    if gpu.held_back:
        reasons = one_line(", ".join(gpu.held_back))
        notes.append(msg("GPU {index} is held back: {reasons}", index=gpu.index, reasons=reasons))
    if gpu.ecc_uncorrected:
        notes.append(
            msg(
                "GPU {index} has had {errors} uncorrected memory errors since its driver was loaded",
                index=gpu.index,
                errors=gpu.ecc_uncorrected,
            )
        )
    return notes


def short_name(gpu: GpuSample) -> str:
    """'NVIDIA A100-SXM4-80GB' is known as 'A100-SXM4-80GB' to everyone who looks here; of a slice its profile."""
    if gpu.parent is not None:
        return one_line(gpu.name.rsplit("MIG ", 1)[-1]) if gpu.name else "slice"
    name = gpu.name or UNAVAILABLE
    for brand in ("NVIDIA ", "GeForce ", "Tesla ", "Quadro "):
        name = name.removeprefix(brand)
    return one_line(name)
