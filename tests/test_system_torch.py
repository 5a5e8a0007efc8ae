"""`make SYSTEM_TORCH=1` builds on the torch that a machine's image brings, and says so where it cannot."""

import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VERSION = "import importlib.metadata; print(importlib.metadata.version('torch'))"


def image(folder: Path, torch: str | None) -> Path:
    """The Python of an image; of torch it knows no more than its version."""
    venv.create(folder, symlinks=True)
    if torch:
        packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        about = packages / f"torch-{torch}.dist-info" / "METADATA"
        about.parent.mkdir(parents=True)
        about.write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {torch}\n")
    return folder / "bin" / "python"


def built(python: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    words = [python, ROOT / "scripts" / "system_torch.py", folder]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_the_torch_of_the_image_is_seen_and_stays(tmp_path):
    done = built(image(tmp_path / "image", "2.99.1+vendor"), tmp_path / "own")
    assert done.returncode == 0, done.stderr
    seen = subprocess.run([tmp_path / "own/bin/python", "-c", VERSION], capture_output=True, text=True, check=True)
    assert seen.stdout == "2.99.1+vendor\n"
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    kept = (tmp_path / "own" / "constraints.txt").read_text().splitlines()
    assert set(kept) - set(pinned) == {"torch==2.99.1+vendor"}
    assert {pin.partition("==")[0] for pin in pinned} - {pin.partition("==")[0] for pin in kept} == set()


@pytest.mark.parametrize(
    ("torch", "reason"), [(None, "has no torch"), ("2.9.0", "too old"), ("2.11.0a0+50eac811.nv26.01", "too old")]
)
def test_an_image_that_does_not_do_is_told_before_anything_is_touched(tmp_path, torch, reason):
    own = tmp_path / "own"
    own.mkdir()
    (own / "kept").touch()
    done = built(image(tmp_path / "image", torch), own)
    assert done.returncode == 1 and reason in done.stderr and "PYTHON=" in done.stderr
    assert [path.name for path in own.iterdir()] == ["kept"]
