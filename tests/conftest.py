"""Speed is never tested by a clock: generated cases take the time they take."""

import os
import sys
from collections.abc import Iterator

import hypothesis
import pytest

from tests.engine.forkserver import ForkServer

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


@pytest.fixture(scope="session")
def _fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    server = ForkServer(tmp_path_factory.mktemp("forkserver"))
    yield server
    server.close()


@pytest.fixture
def fork_server(
    _fork_server: ForkServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> ForkServer:
    """Worker processes are forked (see forkserver.py), also those of the module's `FINETOP` command."""
    monkeypatch.setattr(sys, "executable", str(_fork_server.stub))
    if hasattr(request.module, "FINETOP"):
        monkeypatch.setattr(request.module, "FINETOP", str(_fork_server.finetop))
    return _fork_server
