"""What `finetop doctor` looks at of a workspace: its folder and disk, its database, its daemon."""

import contextlib
import fcntl
import os
import re
import shutil
import time
from pathlib import Path

from engine import __version__
from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.system_errors import refused_write
from engine.base.workspace import CONFIG, ENVIRONMENT, Workspace
from engine.cli.finding import Said, counted
from engine.daemon import daemon_client
from engine.notify.notify_config import read_notify_config
from engine.present.numbers import bytes_text, duration
from engine.runs.journal import NAME
from engine.store.database_health import health
from engine.store.outbox import Outbox
from engine.store.serve_database import database_file

_NETWORK = ("nfs", "cifs", "smb", "fuse.sshfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "fuse.s3")
"""Kinds of file systems that several machines may see at once."""
_LOW_DISK_BYTES = 20_000_000_000
"""Some checkpoints of a model of 7B parameters."""


def folder(workspace: Workspace) -> Said:
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
    if refused := _cannot_lock(root):
        yield refused
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


def _cannot_lock(folder: Path) -> tuple[str, str, str] | None:
    """What is wrong where a file cannot be made and locked there."""
    import tempfile  # 10 ms

    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))  # shows a quota that is used up
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if refused := refused_write(error, folder):
            return msg("{reason}: runs pause until there is room", reason=refused.message), "bad", refused.hint
        why = error.strerror or str(error)
        hint = "Choose a workspace on a local disk: --workspace DIR."
        return msg("files cannot be locked there: {why}", why=why), "bad", hint
    return None


def store(workspace: Workspace) -> Said:
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
        yield f"{counted(database.interrupted, 'run')} interrupted", "note", "finetop resume --interrupted"
    if database.trashed:
        yield (msg("{trashed} in the trash", trashed=counted(database.trashed, "run")),)
    empty = [
        run_id
        for run_id in (workspace.run_ids() if not database.exists else [])
        if not (workspace.runs / str(run_id) / NAME).exists() and (workspace.runs / str(run_id) / CONFIG).exists()
    ]
    if empty:
        yield (
            msg("{num_empty} without a journal and without runs.db", num_empty=counted(len(empty), "run folder")),
            "note",
            "finetop rebuild",
        )


def notify(workspace: Workspace) -> Said:
    try:
        config = read_notify_config(workspace)
    except InputError as error:
        yield str(error), "bad", error.hint
        return
    channels = [name for name in ("webhook", "mail") if getattr(config, name) is not None]
    if not channels:
        return
    yield (msg("runs' ends are told by {channels}", channels=" and ".join(channels)),)
    if database_file(workspace).exists():
        with contextlib.closing(Outbox(database_file(workspace))) as outbox:
            undelivered = outbox.undelivered()
        for channel, number, why in undelivered:
            words = msg("{messages} by {channel} not delivered: {why}", messages=number, channel=channel, why=why)
            yield words, "note", msg("See [{channel}] in notify.toml; the daemon goes on trying.", channel=channel)


def daemon(workspace: Workspace) -> Said:
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
