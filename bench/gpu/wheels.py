"""The parts of bench/gpu_wheels.sh that are easier in Python. Nothing but the standard library and pip."""

import base64
import hashlib
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MIB = 2**20


def needs(pyproject: Path) -> list[str]:
    """What finetop requires."""
    return tomllib.loads(pyproject.read_text("utf-8"))["project"]["dependencies"]


def lacking(report: dict[str, Any], there: Iterable[str]) -> list[str]:
    """`name==version` of all that pip would install (its --report), but what `there` and its dependencies are."""
    from pip._vendor.packaging.requirements import Requirement

    metadata = {_plain(item["metadata"]["name"]): item["metadata"] for item in report["install"]}
    reached: set[tuple[str, str]] = set()
    todo = [Requirement(requirement) for requirement in there]
    while todo:
        needed = todo.pop()
        name = _plain(needed.name)
        for extra in ("", *needed.extras):
            if name not in metadata or (name, extra) in reached:
                continue
            reached.add((name, extra))
            environment = {**report["environment"], "extra": extra}
            of_it = map(Requirement, metadata[name].get("requires_dist", ()))
            todo += [one for one in of_it if one.marker is None or one.marker.evaluate(environment)]
    brought = {name for name, _ in reached}
    return [f"{m['name']}=={m['version']}" for name, m in sorted(metadata.items()) if name not in brought]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


_LIBRARY = re.compile(r"bitsandbytes/libbitsandbytes_(?P<of>[a-z]+[0-9]*)[^/]*\.so$")


def reduce(wheel: Path, cuda: str) -> list[str]:
    """Rewrite bitsandbytes' wheel with the libraries for the CPU and for CUDA `cuda` only; those left out.

    ValueError where it has none for that CUDA.
    """
    unfinished = wheel.with_suffix(".unfinished")
    gone: list[str] = []
    with zipfile.ZipFile(wheel) as old:
        libraries = {name: match["of"] for name in old.namelist() if (match := _LIBRARY.search(name))}
        if f"cuda{cuda}" not in libraries.values():
            raise ValueError(
                f"{wheel.name} has no library for CUDA {cuda}; it has {', '.join(sorted(libraries.values()))}"
            )
        gone = [name for name, of in libraries.items() if of not in ("cpu", f"cuda{cuda}")]
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
            record = next(name for name in old.namelist() if name.endswith(".dist-info/RECORD"))
            for name in old.namelist():
                if name not in (*gone, record):
                    new.writestr(old.getinfo(name), old.read(name), zipfile.ZIP_DEFLATED, 9)
            new.writestr(record, "".join(_record_lines(new, record)))
    unfinished.replace(wheel)
    return gone


def _record_lines(archive: zipfile.ZipFile, record: str) -> Iterable[str]:
    for name in archive.namelist():
        content = archive.read(name)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        yield f"{name},sha256={digest},{len(content)}\n"
    yield f"{record},,\n"


def weigh(folder: Path, root: Path, limit: int) -> int:
    """Print what each wheel and the checkout weigh; 1 where it is more than `limit` MiB, else 0."""
    wheels = sorted(folder.glob("*.whl"), key=lambda wheel: -wheel.stat().st_size)
    for wheel in wheels:
        print(f"{wheel.stat().st_size / MIB:8.2f} MiB  {wheel.name}")
    of_wheels = sum(wheel.stat().st_size for wheel in wheels)
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    files = [root / name for name in listed.stdout.split("\0") if name]
    of_checkout = sum(file.stat().st_size for file in files if file.is_file() and not file.is_relative_to(folder))
    print(f"{of_wheels / MIB:8.2f} MiB  {len(wheels)} wheels\n{of_checkout / MIB:8.2f} MiB  the checkout's files")
    whole = (of_wheels + of_checkout) / MIB
    print(f"{whole:8.2f} MiB  together, of {limit}")
    return int(whole > limit)


def main(verb: str, *words: str) -> int:
    if verb == "needs":
        print("\n".join(needs(Path(words[0]))))
    elif verb == "lacking":
        print("\n".join(lacking(json.loads(Path(words[0]).read_text("utf-8")), words[1:])))
    elif verb == "reduce":
        for wheel in Path(words[0]).glob("bitsandbytes-*.whl"):
            reduce(wheel, words[1])
    elif verb == "weigh":
        return weigh(Path(words[0]), Path(words[1]), int(words[2]))
    else:
        raise SystemExit(f"wheels.py: no such verb: {verb}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
