"""`python -m engine.daemon WORKSPACE`: the daemon in the foreground; its log goes to stderr."""

import argparse
import logging
import sys
from pathlib import Path

from engine.base.errors import EngineError
from engine.base.workspace import Workspace
from engine.daemon.main_loop import Options, serve


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.daemon", description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--idle-exit", type=float, default=0.0, metavar="MINUTES", help="leave after so long idle")
    parser.add_argument("--no-warm", action="store_true", help="spawn every worker, keep no warm process")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        return serve(Workspace(options.workspace), Options(60 * options.idle_exit, warm=not options.no_warm))
    except EngineError as error:
        logging.error("%s", error)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
