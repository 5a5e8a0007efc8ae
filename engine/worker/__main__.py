"""`python -m engine.worker RUN_FOLDER [--from CHECKPOINT]`: train that run; `--report` only describes it, as JSON."""

import argparse
import contextlib
import json
import os
import sys
import traceback
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.worker", description=__doc__)
    parser.add_argument("folder", type=Path, help="a run's folder, holding config.json")
    parser.add_argument("--from", dest="resume_from", default="latest", help="latest, best, epoch-N or a step")
    parser.add_argument("--report", type=int, metavar="N", help="print the data report with N examples; train nothing")
    options = parser.parse_args(arguments)

    from engine.errors import EngineError

    try:
        if options.report is not None:
            from engine.worker.report import report

            json.dump(report(options.folder, options.report), sys.stdout, ensure_ascii=False)
            return 0
        # A stop asked for while torch is still being imported must not be lost.
        from engine.worker.signals import StopRequest

        stop = StopRequest()
        _announce(options.folder)
        set_environment()
        from engine.worker.life import reported
        from engine.worker.train import train

        with reported(options.folder):
            return train(options.folder, options.resume_from, stop)
    except EngineError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    except Exception:
        traceback.print_exc()
        return 1


def set_environment() -> None:
    """What libraries read when they are loaded."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if "OMP_WAIT_POLICY" not in os.environ:
        # GNU OpenMP's threads spin for milliseconds at each barrier; where another program wants the core, two runs
        # side by side then crawl. 10,000 turns are some 30 us: a twentieth slower on a quiet machine.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _announce(folder: Path) -> None:
    """A first beat before torch is imported. Its pid is how a daemon finds a worker that another daemon started."""
    from engine.journal import Journal

    with contextlib.suppress(OSError):  # whatever is wrong with the folder is told by who reads its config
        journal = Journal(folder)
        journal.write("beat", next=600, doing="loading", pid=os.getpid())
        journal.close()


if __name__ == "__main__":
    sys.exit(main())
