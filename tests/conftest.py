"""Speed is never tested by a clock: generated cases take the time they take."""

import os

import hypothesis

hypothesis.settings.register_profile("finetop", deadline=None)
hypothesis.settings.load_profile("finetop")

# Hundreds of processes that tests start would each compile the sources again. xdist's workers inherit this, too.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_xdist_auto_num_workers(config) -> int:
    """For `-n auto`: a test of processes waits for them about a third of its time; one worker more fills that.

    The long tests keep their cores busy, and xdist's own count is right for them.
    """
    cores = len(os.sched_getaffinity(0))
    return cores if config.option.markexpr == "long" else cores + 1
