"""What is installed works without its sources: the wheel is built, installed elsewhere, and used there."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("engine", "tui", "presets")
PIP_QUIETLY = ("--quiet", "--no-deps", "--no-index")


def sources() -> list[Path]:
    """What a clone would hold, as it stands here: what git tracks, or whatever there is where git keeps nothing."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [path for part in PACKAGES for path in (ROOT / part).rglob("*") if path.suffix != ".pyc"]
        paths += [ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    return [path.relative_to(ROOT) for path in paths if path.is_file()]


def run(*words: str | Path, **how) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, **how)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built in a copy of the sources, so that nothing that lies about in the checkout gets into it."""
    clone, target = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("dist")
    for path in sources():
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, clone / path)
    pip = (sys.executable, "-m", "pip", "wheel", *PIP_QUIETLY, "--no-build-isolation")
    run(*pip, "--wheel-dir", target, clone)
    return next(target.glob("finetop-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of an environment that has this one's libraries, and finetop from the wheel, not from here."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    run(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", *PIP_QUIETLY, wheel)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    # A folder that a .pth file names is searched last, and its own .pth files, such as an editable finetop's, not read.
    libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "libraries.pth").write_text("\n".join(libraries) + "\n")
    return folder


@pytest.fixture
def finetop(installed, tmp_path):
    """Runs the installed command in an empty folder, with nothing of this session's to lead it back to the sources."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FINETOP"))}
    environment |= {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "FINETOP_NO_DAEMON": "1",
    }
    return lambda *words: run(installed / "bin" / "finetop", *words, cwd=tmp_path, env=environment)


def test_the_wheel_holds_all_of_the_packages_and_no_scripts(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == {path.as_posix() for path in sources() if path.parts[0] in PACKAGES}
    assert not [name for name in held if name.startswith("presets/") and name.endswith(".py")]
    assert {"engine/py.typed", "tui/py.typed"} <= held


def test_the_installed_program_makes_a_folder(finetop, tmp_path):
    finetop("init", "new")
    assert {"chats.jsonl", "run.toml", "client.py", "client.sh"} <= {path.name for path in (tmp_path / "new").iterdir()}


def test_the_installed_program_has_its_presets(finetop):
    names = {preset["name"] for preset in json.loads(finetop("presets", "--json"))}
    assert names == {path.stem for path in (ROOT / "presets").glob("*.toml")}


def test_the_installed_program_plans_and_trains(finetop, installed, tmp_path):
    plan = json.loads(finetop("plan", "--preset", "quick", "--json"))
    [sample] = plan["settings"]["data.files"]
    assert Path(sample).is_relative_to(installed) and plan["memory"]

    finetop("train", "--preset", "quick", "--max-steps", "2")
    [run] = (tmp_path / "runs").iterdir()
    assert (run / "checkpoints" / "latest" / "adapter_model.safetensors").exists()
