"""Control groups: real ones of version 1, which need root, and trees of files as version 2 has them."""

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from engine.base import control_groups

_MEMORY = Path("/sys/fs/cgroup/memory")
_CPU = Path("/sys/fs/cgroup/cpu")


@contextlib.contextmanager
def real_memory_group(limit_bytes: int, *below: str) -> Iterator[Path]:
    """The folder of a group within one that has the limit; a process enters it by its pid in `cgroup.procs`."""
    with _group(_MEMORY, {"memory.limit_in_bytes": str(limit_bytes)}, *below) as folder:
        yield folder


@contextlib.contextmanager
def real_cpu_group(cores: float) -> Iterator[Path]:
    with _group(_CPU, {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": str(int(cores * 100_000))}) as folder:
        yield folder


@contextlib.contextmanager
def _group(hierarchy: Path, files: Mapping[str, str], *below: str) -> Iterator[Path]:
    if os.geteuid() != 0 or not (hierarchy / "cgroup.procs").exists():
        pytest.skip("needs root, and control groups of version 1")
    top = hierarchy / f"finetop-test-{uuid.uuid4().hex[:8]}"
    made = [top, *(top.joinpath(*below[: depth + 1]) for depth in range(len(below)))]
    try:
        for folder in made:
            try:
                folder.mkdir()
            except OSError as error:
                pytest.skip(f"no control group can be made here: {error.strerror}")
        for name, content in files.items():
            (top / name).write_text(content)
        yield made[-1]
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # whoever is still in it is moved to where this process is
                for pid in (folder / "cgroup.procs").read_text().split():
                    (hierarchy / "cgroup.procs").write_text(pid)
            with contextlib.suppress(OSError):
                folder.rmdir()


class FakeGroups:
    """/proc and /sys/fs/cgroup of a machine, or of a container on it, in a folder of files."""

    def __init__(self, root: Path, path: str, mount_root: str = "/", total_kb: int = 24_000_000) -> None:
        """`path`: the process's group as /proc/self/cgroup has it; `mount_root`: what of the hierarchy is mounted."""
        self.root = root
        self.top = root / "sys/fs/cgroup"
        self.write("proc/self/cgroup", f"0::{path}\n")
        self.write("proc/self/mountinfo", f"30 23 0:26 {mount_root} /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n")
        self.write("proc/meminfo", f"MemTotal:       {total_kb} kB\n")
        self.machine_kills(0)

    def write(self, name: str, content: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def machine_kills(self, count: int) -> None:
        self.write("proc/vmstat", f"nr_free_pages 1\noom_kill {count}\n")

    def group(
        self, path: str, limit: int | str = "max", used: int = 0, files: int = 0, cpu: str = "max 100000"
    ) -> None:
        """`used` bytes, of which `files` are pages of files."""
        at = f"sys/fs/cgroup{path.rstrip('/')}"
        self.write(f"{at}/memory.max", f"{limit}\n")
        self.write(f"{at}/memory.current", f"{used}\n")
        self.write(f"{at}/memory.stat", f"anon {used - files}\ninactive_file {files}\nactive_file 0\n")
        self.write(f"{at}/cpu.max", f"{cpu}\n")
        self.counted(path)

    def counted(self, path: str, oom: int = 0, kills: int = 0, group_kills: int = 0, local: int | None = None) -> None:
        """What memory.events has of the group and all below it; `local`: `oom` of the group alone."""
        at = f"sys/fs/cgroup{path.rstrip('/')}"
        events = "low 0\nhigh 0\nmax 9\noom {}\noom_kill {}\noom_group_kill {}\n"
        self.write(f"{at}/memory.events", events.format(oom, kills, group_kills))
        self.write(f"{at}/memory.events.local", events.format(oom if local is None else local, kills, group_kills))


@pytest.fixture
def fake_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a `FakeGroups` that this process believes in."""

    def make(path: str, mount_root: str = "/", **options: int) -> FakeGroups:
        monkeypatch.setattr(control_groups, "ROOT", tmp_path / "machine")
        return FakeGroups(tmp_path / "machine", path, mount_root, **options)

    return make
