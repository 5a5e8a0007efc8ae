"""Tests of the screen never see the developer's home, settings or colours."""

import os
from pathlib import Path

import pytest
import textual._wait

from tests.tui.fill import fill

NOW = 1_790_000_000.0
"""The moment at which pictures are taken; a Monday in September 2026, in UTC."""
os.environ["TZ"] = "UTC"
# After each key Pilot waits, three times, until the process has done nothing for 20 ms. 5 ms tell it as well.
textual._wait.SLEEP_GRANULARITY = 0.005
textual._wait.SLEEP_IDLE = 0.005 / 20


@pytest.fixture(autouse=True)
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in ("FINETOP_WORKSPACE", "FINETOP_PRESETS", "NO_COLOR", "COLORFGBG", "TEXTUAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hand-filled workspace, as of NOW. Nobody may change it."""
    root = tmp_path_factory.mktemp("filled")
    fill(root, NOW).close()
    return root
