"""Pane 2: each GPU and whose work it does; processor and memory where there is none."""

from engine.base.messages import msg
from engine.monitor.samples import GpuSample, Snapshot
from engine.present import numbers
from engine.present.numbers import plural
from engine.present.text import cut, fit, gauge, one_line
from tui.render.line import Line
from tui.widgets.scroll import ScrollPane

_SHORT = ("NVIDIA ", "GeForce ", "Tesla ", "Quadro ")


def gpu_lines(machine: Snapshot | None, width: int) -> list[Line]:
    """The pane's lines, most needed first; a card that cannot be read says so in its own line."""
    if machine is None:
        return [[(" nobody measures here: the daemon does, once it runs", "dim")]]
    if not machine.gpus:
        return [
            [(" " + one_line(machine.gpu_problem or "No GPU has answered yet."), "dim")],
            [],
            *_host_lines(machine, width),
        ]
    gauges = max(4, (width - 40) // 2)
    total = next((gpu.memory_total_bytes for gpu in machine.gpus if gpu.memory_total_bytes), None)
    lines: list[Line] = [
        [
            (
                "    "
                + fit("core", 6 + gauges)
                + fit(f"memory {numbers.size(total, 0) if total else ''}", 8 + gauges)
                + fit("temp", 5, ">")
                + fit("power", 7, ">")
                + "  run",
                "dim",
            )
        ]
    ]
    notes: list[Line] = []
    for gpu in machine.gpus:
        lines.append(_gpu_line(gpu, gauges))
        notes += _notes(gpu, width)
    if machine.gpu_problem:
        notes.append([(f" ! {one_line(machine.gpu_problem)}", "warning")])
    return lines + notes


def _gpu_line(gpu: GpuSample, gauges: int) -> Line:
    value = "stale" if gpu.stale else "text"
    share = gpu.utilisation / 100 if gpu.utilisation is not None else None
    held, total = gpu.memory_used_bytes, gpu.memory_total_bytes
    memory = held / total if held is not None and total else None
    name = "  └" if gpu.parent else f"{gpu.index:>2} "
    temperature = "·" if gpu.temperature_c is None else f"{gpu.temperature_c:.0f}°C"
    power = "·" if gpu.power_watts is None else f"{gpu.power_watts:.0f} W"
    return [
        (name, "text"),
        (fit(numbers.percent(gpu.utilisation), 4, ">") + " ", value),
        (gauge(share, gauges), "gauge"),
        ("  ", "text"),
        (gauge(memory, gauges), "gauge2"),
        (fit(numbers.size(held), 6, ">"), value),
        (fit(temperature, 6, ">"), "warning" if "thermal" in " ".join(gpu.held_back or ()) else value),
        (fit(power, 7, ">"), value),
        ("  ", "text"),
        *_holders(gpu),
    ]


def _holders(gpu: GpuSample) -> Line:
    if gpu.processes is None:
        return [("·", "dim")]
    runs = sorted({str(process.run) for process in gpu.processes if process.run is not None})
    others = sorted({one_line(process.user or "?") for process in gpu.processes if process.run is None})
    if not runs and not others:
        return [("—", "dim")]
    return [(" ".join(runs), "running"), (" " if runs and others else "", "text"), (" ".join(others), "warning")]


def _notes(gpu: GpuSample, width: int) -> list[Line]:
    """What the line of a card has no room for: why it does not answer, what holds it back, whose it is."""
    lines: list[Line] = []
    if gpu.problem or gpu.stale:
        old = (
            msg(" · figures are {age_seconds} old", age_seconds=numbers.short_duration(gpu.age_seconds))
            if gpu.stale and gpu.age_seconds is not None
            else ""
        )
        lines.append([(f" ! GPU {gpu.index} {one_line(gpu.problem or 'is silent')}{old}", "warning")])
    if gpu.held_back:
        lines.append(
            [
                (
                    msg(
                        " ! GPU {index} is held back: {held_back}",
                        index=gpu.index,
                        held_back=one_line(", ".join(gpu.held_back)),
                    ),
                    "warning",
                )
            ]
        )
    if gpu.ecc_uncorrected:
        lines.append(
            [
                (
                    msg(
                        " ! GPU {index} has had {ecc_uncorrected} uncorrected memory errors",
                        index=gpu.index,
                        ecc_uncorrected=gpu.ecc_uncorrected,
                    ),
                    "warning",
                )
            ]
        )
    for process in gpu.processes or ():
        if process.run is None:
            whose = msg(
                "pid {pid} of {user}, {memory_bytes}",
                pid=process.pid,
                user=one_line(process.user or "?"),
                memory_bytes=numbers.size(process.memory_bytes),
            )
            command = f" · {one_line(process.command)}" if process.command else ""
            lines.append(
                [
                    (
                        cut(
                            msg(
                                "   GPU {index}: not ours: {whose}{command}",
                                index=gpu.index,
                                whose=whose,
                                command=command,
                            ),
                            width,
                        ),
                        "dim",
                    )
                ]
            )
    return lines


def _host_lines(machine: Snapshot, width: int) -> list[Line]:
    host = machine.host
    if host is None:
        return []
    bar = max(6, width - 40)
    value = "stale" if host.stale else "text"
    lines: list[Line] = []
    share = None if host.cpu_percent is None else host.cpu_percent / 100
    load = "" if host.load_1min is None else f"load {host.load_1min:.1f}"
    cores = f"{host.cpu_count} cores" if host.cpu_count else ""
    lines.append(
        [
            (" CPU    ", "dim"),
            (fit(numbers.percent(host.cpu_percent), 5, ">") + " ", value),
            (gauge(share, bar), "gauge"),
            (f"  {cores}  {load}", "dim"),
        ]
    )
    limit = host.memory_limit_bytes or host.memory_total_bytes
    used = host.memory_used_bytes
    share = used / limit if used is not None and limit else None
    lines.append(
        [
            (" memory ", "dim"),
            (fit(numbers.size(used), 5, ">") + " ", value),
            (gauge(share, bar), "gauge2"),
            (f"  of {numbers.size(limit)}", "dim"),
        ]
    )
    for run, sample in machine.runs.items():
        cpu = "·" if sample.cpu_percent is None else msg("{cpu_percent:.0f}% of a core", cpu_percent=sample.cpu_percent)
        lines.append(
            [
                (f" run {one_line(str(run))}", "running"),
                (
                    f"  {cpu} · {numbers.size(sample.rss_bytes)} · {plural(sample.processes, 'process', 'processes')}",
                    "text",
                ),
            ]
        )
    return lines


class GpusPane(ScrollPane):
    place = "gpus"
    number = 2

    def __init__(self) -> None:
        super().__init__(id="gpus")
        self.machine: Snapshot | None = None

    def take(self, machine: Snapshot | None) -> None:
        self.machine = machine
        self.repaint()

    def title(self) -> Line:
        if self.machine is None or self.machine.gpus:
            return [("GPUs", "title")]
        return [("CPU and memory", "title")]

    def hint(self) -> str:
        return (
            msg("driver {driver} · every 1 s", driver=one_line(self.machine.driver))
            if self.machine and self.machine.driver
            else ""
        )

    def head(self, width: int) -> list[Line]:
        return gpu_lines(self.machine, width)[:1]

    def content(self, width: int) -> list[Line]:
        return gpu_lines(self.machine, width)[1:]
