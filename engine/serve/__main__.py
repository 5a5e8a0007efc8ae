"""`python -m engine.serve WORKSPACE --host H --port P`: the server's process."""

import argparse
import json
import logging
import os
import sys
import time
from pathlib import Path

from engine.base.atomic_files import atomic_write
from engine.base.errors import EngineError
from engine.base.workspace import Workspace
from engine.daemon.server_state import LOOPBACK, key_file, listen, owner_key, state_file, take_lock


def main() -> int:
    """Serve until a signal ends it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine.serve", description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--allow-host", action="append", default=[])
    parser.add_argument("--allow-origin", action="append", default=[])
    options = parser.parse_args()
    try:
        return serve(Workspace(options.workspace.resolve()), options)
    except EngineError as error:
        print(f"finetop: {error}", file=sys.stderr)
        return error.exit_code


def serve(workspace: Workspace, options: argparse.Namespace) -> int:
    """Listen, say where, and answer."""
    import uvicorn

    from engine.serve.asgi_app import make_app
    from engine.serve.connections import HEAD_BYTES, Connection
    from engine.serve.context import Context
    from engine.serve.keys import Keys
    from engine.serve.serve_config import read_serve_config
    from engine.store.serve_database import database_file
    from engine.store.serve_keys import KeyStore

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    owner_key(workspace)
    lock = take_lock(workspace)
    listening = listen(options.host, options.port)
    port = listening.getsockname()[1]
    names = {*LOOPBACK, options.host, *options.allow_host} - {"0.0.0.0", "::"}
    hosts = {f"{name}:{port}" for name in names} | ({*names} if port == 80 else set())
    hosts |= {name.lower() for name in options.allow_host}
    app = make_app(
        Context(workspace, read_serve_config(workspace)),
        Keys(key_file(workspace), KeyStore(database_file(workspace))),
        hosts,
        options.allow_origin,
    )
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=75,  # clients' pools let go of theirs earlier: what is closed here is not asked again
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=HEAD_BYTES,
        backlog=256,
        ws="none",
        http=Connection,
        loop="asyncio",
    )
    state = {"pid": os.getpid(), "host": options.host, "port": port, "started": time.time()}
    atomic_write(state_file(workspace), json.dumps(state))
    print(f"serving {workspace.root} on http://{options.host}:{port}/v1", flush=True)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        state_file(workspace).unlink(missing_ok=True)
        os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
