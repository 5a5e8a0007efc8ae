"""Builds the stand-in driver, writes what it answers, and runs Python against it with the real pynvml."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")
ROOT = SOURCE.parents[3]

GIB = 1 << 30
A100 = {
    "name": "NVIDIA A100-SXM4-80GB",
    "memory": f"{80 * GIB},{GIB // 2},{62 * GIB}",
    "utilisation": "98,71",
    "temperature": 71,
    "power": 402_500,
    "power_limit": 400_000,
    "sm_clock": 1305,
    "sm_clock_max": 1410,
    "memory_clock": 1593,
    "held_back": 0x4,
    "pcie_gen": 4,
    "pcie_gen_max": 4,
    "pcie_width": 16,
    "pcie_width_max": 16,
    "pcie_tx": 1000,
    "pcie_rx": 2000,
    "ecc_corrected": 3,
    "ecc_uncorrected": 0,
    "energy": 7_200_000,
    "mig": 0,
    "compute": "",
    "graphics": "",
}
"""An A100 as it answers; it has no fan, so 'fan' is missing."""


def compiler() -> str | None:
    return shutil.which("gcc") or shutil.which("cc")


def build(folder: Path, *flags: str) -> Path:
    """Compiles the library into `folder` (1 s) and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "libnvidia-ml.so.1"
    command = [compiler(), "-shared", "-fPIC", "-O1", "-Wall", f"-Wl,-soname,{name}", *flags]
    subprocess.run([*command, "-o", str(folder / name), str(SOURCE), "-lpthread"], check=True)
    return folder


def uuid(index: int) -> str:
    return f"GPU-{index:08x}-aaaa-bbbb-cccc-{index:012x}"


def card(index: int, **changes) -> dict[str, str]:
    """The lines of one A100; a change to None leaves the figure out."""
    figures = {"uuid": uuid(index), "pci": f"00000000:{index + 16:02X}:00.0", **A100, **changes}
    return {f"gpu{index}.{key}": str(value) for key, value in figures.items() if value is not None}


def machine(*cards: dict[str, str], **system) -> dict[str, str]:
    lines = {"driver": "570.86.15", "cuda": "12080", "count": str(len(cards)), **{k: str(v) for k, v in system.items()}}
    for one in cards:
        lines |= one
    return lines


class FakeNvml:
    """One stand-in driver and the file it reads."""

    def __init__(self, library: Path, state: Path) -> None:
        self.library, self.state = library, state

    def set(self, lines: dict[str, str]) -> None:
        write(self.state, lines)

    def environ(self) -> dict[str, str]:
        return os.environ | {
            "LD_LIBRARY_PATH": str(self.library),
            "FAKE_NVML_STATE": str(self.state),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{SOURCE.parents[1]}",
        }

    def python(self, code: str, *arguments: str, timeout: float = 60.0):
        """Runs `code` in a fresh interpreter and returns what it passes to `emit`, through JSON."""
        prelude = "import json, sys, dataclasses\ndef emit(x): print('@' + json.dumps(x, default=dataclasses.asdict))\n"
        done = subprocess.run(
            [sys.executable, "-c", prelude + textwrap.dedent(code), *map(str, arguments)],
            env=self.environ(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("@"))[1:])


def write(state: Path, lines: dict[str, str]) -> None:
    """Replaces the file at once, so that the library never reads half of it."""
    new = state.with_suffix(".new")
    new.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    os.replace(new, state)
