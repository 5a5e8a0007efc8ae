"""`finetop top`: what the GPUs and the host are doing, printed once."""

import argparse

from engine.base.engine_folder import live_engines
from engine.base.messages import msg
from engine.base.workspace import find_workspace
from engine.monitor.samples import GpuProcess, GpuSample, Snapshot, as_plain
from engine.present.engine_table import engine_lines, engines_json
from engine.present.gpu_table import UNAVAILABLE, gpu_table
from engine.present.numbers import size
from engine.present.text import cut, fit, one_line, print_json

WIDTH = 80

_EPILOG = """examples:
  finetop top
  finetop top --json | jq '.gpus[] | {index, utilisation, memory_used_bytes}'
"""


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "top",
        parents=[common],
        description="Prints what the GPUs and the host are doing now, and whose work it is.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="every figure, unrounded; null where a card tells nothing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from engine.monitor.monitor import read_once  # psutil: 30 ms
    from engine.store.live_runs import live_runs  # with sqlite3: 10 ms, which --help need not pay

    workspace = find_workspace(args.workspace)
    watched = live_runs(workspace)
    watched.update({engine.name: (engine.use.pid, engine.state.started) for engine in live_engines(workspace)})
    snapshot = read_once(workspace.root, runs=watched, rounds=2)
    if args.json:
        print_json(as_plain(snapshot) | {"engines": engines_json(workspace)})
    else:
        engine_rows = engine_lines(workspace, WIDTH)
        print("\n".join([*table(snapshot), *(["", *engine_rows] if engine_rows else [])]))
    return 0


# -- the table: pure, from a snapshot to lines ---------------------------------------------------------------------


def table(snapshot: Snapshot, width: int = WIDTH) -> list[str]:
    lines = _gpu_lines(snapshot, width)
    processes = [(gpu, process) for gpu in snapshot.gpus for process in gpu.processes or ()]
    if processes:
        lines += ["", f"{'gpu':>4} {'pid':>8}  {'user':<10} {'memory':>7}  {'run':<8}  command"]
        lines += [_process_line(gpu, process) for gpu, process in sorted(processes, key=_biggest_first)]
    lines += [*_run_lines(snapshot), "", *_host_lines(snapshot)]
    return [cut(line, width).rstrip() for line in lines]


def _gpu_lines(snapshot: Snapshot, width: int) -> list[str]:
    if not snapshot.gpus:
        return [snapshot.gpu_problem or "No NVIDIA GPU has answered yet."]
    lines = ["".join(text for text, _ in line) for line in gpu_table(snapshot, width)]
    versions = [
        f"driver {snapshot.driver}" if snapshot.driver else "",
        f"CUDA {snapshot.cuda}" if snapshot.cuda else "",
    ]
    return [*lines, "    " + " · ".join(filter(None, versions))]


def _process_line(gpu: GpuSample, process: GpuProcess) -> str:
    owner = str(process.run) if process.run is not None else process.owner
    command = process.command or ("(pid of another namespace)" if not process.identified else "(hidden)")
    user, run = fit(one_line(process.user or "?"), 10), fit(owner, 8)
    return f"{gpu.index:>4} {process.pid:>8}  {user} {_size(process.memory_bytes):>7}  {run}  {one_line(command)}"


def _biggest_first(row: tuple[GpuSample, GpuProcess]) -> tuple:
    return row[0].index, -(row[1].memory_bytes or 0), row[1].pid


def _run_lines(snapshot: Snapshot) -> list[str]:
    runs = {run: load for run, load in snapshot.runs.items() if isinstance(run, int)}  # engines have their own table
    if not runs:
        return []
    lines = ["", f"{'run':>4} {'processes':>9}  {'cpu':>6}  {'memory':>7}  disk"]
    for run, load in runs.items():
        disk = msg(
            "read {read_bytes_per_s}  write {write_bytes_per_s}",
            read_bytes_per_s=rate(load.read_bytes_per_s),
            write_bytes_per_s=rate(load.write_bytes_per_s),
        )
        lines.append(
            f"{run:>4} {load.processes:>9}  {_percent(load.cpu_percent):>6}  {_size(load.rss_bytes):>7}  {disk}"
        )
    return lines


def _host_lines(snapshot: Snapshot) -> list[str]:
    lines = []
    if host := snapshot.host:
        load = UNAVAILABLE if host.load_1min is None else f"{host.load_1min:.1f}"
        swap = (
            msg(
                "swap {swap_used_bytes} of {swap_total_bytes}",
                swap_used_bytes=_size(host.swap_used_bytes),
                swap_total_bytes=_size(host.swap_total_bytes),
            )
            if host.swap_total_bytes
            else "no swap"
        )
        lines.append(
            msg(
                "host  cpu {cpu_percent} of {cpu_count} cores · load {load} · "
                "memory {memory_used_bytes} of {memory_total_bytes} · {swap}",
                cpu_percent=_percent(host.cpu_percent),
                cpu_count=host.cpu_count,
                load=load,
                memory_used_bytes=_size(host.memory_used_bytes),
                memory_total_bytes=_size(host.memory_total_bytes),
                swap=swap,
            )
        )
        if host.memory_limit_bytes:
            lines.append(
                msg(
                    "limit memory {used} of the {size} of {owner}",
                    used=_size(host.memory_limit_used_bytes),
                    size=_size(host.memory_limit_bytes),
                    owner=one_line(host.memory_limit_owner or "its control group"),
                )
            )
    if disk := snapshot.disk:
        rates = msg(
            "read {read_bytes_per_s} · write {write_bytes_per_s}",
            read_bytes_per_s=rate(disk.read_bytes_per_s),
            write_bytes_per_s=rate(disk.write_bytes_per_s),
        )
        path = one_line(disk.path)
        path = path if len(path) <= 28 else "…" + path[-27:]
        lines.append(
            msg(
                "disk  {free_bytes} free of {total_bytes} · {rates} · {path}",
                free_bytes=_size(disk.free_bytes),
                total_bytes=_size(disk.total_bytes),
                rates=rates,
                path=path,
            )
        )
    return lines


# -- words and numbers -----------------------------------------------------------------------------------------------


def _size(amount: int | None) -> str:
    return UNAVAILABLE if amount is None else size(amount)


def rate(amount: float | None) -> str:
    if amount is None:
        return UNAVAILABLE
    for unit in ("B", "K", "M"):
        if amount < 1000:
            return f"{amount:.0f}{unit}/s"
        amount /= 1024
    return f"{amount:.1f}G/s"


def _percent(value: float | None) -> str:
    return UNAVAILABLE if value is None else f"{value:.0f}%"
