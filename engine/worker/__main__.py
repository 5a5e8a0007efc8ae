"""`python -m engine.worker RUN_FOLDER [--from CHECKPOINT]`: train that run; `--report` only describes it, as JSON."""

import argparse
import contextlib
import json
import logging
import os
import sys
import traceback
import warnings
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

            json.dump(report(options.folder, options.report), sys.stdout)
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
    """What libraries read when they are loaded, and what they need not say."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if "OMP_WAIT_POLICY" not in os.environ:
        # GNU OpenMP's threads spin for milliseconds at each barrier; where another program wants the core, two runs
        # side by side then crawl. 10,000 turns are some 30 us: a twentieth slower on a quiet machine.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    _quieten()


def _quieten() -> None:
    """Keep two warnings out of the logs of all runs: libraries talk to each other there, and nobody can act on it."""
    # peft 0.21 asks transformers 5 by the old name.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    # bitsandbytes looks for a faster CPU kernel when it is imported, in a package that it does not require.
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
        lambda record: not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")
    )


def _announce(folder: Path) -> None:
    """A first beat before torch is imported. Its pid is how a daemon finds a worker that another daemon started."""
    from engine.journal import Journal

    with contextlib.suppress(OSError):  # whatever is wrong with the folder is told by who reads its config
        journal = Journal(folder)
        journal.write("beat", next=600, doing="loading", pid=os.getpid())
        journal.close()


if __name__ == "__main__":
    sys.exit(main())
