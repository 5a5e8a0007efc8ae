"""What the kernel's control groups allow a process: the limits that containers, systemd and Slurm set.

cgroups(7), and Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the kernel. A limit may lie on any
group from the process's own up to the root, and the least of them counts. A container may not see the groups above its
own; version 1 tells of their limit all the same (`hierarchical_memory_limit`).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from engine.base.messages import msg
from engine.base.units import bytes_text

ROOT = Path("/")
"""Where /proc and the groups are looked for."""
_NO_LIMIT_BYTES = 1 << 60
"""Version 1 writes "none" as the largest number of whole pages, version 2 as `max`."""
_CONTAINER = re.compile(r"\b(docker|libpod|podman|kubepods|crio|cri-containerd|containerd|lxc|machine\.slice|ecs)")
_SLURM_JOB = re.compile(r"slurm.*/job_(\d+)")
_UNIT = re.compile(r"([^/]+\.(?:service|scope|slice))(?:/|$)")


@dataclass(frozen=True, slots=True)
class ControlGroup:
    folder: Path
    """With its files."""
    path: str
    """Its name below the root of its hierarchy, as this process may see it."""

    def read(self, name: str) -> str:
        """A file of the group, '' where it has none."""
        try:
            return (self.folder / name).read_text("ascii").strip()
        except (OSError, ValueError):
            return ""

    def number(self, *names: str) -> int | None:
        """The first of these files that holds a number; None where none does, `max` being none."""
        texts = map(self.read, names)
        return next((int(text) for text in texts if text.isdecimal()), None)

    def entries(self, name: str) -> dict[str, int]:
        """A file of lines such as `oom_kill 3`, or `MemTotal: 64 kB`."""
        lines = (line.split() for line in self.read(name).splitlines())
        return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}

    @property
    def owner(self) -> str:
        """What set it up, in words, as far as its name tells."""
        if job := _SLURM_JOB.search(self.path):
            return msg("Slurm job {number}", number=job[1])
        if self.path == "/" or _CONTAINER.search(self.path):  # the machine's own root has no limits
            return "this container"
        if units := _UNIT.findall(self.path):
            return msg("systemd unit {name}", name=units[-1])
        return msg("control group {path}", path=self.path)


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    limit_bytes: int
    used_bytes: int
    """By all processes of the group, but for what the kernel can take back: pages of files."""
    owner: str
    """Who set it: `this container`, `Slurm job 12`, `systemd unit train.service`."""

    @property
    def free_bytes(self) -> int:
        return max(0, self.limit_bytes - self.used_bytes)

    def __str__(self) -> str:
        return msg("limit {size} of {owner}", size=bytes_text(self.limit_bytes), owner=self.owner)


def groups_of(controller: str, pid: int | str = "self") -> tuple[ControlGroup, ...]:
    """The groups of a process that `controller`, such as memory, knows: its own first, then those above it.

    Empty where there are none, as on macOS, and for a process that is gone.
    """
    return tuple(group for view in _hierarchies(controller, pid) for group in _lineage(*view))


def memory_limit(groups: Sequence[ControlGroup]) -> MemoryLimit | None:
    """The least of the memory limits of these groups; None where there is none."""
    return min(memory_limits(groups), key=lambda limit: limit.limit_bytes, default=None)


def memory_limits(groups: Sequence[ControlGroup]) -> list[MemoryLimit]:
    """All of them, the process's own first."""
    limits = []
    for group in groups:
        limit_bytes = group.number("memory.max", "memory.limit_in_bytes")
        if limit_bytes is not None and limit_bytes < _NO_LIMIT_BYTES:
            limits.append(MemoryLimit(limit_bytes, _used_bytes(group), group.owner))
    lowest = min((limit.limit_bytes for limit in limits), default=_NO_LIMIT_BYTES)
    for group in groups[:1]:
        hierarchical = group.entries("memory.stat").get("hierarchical_memory_limit", _NO_LIMIT_BYTES)
        if hierarchical < lowest:
            limits.append(MemoryLimit(hierarchical, _used_bytes(groups[-1]), groups[-1].owner))
    return limits


def _used_bytes(group: ControlGroup) -> int:
    usage, stat = group.number("memory.current", "memory.usage_in_bytes") or 0, group.entries("memory.stat")
    total = "total_" if "total_inactive_file" in stat else ""  # version 1 counts the groups below by that name
    return max(0, usage - stat.get(f"{total}inactive_file", 0) - stat.get(f"{total}active_file", 0))


def cpu_quota(groups: Sequence[ControlGroup]) -> float | None:
    """How many processors' time the processes of these groups may use; None without a quota."""
    return min((quota for group in groups if (quota := _quota(group)) is not None), default=None)


def _quota(group: ControlGroup) -> float | None:
    words = group.read("cpu.max").split() or [group.read("cpu.cfs_quota_us"), group.read("cpu.cfs_period_us")]
    if len(words) != 2 or not all(word.isdecimal() for word in words):  # `max`, -1
        return None
    quota, period = map(int, words)
    return quota / period if quota and period else None


_View = tuple[Path, PurePosixPath, PurePosixPath]
"""Where a hierarchy is mounted, the group that is mounted there, and below that the process's own."""


def _hierarchies(controller: str, pid: int | str) -> Iterator[_View]:
    """Of each hierarchy with the controller, as this process sees them."""
    try:
        memberships = (ROOT / f"proc/{pid}/cgroup").read_text("utf-8", "surrogateescape").splitlines()
        mounts = (ROOT / "proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return
    for line in memberships:
        number, controllers, path = line.split(":", 2)
        if number != "0" and controller not in controllers.split(","):
            continue
        views = [_view(mount, PurePosixPath(path)) for mount in mounts if _mounts(mount, number == "0", controller)]
        if views:  # a container may see it at several places, of which one has the process's group
            yield max(views, key=lambda view: view[0])[1]


def _mounts(mount: str, unified: bool, controller: str) -> bool:
    """Whether a line of mountinfo is about a hierarchy of version 2, or one of version 1 with the controller."""
    kind, _, options = mount.partition(" - ")[2].split(" ", 2)
    return kind == "cgroup2" if unified else kind == "cgroup" and controller in options.split(",")


def _view(mount: str, path: PurePosixPath) -> tuple[bool, _View]:
    """Whether the process's group is seen there, and what is."""
    mount_root, mount_point = (_unescaped(word) for word in mount.split()[3:5])
    top, root = ROOT / mount_point.lstrip("/"), PurePosixPath(mount_root)
    below = path.relative_to(root if path.is_relative_to(root) else "/")
    is_seen = ".." not in below.parts and (top / below).is_dir()
    # Named as another namespace sees it, it is taken for the one that is mounted.
    return is_seen, (top, root, below if is_seen else PurePosixPath())


def _lineage(top: Path, root: PurePosixPath, below: PurePosixPath) -> Iterator[ControlGroup]:
    """From the process's group up to the one that is mounted. A container that is shown only its own part of the
    hierarchy is still told the name of that part."""
    for group in (below, *below.parents):
        yield ControlGroup(top / group, str(root / group))


def _unescaped(word: str) -> str:
    """A path as mountinfo writes it: `\\040` for a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)
