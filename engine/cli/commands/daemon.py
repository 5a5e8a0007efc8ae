"""`finetop daemon`: start, stop, status."""

import argparse
import dataclasses
import json
import os
import time

from engine.base.errors import EngineError
from engine.base.log_tail import tail
from engine.base.messages import msg
from engine.base.workspace import Workspace, find_workspace
from engine.daemon import daemon_client
from engine.daemon.daemon_client import DaemonStatus
from engine.present.numbers import duration
from engine.present.text import visible

_EXAMPLES = """\
examples:
  finetop daemon status
  finetop daemon start --cpu-slots 2
  finetop daemon start --foreground --idle-exit 60
"""
_DESCRIPTION = """\
The daemon starts the runs of a workspace's queue and looks after them. It starts by itself when something is queued or
the screen opens. Stopping it stops no run: those that train go on, and the next daemon finds them.
"""
_START_SECONDS, _STOP_SECONDS = 10.0, 15.0


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "daemon",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    start = verbs.add_parser("start", parents=[common], help="start it, unless it is running")
    start.add_argument("--foreground", action="store_true", help="be the daemon: for systemd, or to watch its log")
    start.add_argument(
        "--idle-exit",
        type=_minutes,
        default=0.0,
        metavar="MINUTES",
        help="leave after so long without runs (default: stay)",
    )
    start.add_argument(
        "--cpu-slots",
        type=_slots,
        metavar="N",
        help="how many runs without a GPU train at a time; kept with the workspace",
    )
    start.add_argument("--no-warm", action="store_true", help="start each run from nothing: slower; saves 0.4 GiB")
    start.set_defaults(run=run_start)
    stop = verbs.add_parser("stop", parents=[common], help="end it; its runs go on")
    stop.set_defaults(run=run_stop)
    status = verbs.add_parser("status", parents=[common], help="whether it runs, and how it is")
    status.set_defaults(run=run_status)
    for verb in (start, stop, status):
        verb.add_argument("--json", action="store_true", help="the same for programs")


def run_start(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    if options.cpu_slots is not None:
        _keep_slots(workspace, options.cpu_slots)
    if options.foreground:
        return _be_the_daemon(workspace, options)
    words = ["--idle-exit", str(options.idle_exit)] if options.idle_exit else []
    words += ["--no-warm"] if options.no_warm else []
    running = daemon_client.status(workspace)
    if not running.running:
        running = _wait_for_start(workspace, daemon_client.start(workspace, *words))
    elif words and not options.json:
        print("It is running already; stop it first to give it other options.")
    return _print(running, workspace, options.json)


def run_stop(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    was = daemon_client.status(workspace)
    if was.running and not daemon_client.stop(workspace, _STOP_SECONDS):
        raise EngineError(
            msg(
                "the daemon (pid {pid}) has not left after {limit}",
                pid=was.pid,
                limit=duration(_STOP_SECONDS),
            ),
            msg(
                "Its log: {daemon_log}. Killing it (kill -9 {pid}) harms no run.",
                daemon_log=workspace.daemon_log,
                pid=was.pid,
            ),
        )
    if options.json:
        print(json.dumps({"stopped": was.running, "pid": was.pid}))
    else:
        print(
            msg("The daemon (pid {pid}) has left; its runs go on.", pid=was.pid)
            if was.running
            else "No daemon was running."
        )
    return 0


def run_status(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    return _print(daemon_client.status(workspace), workspace, options.json)


def _be_the_daemon(workspace: Workspace, options: argparse.Namespace) -> int:
    import logging  # 8 ms each, which --help need not pay
    import sys

    from engine.daemon.main_loop import Options, serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if daemon_client.status(workspace).running:
        raise EngineError("a daemon is running already", "`finetop daemon stop` ends it; its runs go on.")
    return serve(workspace, Options(60 * options.idle_exit, warm=not options.no_warm), foreground=True)


def _wait_for_start(workspace: Workspace, pid: int) -> DaemonStatus:
    """Until it has said something of itself. Raises EngineError with the end of its log if it leaves again."""
    deadline = time.monotonic() + _START_SECONDS
    left = False
    while time.monotonic() < deadline:
        status = daemon_client.status(workspace)
        if status.beat is not None:
            return status
        if left and not status.running:
            break
        left = left or os.waitpid(pid, os.WNOHANG)[0] == pid
        time.sleep(0.05)
    if status.running:
        return status
    last = tail(workspace.daemon_log, 1)
    raise EngineError(
        msg("the daemon did not start: {last_line}", last_line=last[0]) if last else "the daemon did not start",
        msg("Its log: {daemon_log}", daemon_log=workspace.daemon_log),
    )


def _keep_slots(workspace: Workspace, slots: int) -> None:
    import contextlib

    from engine.cli.run_args import on_db_busy  # the store is opened only here
    from engine.daemon.scheduler_state import CPU_SLOTS
    from engine.store import queue
    from engine.store.connect import writer

    with contextlib.closing(writer(workspace.database, on_wait=on_db_busy)) as conn:
        queue.set_meta(conn, CPU_SLOTS, str(slots))


def _print(status: DaemonStatus, workspace: Workspace, as_json: bool) -> int:
    if as_json:
        print(
            json.dumps(
                {**dataclasses.asdict(status), "workspace": str(workspace.root), "log": str(workspace.daemon_log)}
            )
        )
        return 0
    if not status.running:
        print(msg("No daemon runs for {root}. It starts when something is queued.", root=visible(str(workspace.root))))
        return 0
    since = f", for {duration(time.time() - status.started)}" if status.started else ""
    print(
        msg(
            "The daemon of {root} runs (pid {pid}{since}).",
            root=visible(str(workspace.root)),
            pid=status.pid or "unknown",
            since=since,
        )
    )
    if status.silent_seconds:
        print(
            msg(
                "  It last gave a sign {silent_seconds} ago: database or disk keep it waiting.",
                silent_seconds=duration(status.silent_seconds),
            )
        )
    if status.warm:
        print(msg("  warm start: {warm}", warm=visible(status.warm)))
    if status.cpu_slots is not None:
        print(msg("  CPU slots:  {cpu_slots}", cpu_slots=status.cpu_slots))
    print(f"  log:        {visible(str(workspace.daemon_log))}")
    return 0


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError("is no number of minutes")
    return value


def _slots(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 1024:
        raise argparse.ArgumentTypeError("is not between 0 and 1024")
    return value
