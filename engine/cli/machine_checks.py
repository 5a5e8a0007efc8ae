"""What `finetop doctor` looks at of the machine: programs, GPUs, limits of memory and processors, the terminal."""

import os
import platform
import re
import resource
import shutil
import sys
from pathlib import Path

from engine import __version__
from engine.base.control_groups import cpu_quota, groups_of, memory_limits
from engine.base.messages import msg
from engine.base.workspace import PACKAGE_ROOT, Workspace
from engine.cli.finding import Said
from engine.present.numbers import bytes_text
from engine.settings.presets import user_folder
from engine.store.database_health import SQLITE_VERSION, sqlite_is_new_enough

_LIBRARIES = (
    "torch", "transformers", "peft", "bitsandbytes", "datasets", "safetensors", "numpy", "psutil", "nvidia-ml-py",
    "sqlite-utils", "textual",
)  # fmt: skip


def programs(workspace: Workspace) -> Said:
    import importlib.metadata  # 15 ms

    yield (msg("finetop {version} in {package_root}", version=__version__, package_root=PACKAGE_ROOT),)
    yield (f"Python {platform.python_version()}: {sys.executable}",)
    yield (
        msg(
            "{system} {release} on {machine}, {cpu_count} cores",
            system=platform.system(),
            release=platform.release(),
            machine=platform.machine(),
            cpu_count=os.cpu_count(),
        ),
    )
    if sqlite_is_new_enough():
        yield (f"SQLite {SQLITE_VERSION}",)
    else:
        yield f"SQLite {SQLITE_VERSION} is too old", "bad", "Use a Python built with SQLite 3.38 or newer."
    versions, missing = [], []
    for name in _LIBRARIES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    yield (", ".join(versions),)
    if missing:
        yield (
            msg("not installed: {missing}", missing=", ".join(missing)),
            "bad",
            msg("{executable} -m pip install {missing}", executable=sys.executable, missing=" ".join(missing)),
        )
    hub = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
    yield (
        msg("models and data of the hub are kept in {hub}", hub=hub)
        + (", offline" if os.environ.get("HF_HUB_OFFLINE") else ""),
    )
    yield (msg("your own presets: {user_folder}", user_folder=user_folder()),)


def gpus(workspace: Workspace) -> Said:
    from engine.monitor.cuda_visible_devices import visible_gpus
    from engine.monitor.monitor import read_once  # psutil: 30 ms

    snapshot = read_once(workspace.root)
    cuda, version = torch_cuda()
    built = msg("torch {version} is built ", version=version) + (
        msg("for CUDA {cuda}", cuda=cuda) if cuda else "without CUDA"
    )
    cards = [gpu for gpu in snapshot.gpus if not gpu.parent]
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not cards:
        yield (
            msg("no NVIDIA GPU: {gpu_problem}", gpu_problem=snapshot.gpu_problem or "the driver knows of none"),
            "note",
            "Runs train on the CPU.",
        )
        yield (built,)
        return
    for gpu in cards:
        total, used = gpu.memory_total_bytes, gpu.memory_used_bytes
        memory = (
            msg(", {used:.1f} of {total:.0f} GiB used", used=used / 2**30, total=total / 2**30)
            if total and used is not None
            else ""
        )
        if gpu.problem:
            yield f"GPU {gpu.index} {gpu.name}: {gpu.problem}", "note", "`finetop top` shows what it still tells."
        else:
            yield (f"GPU {gpu.index} {gpu.name}{memory}",)
    yield (msg("driver {driver}, which supports CUDA up to {cuda}", driver=snapshot.driver, cuda=snapshot.cuda),)
    if not cuda:
        yield (
            msg("{built}, so nothing trains on the GPU", built=built),
            "bad",
            "Install torch with CUDA: see pytorch.org/get-started.",
        )
    elif snapshot.cuda and _major(cuda) > _major(snapshot.cuda):
        yield (
            msg("{built}, newer than the driver", built=built),
            "bad",
            msg("Update the NVIDIA driver, or install a torch built for CUDA {cuda}.", cuda=_major(snapshot.cuda)),
        )
    else:
        yield (built,)
    if hidden is not None and not hidden.strip():
        yield "CUDA_VISIBLE_DEVICES is empty: no GPU is used", "note", "Unset it."
    elif hidden and len(visible_gpus(snapshot.gpus, os.environ).gpus) < len(cards):
        yield msg("CUDA_VISIBLE_DEVICES={hidden}: only these are used", hidden=hidden), "note"


def torch_cuda() -> tuple[str, str]:
    """The CUDA version torch was built for, empty for none, and torch's own; from its files, nothing is imported."""
    import importlib.util

    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return "", "(not installed)"
    try:
        text = (Path(spec.origin).parent / "version.py").read_text("utf-8")
    except OSError:
        return "", "(unreadable)"
    cuda = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    version = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    return cuda[1] if cuda else "", version[1] if version else "?"


def _major(version: str) -> int:
    return int(version.split(".")[0])


def limits(workspace: Workspace) -> Said:
    """What control groups and the shell allow, and what the machine has."""
    from engine.monitor.host import HostReader  # psutil: 30 ms

    host = HostReader().read()
    total_bytes, cores = host.memory_total_bytes or 0, os.cpu_count() or 1
    yield (
        msg(
            "memory: {total} on this machine, {free} of it free for finetop",
            total=bytes_text(total_bytes),
            free=bytes_text(host.memory_free_bytes or 0),
        ),
    )
    for limit in memory_limits(groups_of("memory")):
        if limit.limit_bytes < total_bytes:
            text = msg("memory {limit}, {used} in use", limit=limit, used=bytes_text(limit.used_bytes))
            yield text, "note", "Whoever takes more is ended by the kernel. `finetop plan` reckons with it."
    quota = cpu_quota(groups_of("cpu"))
    if quota is not None and quota < cores:
        yield msg("processors: {quota:g} of {cores}, by a quota", quota=quota, cores=cores), "note"
    elif (usable := len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores) < cores:
        yield msg("processors: {usable} of {cores}, by affinity", usable=usable, cores=cores), "note"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if soft != resource.RLIM_INFINITY:
        by_administrator = "An administrator set it: `fsize` in limits.conf, LimitFSIZE= of a systemd unit."
        hint = "`ulimit -f unlimited` lifts it." if hard == resource.RLIM_INFINITY else by_administrator
        yield msg("files: at most {size} each (`ulimit -f`)", size=bytes_text(soft)), "note", hint


def terminal(workspace: Workspace) -> Said:
    term, encoding = os.environ.get("TERM", ""), (sys.stdout.encoding or "?").lower()
    size = shutil.get_terminal_size()
    yield (f"TERM={term or '(not set)'}, {size.columns} by {size.lines}, {encoding}",)
    if "utf" not in encoding:
        yield (
            msg("the encoding is {encoding}, not UTF-8", encoding=encoding),
            "note",
            "export LANG=C.UTF-8 shows every character.",
        )
    if term in ("", "dumb", "unknown") and sys.stdout.isatty():
        yield "the screen needs a terminal that can place text", "note", "export TERM=xterm-256color"
