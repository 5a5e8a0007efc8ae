"""Pane 2: each GPU and whose work it does; processor and memory where there is none."""

from engine.base.messages import msg
from engine.monitor.samples import GpuSample, Snapshot
from engine.present import numbers
from engine.present.gpu_table import gpu_table
from engine.present.numbers import plural
from engine.present.text import cut, fit, gauge, one_line, wrap
from tui.render.line import Line
from tui.widgets.scroll import ScrollPane


def gpu_lines(machine: Snapshot | None, width: int) -> list[Line]:
    """The pane's lines, most needed first; a card that cannot be read says so in its own line."""
    if machine is None:
        return [[(" reading the GPUs …", "dim")]]
    if not machine.gpus:
        problem = machine.gpu_problem or "No GPU has answered yet."
        return [
            *([(text, "dim")] for text in wrap(problem, width, " ", " ")),
            [],
            *_host_lines(machine, width),
        ]
    return [*gpu_table(machine, width), *(line for gpu in machine.gpus for line in _foreign_processes(gpu, width))]


def _foreign_processes(gpu: GpuSample, width: int) -> list[Line]:
    """Processes on a card that belong to no run."""
    lines: list[Line] = []
    for process in gpu.processes or ():
        if process.run is None:
            owner = msg(
                "pid {pid} of {user}, {memory}",
                pid=process.pid,
                user=one_line(process.user or "?"),
                memory=numbers.size(process.memory_bytes),
            )
            command = f" · {one_line(process.command)}" if process.command else ""
            text = msg("   GPU {index}: not ours: {owner}{command}", index=gpu.index, owner=owner, command=command)
            lines.append([(cut(text, width), "dim")])
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
    limit, owner = host.memory_bytes, f", {one_line(host.memory_limit_owner)}" if host.memory_limit_owner else ""
    used = host.memory_used_bytes if host.memory_limit_bytes is None else host.memory_limit_used_bytes
    share = used / limit if used is not None and limit else None
    lines.append(
        [
            (" memory ", "dim"),
            (fit(numbers.size(used), 5, ">") + " ", value),
            (gauge(share, bar), "gauge2"),
            (f"  of {numbers.size(limit)}{owner}", "dim"),
        ]
    )
    if host.memory_used_bytes is None:
        lines.append([(" the daemon measures, once a run is queued", "dim")])
    for run, sample in machine.runs.items():
        cpu = "·" if sample.cpu_percent is None else msg("{cpu_percent:.0f}% of a core", cpu_percent=sample.cpu_percent)
        lines.append(
            [
                (f" {'run' if isinstance(run, int) else 'engine'} {one_line(str(run))}", "running"),
                (
                    f"  {cpu} · {numbers.size(sample.rss_bytes)} · {plural(sample.processes, 'process', 'processes')}",
                    "text",
                ),
            ]
        )
    return lines


class GpusPane(ScrollPane):
    scope = "gpus"
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
