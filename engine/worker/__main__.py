"""`python -m engine.worker RUN_FOLDER [--from CHECKPOINT]`: train that run; `--report` only describes it, as JSON."""

import argparse
import contextlib
import json
import os
import sys
import traceback
from pathlib import Path

from engine.worker.runtime.environment import set_environment


def main(arguments: list[str] | None = None) -> int:
    """Train the run, or report on it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine.worker", description=__doc__)
    parser.add_argument("folder", type=Path, help="a run's folder, holding config.json")
    parser.add_argument("--from", dest="resume_from", default="latest", help="latest, best, epoch-N or a step")
    parser.add_argument("--report", type=int, metavar="N", help="print the data report with N examples; train nothing")
    options = parser.parse_args(arguments)

    from engine.base.errors import EngineError
    from engine.base.system_errors import refused_write

    try:
        if options.report is not None:
            from engine.worker.data_report import report

            json.dump(report(options.folder, options.report), sys.stdout)
            return 0
        # A stop requested while torch is still being imported must not be lost.
        from engine.worker.runtime.stop_signal import StopRequest

        stop = StopRequest()
        _announce(options.folder)
        set_environment()
        from engine.worker.runtime.heartbeat import report_failure
        from engine.worker.train.loop import train

        with report_failure(options.folder):
            return train(options.folder, options.resume_from, stop)
    except EngineError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if refused := refused_write(error):
            print(f"{refused.message}\n{refused.hint}", file=sys.stderr)
        else:
            traceback.print_exc()
        return 1


def _announce(folder: Path) -> None:
    """A first heartbeat before torch is imported. By its pid a daemon finds a worker that another daemon started."""
    from engine.runs.journal import Journal

    with contextlib.suppress(OSError):  # what is wrong with the folder is reported when its config is read
        journal = Journal(folder)
        journal.write("beat", next=600, doing="loading", pid=os.getpid())
        journal.close()


if __name__ == "__main__":
    sys.exit(main())
