"""Makes an environment around the torch that a machine's image brings: `PYTHON scripts/system_torch.py FOLDER`.

`make SYSTEM_TORCH=1` runs it, with the Python that has torch. FOLDER becomes an environment that sees that Python's
packages, and FOLDER/constraints.txt holds constraints.txt with this torch in place of the pinned one and of the CUDA
packages that it would bring. Nothing is touched where there is no torch, or one older than finetop needs.
"""

import importlib.metadata
import re
import site
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OF_TORCH = re.compile(r"(torch|triton|nvidia-(?!ml-py)[\w-]+|cuda-[\w-]+)\s*=", re.IGNORECASE)
"""Constraints that belong to one build of torch. nvidia-ml-py, which reads the driver, is no part of it."""


def main() -> None:
    folder = Path(sys.argv[1])
    if folder.resolve() == Path(sys.prefix).resolve():
        sys.exit(f"{sys.executable} belongs to {folder}, which will be replaced: give the image's own, make PYTHON=...")
    version = torch_version()
    is_environment = sys.prefix != sys.base_prefix
    venv.create(folder, system_site_packages=not is_environment, clear=True, symlinks=True, with_pip=True)
    if is_environment:  # a new one would see the packages of the Python beneath, not these
        here = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        lines = [f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages()]
        (here / "image.pth").write_text("".join(lines), "utf-8")
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    kept = [pin for pin in pins if not OF_TORCH.match(pin)]
    (folder / "constraints.txt").write_text("\n".join([*kept, f"torch=={version}"]) + "\n", "utf-8")
    print(f"taking torch {version} of {sys.prefix}")


def torch_version() -> str:
    """What this Python's torch is. Leaves with what is wrong where finetop cannot use it."""
    least = least_torch()
    other = "name another Python with make PYTHON=..., or leave SYSTEM_TORCH=1 out to install the pinned torch"
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"{sys.executable} has no torch: {other}")
    if _order(version) < _order(least):
        sys.exit(f"torch {version} of {sys.executable} is too old, finetop needs {least} or newer: {other}")
    return version


def least_torch() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    [least] = [found[1] for line in project["dependencies"] if (found := re.fullmatch(r"torch>=([\d.]+)", line))]
    return least


def _order(version: str) -> tuple[tuple[int, ...], bool]:
    """Sorts versions. One before a release, such as the 2.11.0a0+git of a vendor's build, is older than it."""
    public = version.partition("+")[0]
    numbers = [int(number) for number in re.match(r"\d+(\.\d+)*", public)[0].split(".")]
    return (*numbers, 0, 0)[:3], not re.search(r"\d(a|b|rc|\.?dev)\d*", public)


if __name__ == "__main__":
    main()
