"""`finetop doctor`: what finetop would run on, why something would not work, and what to do."""

import argparse
import contextlib
import dataclasses
import fcntl
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import __version__
from engine.base.messages import msg
from engine.base.workspace import CONFIG, ENVIRONMENT, PACKAGE_ROOT, Workspace, find_workspace
from engine.daemon import daemon_client
from engine.present.numbers import bytes_text, duration
from engine.present.text import one_line, output_width, print_json, wrap
from engine.runs.journal import NAME
from engine.settings.presets import user_folder
from engine.store.database_health import SQLITE_VERSION, health, sqlite_is_new_enough

_EXAMPLES = "examples:\n  finetop doctor\n  finetop doctor --json | jq '.[] | select(.verdict != \"ok\")'\n"
_LIBRARIES = (
    "torch", "transformers", "peft", "bitsandbytes", "datasets", "safetensors", "numpy", "psutil", "nvidia-ml-py",
    "sqlite-utils", "textual",
)  # fmt: skip
_NETWORK = ("nfs", "cifs", "smb", "fuse.sshfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "fuse.s3")
"""Kinds of file systems that several machines may see at once."""
_LOW_DISK_BYTES = 20_000_000_000
"""Some checkpoints of a model of 7B parameters."""
_MARKS = {"ok": " ", "note": "!", "bad": "✖"}


@dataclass(frozen=True, slots=True)
class Finding:
    area: str
    what: str
    verdict: str = "ok"
    """'ok', 'note': works, but; 'bad': something will not work."""
    hint: str = ""
    """What to do."""


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "doctor",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    findings: list[Finding] = []
    for area, look in _AREAS.items():
        try:
            findings += [Finding(area, *said) for said in look(workspace)]
        except Exception as error:  # one look that fails must not hide the others
            findings.append(
                Finding(
                    area, msg("cannot be looked at: {name}: {error}", name=type(error).__name__, error=error), "note"
                )
            )
    bad = sum(finding.verdict == "bad" for finding in findings)
    if options.json:
        print_json([dataclasses.asdict(finding) for finding in findings])
        return 1 if bad else 0
    area, width = "", output_width()
    for finding in findings:
        if finding.area != area:
            print(("\n" if area else "") + finding.area)
            area = finding.area
        for line in wrap(one_line(f"{_MARKS[finding.verdict]} {finding.what}"), width, indent="  "):
            print(line)
        for line in wrap(one_line(finding.hint), width, "    ", "    ") if finding.hint else ():
            print(line)
    notes = sum(finding.verdict == "note" for finding in findings)
    print(
        msg("\n{bad} will not work, {notes} to know", bad=_count(bad, "thing"), notes=_count(notes, "thing"))
        if bad or notes
        else "\nall well"
    )
    return 1 if bad else 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


Said = Iterator[tuple[str, ...]]


# programs


def _programs(workspace: Workspace) -> Said:
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


# GPU


def _gpus(workspace: Workspace) -> Said:
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


# workspace


def _workspace(workspace: Workspace) -> Said:
    source = f" (${ENVIRONMENT})" if os.environ.get(ENVIRONMENT) else ""
    root = workspace.root
    if not root.is_dir():
        yield (
            msg("{root} does not exist yet{source}", root=root, source=source),
            "note",
            "It is made with the first run.",
        )
        return
    yield (f"{root}{source}",)
    kind, where = file_system(root)
    if kind.startswith(_NETWORK):
        yield (
            msg("it lies on a network drive ({kind}, {where})", kind=kind, where=where),
            "note",
            "Run finetop on one machine only: the database's shared memory (WAL) does not reach across machines.",
        )
    elif kind:
        yield (msg("file system: {kind} at {where}", kind=kind, where=where),)
    if not os.access(root, os.W_OK):
        yield "you may not write there: look only", "note", "Give a folder of your own with --workspace DIR."
        return
    if why := _cannot_lock(root):
        yield (
            msg("files cannot be locked there: {why}", why=why),
            "bad",
            "Choose a workspace on a local disk: --workspace DIR.",
        )
    usage = shutil.disk_usage(root)
    text = msg("{free} free of {total}", free=bytes_text(usage.free), total=bytes_text(usage.total))
    if usage.free < _LOW_DISK_BYTES:
        yield text, "note", "Checkpoints need room: `finetop rm --purge` empties the trash, save.keep_last keeps fewer."
    else:
        yield (text,)
    if usage.free < 100_000_000:
        yield "the disk is full: runs pause until there is room", "bad", "Free some space."


def file_system(path: Path) -> tuple[str, str]:
    """Its kind, such as 'ext4' or 'nfs4', and where it is mounted; empty where /proc does not tell."""
    mount = ("", "")
    with contextlib.suppress(OSError), open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
        real = os.path.realpath(path)
        for line in mounts:
            _, where, kind = line.split()[:3]
            where = where.replace("\\040", " ")
            inside = real == where or real.startswith(where.rstrip("/") + "/")
            if inside and len(where) >= len(mount[1]):
                mount = kind, where
    return mount


def _cannot_lock(folder: Path) -> str:
    import tempfile  # 10 ms

    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.strerror or str(error)
    return ""


# store


def _store(workspace: Workspace) -> Said:
    database = health(workspace.database)
    if not database.exists:
        yield ("no runs.db yet: the first `finetop add` makes it",)
    elif database.problem:
        yield database.problem, "bad", database.hint
    else:
        yield (f"{workspace.database}: {database.runs:,} runs, {bytes_text(database.bytes)}, {database.journal_mode}",)
        if database.journal_mode != "wal":
            yield (
                msg(
                    "its journal mode is {journal_mode}: readers and writers wait for each other",
                    journal_mode=database.journal_mode,
                ),
                "note",
                "The file system has no shared memory, as network drives have not: a local disk is better.",
            )
    if database.interrupted:
        yield f"{_count(database.interrupted, 'run')} interrupted", "note", "finetop resume --interrupted"
    if database.trashed:
        yield (msg("{trashed} in the trash", trashed=_count(database.trashed, "run")),)
    empty = [
        run_id
        for run_id in (workspace.run_ids() if not database.exists else [])
        if not (workspace.runs / str(run_id) / NAME).exists() and (workspace.runs / str(run_id) / CONFIG).exists()
    ]
    if empty:
        yield (
            msg("{num_empty} without a journal and without runs.db", num_empty=_count(len(empty), "run folder")),
            "note",
            "finetop rebuild",
        )


# daemon


def _daemon(workspace: Workspace) -> Said:
    status = daemon_client.status(workspace)
    if not status.running:
        yield ("not running; it starts by itself when a run is queued",)
    else:
        since = f" for {duration(time.time() - status.started)}" if status.started else ""
        yield (
            msg(
                "running{since}, pid {pid}, log {daemon_log}",
                since=since,
                pid=status.pid,
                daemon_log=workspace.daemon_log,
            ),
        )
        if status.version and status.version != __version__:
            yield (
                msg("it is finetop {version}, this is {own_version}", version=status.version, own_version=__version__),
                "note",
                "finetop daemon stop, then start: its runs go on meanwhile.",
            )
        if status.silent_seconds:
            yield (
                msg("it has not said anything for {silent_seconds}", silent_seconds=duration(status.silent_seconds)),
                "bad",
                msg("Look into {daemon_log}", daemon_log=workspace.daemon_log),
            )
        if (status.warm or "").startswith("off"):
            yield (
                msg("warm start is {warm}", warm=status.warm),
                "note",
                "Runs start in some 7 s instead of half a second.",
            )
        elif status.warm:
            yield (
                msg(
                    "warm start: {warm}; runs on the CPU at the same time: {cpu_slots}",
                    warm=status.warm,
                    cpu_slots=status.cpu_slots,
                ),
            )
    if _kills_at_logout():
        yield (
            "this machine kills processes at log-out (KillUserProcesses)",
            "note",
            "loginctl enable-linger, or run the daemon as a systemd user unit: docs/daemon.md",
        )


def _kills_at_logout() -> bool:
    """What systemd-logind says; where it cannot be asked, what its settings say."""
    import subprocess

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        session = subprocess.run(
            ["loginctl", "show-session", "--property=KillUserProcesses"],
            capture_output=True,
            text=True,
            timeout=2,
            check=False,
        )
        if session.returncode == 0:
            return "yes" in session.stdout
    with contextlib.suppress(OSError):
        text = Path("/etc/systemd/logind.conf").read_text("utf-8", "replace")
        return re.search(r"^\s*KillUserProcesses\s*=\s*(yes|true|1|on)", text, re.MULTILINE | re.IGNORECASE) is not None
    return False


# terminal


def _terminal(workspace: Workspace) -> Said:
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


_AREAS: dict[str, Any] = {
    "programs": _programs,
    "GPU": _gpus,
    "workspace": _workspace,
    "store": _store,
    "daemon": _daemon,
    "terminal": _terminal,
}
