"""The weights of a model's folder, by their names and by their content, read without torch.

A model is known by the sha256 of its tensors: name, type, shape and bytes of each, in the order of their names. So it
is the same model in one file or in ten, here or on another disk, and one bit that differs anywhere makes it another.
The result is remembered by each file's place, size and times, so that a folder is read through once.
"""

import contextlib
import hashlib
import json
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.base.atomic_files import atomic_write
from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.units import bytes_text
from engine.base.worker_process import cores

_CHUNK_BYTES = 1 << 20
_MOST_HEADER_BYTES = 100 << 20
"""The format's own limit."""
_MOST_THREADS = 4
_REMEMBERED = 200


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies in a safetensors file."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int
    """Bytes from the beginning of the file."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """By what a model's weights are known again."""

    sha256: str
    tensors: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def weight_files(folder: Path) -> list[Path]:
    """The files transformers would load the weights of this folder from, in its order of preference."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        with contextlib.suppress(OSError, ValueError, AttributeError):
            index = json.loads((folder / f"{name}.index.json").read_text("utf-8"))
            return [folder / shard for shard in sorted(set(index["weight_map"].values()))]
    return sorted(folder.glob("*.safetensors"))


def tensors(folder: Path) -> list[Tensor]:
    """Every tensor of a folder's safetensors files. Raises ValueError or OSError where one cannot be read."""
    return [tensor for file in weight_files(folder) for tensor in _in_file(file)]


def _in_file(file: Path) -> list[Tensor]:
    if file.suffix != ".safetensors":
        return []
    with open(file, "rb") as stream:
        head = stream.read(8)
        size = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
        if not 0 < size <= _MOST_HEADER_BYTES:
            raise ValueError(f"{file} is no safetensors file")
        header = json.loads(stream.read(size))
    begin = 8 + size
    return [
        Tensor(
            file,
            name,
            entry["dtype"],
            tuple(entry["shape"]),
            begin + entry["data_offsets"][0],
            begin + entry["data_offsets"][1],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    ]


def check_weights(folder: Path) -> None:
    """That a folder's safetensors files are all there and as long as their headers say: a copy or a download that was
    cut short is told before a run is queued. Raises InputError."""
    for file in weight_files(folder):
        try:
            status = file.stat()
        except FileNotFoundError:
            raise InputError(msg("{file} is missing", file=file), _COPY_AGAIN) from None
        except OSError:
            continue  # who loads it tells why
        if problem := _problem(file, status.st_size, status.st_mtime_ns):
            raise InputError(problem, _COPY_AGAIN)


_COPY_AGAIN = "Copy or download the model again."


@lru_cache(maxsize=1000)
def _problem(file: Path, size: int, changed_ns: int) -> str:
    """What is wrong with a weights file of that size and time; empty where nothing can be seen to be."""
    try:
        end = max((tensor.end for tensor in _in_file(file)), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return msg("{file} is damaged or was cut short: its header cannot be read", file=file)
    except OSError:
        return ""
    if size >= end:
        return ""
    return msg(
        "{file} was cut short: it has {size} of {whole}", file=file, size=bytes_text(size), whole=bytes_text(end)
    )


def fingerprint(folder: Path) -> Fingerprint | None:
    """What the weights in `folder` are known by; None where there are none that can be read.

    The first time the files are read through, at the rate of the disk or of four threads of sha256 (1 to 2 GB/s each
    with a processor's SHA instructions); afterwards it is looked up.
    """
    try:
        files = weight_files(folder)
        if not files:
            return None
        key = _key(files)
        if remembered := _remembered().get(key):
            return Fingerprint(**remembered)
        parts = list(_parts(files))
        digests = _digests(parts)
        joined = hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
        made = Fingerprint(joined, len(parts), sum(part.end - part.start for part in parts))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # who loads them tells what is wrong
    _remember(key, made)
    return made


class Fingerprinting:
    """A fingerprint in the making, beside whatever else is done; it dies with the process."""

    def __init__(self, folder: Path) -> None:
        self._found: Fingerprint | None = None
        self._thread = threading.Thread(target=self._work, args=[folder], daemon=True)
        self._thread.start()

    def _work(self, folder: Path) -> None:
        self._found = fingerprint(folder)

    def result(self) -> Fingerprint | None:
        self._thread.join()
        return self._found


def _parts(files: list[Path]) -> Iterator[Tensor]:
    """The tensors of all files; of a file that is no safetensors, the whole."""
    for file in files:
        tensors = _in_file(file)
        if not tensors:
            tensors = [Tensor(file, file.name, "file", (), 0, file.stat().st_size)]
        yield from tensors


def _digests(parts: list[Tensor]) -> list[str]:
    """sha256 of each, by a few threads: hashing and reading let others run meanwhile."""
    todo, lock = iter(sorted(parts, key=lambda part: part.start - part.end)), threading.Lock()
    digests: list[str] = []
    failed: list[Exception] = []

    def work() -> None:
        while not failed:
            with lock:
                part = next(todo, None)
            if part is None:
                return
            try:
                digests.append(_digest(part))
            except (OSError, ValueError) as error:
                failed.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_MOST_THREADS, cores()))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return digests


def _digest(part: Tensor) -> str:
    digest = hashlib.sha256(json.dumps([part.name, part.dtype, part.shape]).encode())
    left = part.end - part.start
    buffer = memoryview(bytearray(min(_CHUNK_BYTES, max(1, left))))
    with open(part.file, "rb", buffering=0) as stream:
        stream.seek(part.start)
        while left:
            got = stream.readinto(buffer[:left])
            if not got:
                raise ValueError(f"{part.file} ends too early")
            digest.update(buffer[:got])
            left -= got
    return f"{part.name} {digest.hexdigest()}"


# what was found out before


def _key(files: list[Path]) -> str:
    """Any write to a file changes its ctime, which nobody can set back."""
    stats = [(os.path.realpath(file), os.stat(file)) for file in files]
    file_stats = [[path, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for path, s in stats]
    return hashlib.sha256(json.dumps(file_stats).encode()).hexdigest()


def _path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(base)) / "finetop" / "weights.json"


def _remembered() -> dict[str, Any]:
    try:
        content = json.loads(_path().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(key: str, made: Fingerprint) -> None:
    """That it cannot be written is no reason to fail: it is only a saving of time."""
    fingerprints = _remembered() | {key: made.to_json()}
    with contextlib.suppress(OSError):
        _path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic_write(_path(), json.dumps(dict(list(fingerprints.items())[-_REMEMBERED:])))
