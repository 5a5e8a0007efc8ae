"""One virtual environment for each thing we compare with, made on first need and kept.

Every peer gets the versions it asks for itself, so that none is slowed or broken by another's dependencies. They live
in ~/.cache/finetop-bench/<name> (FINETOP_BENCH_CACHE moves that). Only the leading packages are pinned here; what pip
resolved besides is written to <name>/versions.txt, and the versions that matter are printed with every result.

    python bench/environments.py              make all of them now
    python bench/environments.py trl wandb    only these
"""

import argparse
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

# Installed before anything else and held by a constraints file: a looser range lets a dependency replace the CPU wheel
# by one that brings several gigabytes of CUDA packages along.
TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Environment:
    requirements: tuple[str, ...]
    """What is installed, pinned."""
    torch: bool = True
    """Whether torch is installed first and held."""
    stubs: tuple[tuple[str, str, bool], ...] = ()
    """(name, version, importable) of placeholder packages; see `build_stub`."""


ENVIRONMENTS = {
    "trl": Environment(("trl==1.16.0", "peft==0.21.2", "transformers==5.23.0")),
    "trainer": Environment(("transformers==5.23.0", "peft==0.21.2", "accelerate==1.15.0", "datasets==5.2.0")),
    # LLaMA-Factory requires torchvision and torchaudio, for which no build beside a CPU torch of this version exists.
    # It imports torchaudio at start (and uses it for audio only), so that stub must be importable; torchvision is
    # looked up by transformers only, which rightly takes "installed but not importable" for absent.
    "llamafactory": Environment(
        ("llamafactory==0.9.5",),
        stubs=(("torchvision", "0.28.0", False), ("torchaudio", "2.13.0", True)),
    ),
    "wandb": Environment(("wandb==0.31.0",), torch=False),
    "trackio": Environment(("trackio==0.43.0",), torch=False),
    # The newest whose extra "proxy" can be installed from PyPI.
    "litellm": Environment(("litellm[proxy]==1.91.1",), torch=False),
    # Programs that are run against `finetop serve` (tests/engine/serve/test_clients.py, docs/clients.md).
    "langchain": Environment(("langchain==1.5.2", "langchain-openai==1.7.4"), torch=False),
    "lm_eval": Environment(("lm_eval[api]==0.4.13", "transformers==5.23.0"), torch=False),
}


def cache_folder() -> Path:
    folder = os.environ.get("FINETOP_BENCH_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "finetop-bench"


def python_of(name: str) -> str:
    """The interpreter of that environment, which is made first if it is not there."""
    folder = cache_folder() / name
    python = folder / "bin" / "python"
    if not (folder / "versions.txt").exists():
        _create(name, folder, python)
    return str(python)


def build_stub(name: str, version: str, importable: bool, folder: Path) -> Path:
    """A wheel that satisfies a requirement and holds nothing: only metadata, or also an empty module."""
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: empty placeholder\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if importable:
        files[f"{name}/__init__.py"] = f'"""Empty placeholder, see bench/README.md."""\n\n__version__ = "{version}"\n'
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


def _create(name: str, folder: Path, python: Path) -> None:
    environment = ENVIRONMENTS[name]
    folder.mkdir(parents=True, exist_ok=True)
    print(f"making {folder} ...", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    if environment.torch:
        constraints = folder / "constraints.txt"
        constraints.write_text(TORCH + "\n")
        subprocess.run([*pip, TORCH], check=True)
        pip += ["-c", str(constraints)]
    for stub in environment.stubs:
        subprocess.run([*pip, "--no-deps", str(build_stub(*stub, folder))], check=True)
    subprocess.run([*pip, *environment.requirements], check=True)
    frozen = subprocess.run([str(python), "-m", "pip", "freeze", "--all"], check=True, capture_output=True, text=True)
    (folder / "versions.txt").write_text(frozen.stdout)  # written last: its presence says the environment is whole


def versions_of(python: str, packages: tuple[str, ...]) -> dict[str, str]:
    """The versions of `packages` that this interpreter would import; those it lacks are left out."""
    script = (
        "import importlib.metadata as m, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    import json

    done = subprocess.run([python, "-c", script, *packages], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *ENVIRONMENTS], help="which; all when none is named")
    for name in parser.parse_args().names or ENVIRONMENTS:
        print(f"{name:14} {python_of(name)}")


if __name__ == "__main__":
    main()
