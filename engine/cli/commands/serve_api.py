"""`finetop serve`: OpenAI's API over the workspace; `status`, `stop` and `env` of a server that runs."""

import argparse
import datetime
import os
import shlex
import sys
import time

from engine.base.errors import EngineError, InputError
from engine.base.messages import msg
from engine.base.worker_process import worker_environment
from engine.base.workspace import Workspace, find_workspace
from engine.cli.key_commands import SCOPES, run_keys, run_usage
from engine.daemon import daemon_client, server_state
from engine.daemon.server_state import LOOPBACK, ServerStatus
from engine.notify.notify_config import read_notify_config, webhook_secret
from engine.present.engine_table import engine_lines, engines_json
from engine.present.numbers import duration
from engine.present.text import print_json, visible

_DESCRIPTION = """\
Answers what OpenAI's clients ask for: files, fine-tuning jobs, models and chat completions. A job is a run of this
workspace; every checkpoint is a model. Programs need two variables, which `finetop serve env` prints.
"""
_EXAMPLES = """\
examples:
  finetop serve --detach
  eval "$(finetop serve env)"
  finetop serve status
  finetop serve keys add nightly-job --scope train --scope infer
  finetop serve keys revoke nightly-job
  finetop serve usage --since 2026-11-01
  finetop serve stop
"""
DEFAULT_PORT = 8001


def add_parser(commands: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "serve",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument(
        "verb",
        nargs="?",
        choices=["start", "status", "stop", "env", "keys", "usage"],
        default="start",
        help="start (the default), status, stop; env: the variables that programs need; keys: list (the default), add "
        "NAME or revoke NAME; usage: what each key has used, and saved",
    )
    parser.add_argument("words", nargs="*", metavar="list | add NAME | revoke NAME", help="what to do with keys")
    parser.add_argument(
        "--scope",
        action="append",
        default=[],
        choices=SCOPES,
        help="what the added key may: infer (the default), train or admin; may be repeated",
    )
    parser.add_argument("--since", type=_day, metavar="DAY", help="usage from that day on, as 2026-11-27")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument(
        "--port", type=_port, default=DEFAULT_PORT, help=f"0: any that is free (default {DEFAULT_PORT})"
    )
    parser.add_argument("--detach", action="store_true", help="go on in the background, looked after by the daemon")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="another name requests may call it by"
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="URL",
        help="a web page that may ask, such as http://localhost:3000",
    )
    parser.add_argument("--json", action="store_true", help="status, keys and usage for programs")
    parser.set_defaults(run=run)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text[:9]) > 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


def _day(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError("a day is written as 2026-11-27") from None


def run(options: argparse.Namespace) -> int:
    workspace = find_workspace(options.workspace)
    if options.words and options.verb != "keys":
        raise InputError(msg("'{word}' is too much: `finetop serve --help`", word=options.words[0]))
    verbs = {"start": _start, "status": _status, "stop": _stop, "env": _env, "keys": run_keys, "usage": run_usage}
    return verbs[options.verb](workspace, options)


def _start(workspace: Workspace, options: argparse.Namespace) -> int:
    if options.host not in LOOPBACK:
        print(_EXPOSED.format(port=options.port or "PORT"), file=sys.stderr)
    words = ["--host", options.host, "--port", str(options.port)]
    words += [word for name in options.allow_host for word in ("--allow-host", name)]
    words += [word for origin in options.allow_origin for word in ("--allow-origin", origin)]
    if not options.detach:
        command = [sys.executable, "-P", "-m", "engine.serve", str(workspace.root), *words]
        sys.stdout.flush()
        os.execve(sys.executable, command, worker_environment())
    running = server_state.status(workspace)
    if running is not None:
        print("It is running already; `finetop serve stop` first, to give it other options.")
    else:
        running = server_state.start(workspace, words)
        server_state.keep(workspace, words)
        daemon_client.ensure(workspace)
    print(visible(msg("serving {root} on {url} (pid {pid})", root=workspace.root, url=running.url, pid=running.pid)))
    print("`finetop serve env` prints the variables that programs need.")
    return 0


_EXPOSED = """\
finetop: there is no TLS: whoever can read the traffic reads the key and all that is asked. From your own machine rather
use a tunnel: ssh -L {port}:127.0.0.1:{port} THIS_MACHINE"""


def _status(workspace: Workspace, options: argparse.Namespace) -> int:
    running = server_state.status(workspace)
    if options.json:
        print_json(_as_json(running) | {"engines": engines_json(workspace)})
    elif running is None:
        print("No server runs; `finetop serve --detach` starts one.")
    else:
        since = duration(max(0.0, time.time() - running.started))
        print(visible(msg("{url} (pid {pid}), for {since}", url=running.url, pid=running.pid, since=since)))
        print("\n".join(engine_lines(workspace)) or "No model is loaded: an engine starts at the first request for it.")
    return 0 if running else 1


def _as_json(running: ServerStatus | None) -> dict[str, object]:
    if running is None:
        return {"running": False}
    return {"running": True, "pid": running.pid, "url": running.url, "started": running.started}


def _stop(workspace: Workspace, options: argparse.Namespace) -> int:
    running = server_state.status(workspace)
    server_state.forget(workspace)
    if not server_state.stop(workspace):
        raise EngineError(msg("the server has not ended (pid {pid})", pid=running.pid if running else ""))
    print("The server has ended." if running else "No server was running.")
    return 0


def _env(workspace: Workspace, options: argparse.Namespace) -> int:
    running = server_state.status(workspace)
    if running is None:
        raise EngineError("no server runs", "Start one: finetop serve --detach")
    variables = {
        "OPENAI_BASE_URL": running.url,
        "OPENAI_API_BASE": running.url,
        "OPENAI_API_KEY": server_state.owner_key(workspace),
    }
    if read_notify_config(workspace).webhook is not None:
        variables["OPENAI_WEBHOOK_SECRET"] = webhook_secret(workspace)
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0
