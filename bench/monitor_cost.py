"""What the monitor costs: processor share of one core at one round per second, 8 GPUs and 50 processes.

    python bench/monitor_cost.py [--seconds 30] [--others 1000] [--nvitop /path/to/venv/bin/python] [--real]

Each program runs in a process of its own against the stand-in libnvidia-ml.so.1 of the tests (with --real: against
this machine's driver); measured is user plus system time of that process and its children, over the wall time, its
start left out. The stand-in answers in microseconds, so the driver's own time is not in these figures: they compare
what the programs do around it. The 50 processes are real (sleeping) ones, spread over the cards.

`nvidia-smi` asks the driver through ioctl and cannot run without one, so it is timed only where there is a driver.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from measured import cpu_name  # noqa: E402

from tests.engine.fake_nvml.library import GIB, build, card, compiler, machine, write  # noqa: E402

GPUS, PROCESSES = 8, 50
TARGET_PERCENT = 1.0

MEASURE = """
import json, resource, sys, time
def cost():
    who = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, who))
def measured(seconds, tick):
    tick(); tick()  # what is read once is not the running cost
    began, before, next_tick, ticks = time.monotonic(), cost(), time.monotonic(), 0
    while time.monotonic() - began < seconds:
        tick(); ticks += 1
        next_tick += 1.0
        time.sleep(max(0.0, next_tick - time.monotonic()))
    wall = time.monotonic() - began
    print(json.dumps({"percent": 100 * (cost() - before) / wall, "ticks": ticks}))
"""

FINETOP = """
from engine.monitor.monitor import Monitor
pids = [int(pid) for pid in sys.argv[2].split(",")]
monitor = Monitor(".")
monitor.watch({1: (pids[0], None), 2: (pids[1], None)})
monitor.start()
monitor.wait(2, 20)
def tick():
    snapshot = monitor.latest()
    if sys.argv[3] == "check":
        assert len(snapshot.gpus) == 8, snapshot
        assert sum(len(gpu.processes) for gpu in snapshot.gpus) == 50, snapshot
measured(float(sys.argv[1]), tick)
"""

NVITOP = """
from nvitop import Device, GpuProcess
devices = Device.all()
if sys.argv[3] == "check":
    assert len(devices) == 8, devices
    assert sum(len(device.processes()) for device in devices) == 50
def tick():
    for device in devices:
        snapshot = device.as_snapshot()
        GpuProcess.take_snapshots(device.processes().values())
measured(float(sys.argv[1]), tick)
"""

NVIDIA_SMI = """
import subprocess
def tick():
    subprocess.run(["nvidia-smi", "--query-gpu=index,utilization.gpu,memory.used,temperature.gpu,power.draw",
                    "--format=csv"], stdout=subprocess.DEVNULL, check=True)
    subprocess.run(["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv"],
                   stdout=subprocess.DEVNULL, check=True)
measured(float(sys.argv[1]), tick)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--nvitop", metavar="PYTHON", help="python of an environment with nvitop (pip install nvitop)")
    parser.add_argument("--others", type=int, default=0, help="so many more sleeping processes on the machine")
    parser.add_argument("--real", action="store_true", help="this machine's driver instead of the stand-in")
    args = parser.parse_args()
    if not args.real and compiler() is None:
        print("no C compiler to build the stand-in library", file=sys.stderr)
        return 2

    sleepers = [subprocess.Popen(["sleep", "3600"]) for _ in range(PROCESSES + args.others)]
    pids = [process.pid for process in sleepers[:PROCESSES]]
    try:
        with tempfile.TemporaryDirectory() as folder:
            environ = dict(os.environ) if args.real else stand_in(Path(folder), pids)
            return report(args, environ, pids)
    finally:
        for process in sleepers:
            process.kill()
            process.wait()


def stand_in(folder: Path, pids: list[int]) -> dict[str, str]:
    library, state = build(folder / "lib"), folder / "state"
    cards = []
    for index in range(GPUS):
        mine = pids[index::GPUS]
        cards.append(card(index, compute=",".join(f"{pid}:{GIB}" for pid in mine)))
    write(state, machine(*cards))
    return os.environ | {"LD_LIBRARY_PATH": str(library), "FAKE_NVML_STATE": str(state), "PYTHONPATH": str(ROOT)}


def report(args: argparse.Namespace, environ: dict[str, str], pids: list[int]) -> int:
    against = "this machine's driver" if args.real else f"the stand-in driver, {GPUS} GPUs, {PROCESSES} processes"
    print(f"{cpu_name()}, {os.cpu_count()} cores, {processes()} processes in all, {time.strftime('%Y-%m-%d')}")
    print(f"against {against}")
    programs = [("finetop monitor", sys.executable, FINETOP)]
    if args.nvitop:
        programs.append(("nvitop, as a library", args.nvitop, NVITOP))
    if shutil.which("nvidia-smi") and args.real:
        programs.append(("nvidia-smi, twice a second round", sys.executable, NVIDIA_SMI))
    shares = {}
    for name, python, code in programs:
        command = [python, "-c", MEASURE + code, str(args.seconds), ",".join(map(str, pids))]
        command.append("look" if args.real else "check")
        runs = [json.loads(_output(command, environ)) for _ in range(args.repeats)]
        shares[name] = [run["percent"] for run in runs]
        each = ", ".join(f"{share:.2f}" for share in shares[name])
        print(f"{name:34} {statistics.median(shares[name]):6.2f} % of one core   ({each})")
    if "nvidia-smi" not in " ".join(shares):
        print("nvidia-smi: not measured, it needs a real driver (run with --real where there is one)")
    met = statistics.median(shares["finetop monitor"]) < TARGET_PERCENT
    print(f"target under {TARGET_PERCENT:.0f} %: {'met' if met else 'NOT met'}")
    return 0 if met else 1


def _output(command: list[str], environ: dict[str, str]) -> str:
    return subprocess.run(command, env=environ, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def processes() -> int:
    return sum(entry.isdigit() for entry in os.listdir("/proc"))


if __name__ == "__main__":
    sys.exit(main())
