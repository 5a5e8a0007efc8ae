"""`finetop top`: what the GPUs and the host are doing, printed once."""

import argparse
import contextlib

from engine.base.errors import EngineError
from engine.base.messages import msg
from engine.base.units import gib_text
from engine.base.workspace import Workspace, find_workspace
from engine.monitor.samples import GpuProcess, GpuSample, RunId, Snapshot, as_plain
from engine.present.text import cut, fit, one_line, print_json
from engine.present.text import gauge as bar

WIDTH = 80
_NOT_TOLD = "n/a"

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

    workspace = find_workspace(args.workspace)
    snapshot = read_once(workspace.root, runs=_live_runs(workspace), rounds=2)
    if args.json:
        print_json(as_plain(snapshot))
    else:
        print("\n".join(table(snapshot)))
    return 0


def _live_runs(workspace: Workspace) -> dict[RunId, tuple[int, float | None]]:
    """Id to (worker pid, its start time), by the store. Without one, or with one that cannot be read, none is known."""
    from engine.store import queries  # with sqlite3: 10 ms, which --help need not pay
    from engine.store.connect import DatabaseError, reader

    with contextlib.suppress(EngineError, DatabaseError), contextlib.closing(reader(workspace.database)) as conn:
        return {run.id: (run.pid, run.pid_started) for run in queries.active(conn) if run.pid is not None}
    return {}


# -- the table: pure, from a snapshot to lines ---------------------------------------------------------------------


def table(snapshot: Snapshot, width: int = WIDTH) -> list[str]:
    lines = _gpu_lines(snapshot)
    processes = [(gpu, process) for gpu in snapshot.gpus for process in gpu.processes or ()]
    if processes:
        lines += ["", f"{'gpu':>4} {'pid':>8}  {'user':<10} {'memory':>7}  {'run':<8}  command"]
        lines += [_process_line(gpu, process) for gpu, process in sorted(processes, key=_biggest_first)]
    lines += [*_run_lines(snapshot), "", *_host_lines(snapshot)]
    return [cut(line, width).rstrip() for line in lines]


def _gpu_lines(snapshot: Snapshot) -> list[str]:
    if not snapshot.gpus:
        return [snapshot.gpu_problem or "No NVIDIA GPU has answered yet."]
    lines = [f"{'#':>2}  {'name':<14} {'core':<12}  {'memory':<19}  {'temp':>5} {'power':>9}  run"]
    for gpu in snapshot.gpus:
        lines.append(_slice_line(gpu) if gpu.parent else _card_line(gpu))
        if gpu.problem or gpu.stale:
            age = (
                msg(" · figures are {age_seconds:.0f} s old", age_seconds=gpu.age_seconds)
                if gpu.stale and gpu.age_seconds is not None
                else ""
            )
            lines.append(f"    ! {gpu.problem or 'stale'}{age}")
        if gpu.held_back:
            lines.append(msg("    held back: {held_back}", held_back=", ".join(gpu.held_back)))
        if gpu.ecc_uncorrected:
            lines.append(
                msg(
                    "    ! {ecc_uncorrected} uncorrected memory errors since the driver was loaded",
                    ecc_uncorrected=gpu.ecc_uncorrected,
                )
            )
    versions = [
        f"driver {snapshot.driver}" if snapshot.driver else "",
        f"CUDA {snapshot.cuda}" if snapshot.cuda else "",
    ]
    if snapshot.gpu_problem:
        lines.append(f"    ! {snapshot.gpu_problem}")
    return [*lines, "    " + " · ".join(filter(None, versions))]


def _card_line(gpu: GpuSample) -> str:
    name = short_name(gpu.name or _NOT_TOLD)
    temperature = _NOT_TOLD if gpu.temperature_c is None else f"{gpu.temperature_c:.0f}°C"
    core = f"{_percent(gpu.utilisation):>4} {gauge(gpu.utilisation, 7)}"
    return f"{gpu.index:>2}  {fit(name, 14)} {core}  {_memory(gpu)}  {temperature:>5} {_power(gpu):>9}  {_holders(gpu)}"


def _slice_line(gpu: GpuSample) -> str:
    name = f"└ {gpu.name.rsplit('MIG ', 1)[-1]}" if gpu.name else "└ slice"
    return f"    {fit(name, 14)} {'':8}  {_memory(gpu)}  {'':>5} {'':>9}  {_holders(gpu)}"


def _memory(gpu: GpuSample) -> str:
    used, total = gpu.memory_used_bytes, gpu.memory_total_bytes
    share = None if used is None or not total else 100.0 * used / total
    return f"{gib(used):>6} {gauge(share, 7)} {'' if total is None else gib(total, 0):>4}"


def _power(gpu: GpuSample) -> str:
    if gpu.power_watts is None:
        return _NOT_TOLD
    limit = "" if gpu.power_limit_watts is None else f"/{gpu.power_limit_watts:.0f}"
    return f"{gpu.power_watts:.0f}{limit} W"


def _holders(gpu: GpuSample) -> str:
    """The runs on this card, else whose processes they are, else a dash."""
    if gpu.processes is None:
        return "" if gpu.mig_enabled else _NOT_TOLD
    runs = sorted({str(process.run) for process in gpu.processes if process.run is not None})
    others = sorted({process.user or "?" for process in gpu.processes if process.run is None})
    return one_line(" ".join(runs + others)) or "—"


def _process_line(gpu: GpuSample, process: GpuProcess) -> str:
    owner = str(process.run) if process.run is not None else process.owner
    command = process.command or ("(pid of another namespace)" if not process.identified else "(hidden)")
    user = fit(one_line(process.user or "?"), 10)
    return (
        f"{gpu.index:>4} {process.pid:>8}  {user} {gib(process.memory_bytes):>7}  {fit(owner, 8)}  {one_line(command)}"
    )


def _biggest_first(row: tuple[GpuSample, GpuProcess]) -> tuple:
    return row[0].index, -(row[1].memory_bytes or 0), row[1].pid


def _run_lines(snapshot: Snapshot) -> list[str]:
    if not snapshot.runs:
        return []
    lines = ["", f"{'run':>4} {'processes':>9}  {'cpu':>6}  {'memory':>7}  disk"]
    for run, load in snapshot.runs.items():
        disk = msg(
            "read {read_bytes_per_s}  write {write_bytes_per_s}",
            read_bytes_per_s=rate(load.read_bytes_per_s),
            write_bytes_per_s=rate(load.write_bytes_per_s),
        )
        lines.append(f"{run:>4} {load.processes:>9}  {_percent(load.cpu_percent):>6}  {gib(load.rss_bytes):>7}  {disk}")
    return lines


def _host_lines(snapshot: Snapshot) -> list[str]:
    lines = []
    if host := snapshot.host:
        load = _NOT_TOLD if host.load_1min is None else f"{host.load_1min:.1f}"
        limit = f" (limit {gib(host.memory_limit_bytes)})" if host.memory_limit_bytes else ""
        swap = (
            msg(
                "swap {swap_used_bytes} of {swap_total_bytes}",
                swap_used_bytes=gib(host.swap_used_bytes),
                swap_total_bytes=gib(host.swap_total_bytes),
            )
            if host.swap_total_bytes
            else "no swap"
        )
        lines.append(
            msg(
                "host  cpu {cpu_percent} of {cpu_count} cores · load {load} · "
                "memory {memory_used_bytes} of {memory_total_bytes}{limit} · {swap}",
                cpu_percent=_percent(host.cpu_percent),
                cpu_count=host.cpu_count,
                load=load,
                memory_used_bytes=gib(host.memory_used_bytes),
                memory_total_bytes=gib(host.memory_total_bytes),
                limit=limit,
                swap=swap,
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
                free_bytes=gib(disk.free_bytes),
                total_bytes=gib(disk.total_bytes),
                rates=rates,
                path=path,
            )
        )
    return lines


# -- words and numbers -----------------------------------------------------------------------------------------------


def gauge(percent: float | None, width: int) -> str:
    return bar(None if percent is None else percent / 100, width)


def gib(amount: int | None, digits: int = 1) -> str:
    return _NOT_TOLD if amount is None else gib_text(amount, digits)


def rate(amount: float | None) -> str:
    if amount is None:
        return _NOT_TOLD
    for unit in ("B", "K", "M"):
        if amount < 1000:
            return f"{amount:.0f}{unit}/s"
        amount /= 1024
    return f"{amount:.1f}G/s"


def short_name(name: str) -> str:
    """'NVIDIA A100-SXM4-80GB' is known as 'A100-SXM4-80GB' to everyone who looks here."""
    for word in ("NVIDIA ", "GeForce ", "Tesla ", "Quadro "):
        name = name.removeprefix(word)
    return one_line(name)


def _percent(value: float | None) -> str:
    return _NOT_TOLD if value is None else f"{value:.0f}%"
