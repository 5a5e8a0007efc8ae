"""For a rehearsal without a card: the stand-in driver of the tests, and the nvidia-smi that would go with it."""

import sys
import threading
import time
from pathlib import Path
from typing import Any

from gpu.findings import NotHere
from gpu.records import ROOT

GIB = 1 << 30
WATTS, IDLE_BYTES = 400.0, 3 * GIB


class FakeCard:
    """One A100 that tells what it is told to; `environment` makes processes see it."""

    def __init__(self, folder: Path) -> None:
        tests = ROOT / "tests" / "engine"
        if not (tests / "fake_nvml").is_dir():
            raise NotHere("not on a CPU: the stand-in driver of the tests is not part of this copy")
        sys.path.append(str(ROOT))
        from tests.engine.fake_nvml import library

        if library.compiler() is None:
            raise NotHere("not on a CPU: no C compiler to build the stand-in driver with")
        self._library, self._state = library, folder / "nvml.state"
        self._changes: dict[str, Any] = {}
        self._writing = threading.Lock()
        self.environment = {
            "LD_LIBRARY_PATH": str(library.build(folder / "nvml")),
            "FAKE_NVML_STATE": str(self._state),
            "CUDA_VISIBLE_DEVICES": library.uuid(0),
        }
        self.set(memory=f"{80 * GIB},{GIB // 2},{IDLE_BYTES}", power=int(1000 * WATTS), energy=0)

    def set(self, **changes: Any) -> None:
        with self._writing:
            self._changes |= changes
            self._library.write(self._state, self._library.machine(self._library.card(0, **self._changes)))

    def hold(self, pid: int, size: int) -> None:
        """A process takes memory."""
        self.set(memory=f"{80 * GIB},{GIB // 2},{IDLE_BYTES + size}", compute=f"{pid}:{size}")

    def energy(self) -> float:
        """Joules, by its counter."""
        return self._changes["energy"] / 1000

    def burn(self, stop: threading.Event) -> threading.Thread:
        """Let the counter run at the card's power until `stop`."""
        began, before = time.monotonic(), self._changes["energy"]

        def tick() -> None:
            while not stop.wait(0.1):
                self.set(energy=int(before + 1000 * WATTS * (time.monotonic() - began)))

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        return thread

    def smi(self, fields: list[str]) -> list[str]:
        """The line nvidia-smi would print for `--query-gpu=`; memory in MiB, as it does."""
        state = dict(line.split("=", 1) for line in self._state.read_text("utf-8").splitlines())
        of = {key.removeprefix("gpu0."): value for key, value in state.items()}
        total, _, used = (int(value) // 2**20 for value in of["memory"].split(","))
        fields_of = {
            "uuid": of["uuid"], "name": of["name"], "driver_version": of["driver"], "memory.total": total,
            "memory.used": used, "utilization.gpu": of["utilisation"].split(",")[0],
            "temperature.gpu": of["temperature"], "power.draw": int(of["power"]) / 1000, "clocks.sm": of["sm_clock"],
        }  # fmt: skip
        return [str(fields_of[field]) for field in fields]

    def smi_processes(self) -> list[tuple[int, int]]:
        """Pids and MiB, as `--query-compute-apps=` has them."""
        listed = [entry.split(":") for entry in str(self._changes.get("compute", "")).split(",") if entry]
        return [(int(pid), int(size) // 2**20) for pid, size, *_ in listed]
