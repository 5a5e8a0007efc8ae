"""What a run's data files were when it was queued, and whether they are still that.

Up to WHOLE_BYTES in all, the sha256 of the content: 0.02 s with a processor's SHA instructions, 0.1 s without. Beyond
that `finetop add` would be felt, so a larger file is known by its size, its time of last change, and the sha256 of
pieces spread over it. What the worker reads is hashed whole in any case, and stands in its checkpoints.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from engine.base.messages import msg
from engine.formats.sources import find_origins

WHOLE_BYTES = 32 << 20
_PIECES = 16
_PIECE_BYTES = 16 << 10


def fingerprints(files: Iterable[str], *, plain_text: bool) -> dict[str, dict[str, Any]]:
    """For each file behind these names `bytes`, `mtime_ns`, and `sha256` or `sampled`. Not for hub datasets."""
    found: dict[str, dict[str, Any]] = {}
    left = WHOLE_BYTES
    for origin in find_origins(list(files), plain_text=plain_text, use="all"):
        if origin.on_hub:
            continue
        whole = origin.size_bytes <= left
        left -= origin.size_bytes if whole else 0
        found[origin.name] = _fingerprint(origin.name, whole)
    return found


def changes(before: Mapping[str, Mapping[str, Any]], files: Iterable[str], *, plain_text: bool) -> list[str]:
    """In the user's words, how the data differs from its fingerprints; empty when it does not."""
    try:
        now = {
            origin.name for origin in find_origins(list(files), plain_text=plain_text, use="all") if not origin.on_hub
        }
    except Exception as error:  # a file that is gone, a folder that is empty now: find_origins has the words for it
        return [str(getattr(error, "message", error))]
    said = [msg("{path} is gone", path=path) for path in before if path not in now]
    said += [msg("{path} is new", path=path) for path in sorted(now - before.keys())]
    return said + [words for path in before if path in now and (words := _change(path, before[path]))]


def _change(path: str, before: Mapping[str, Any]) -> str:
    try:
        status = os.stat(path)
        if status.st_size != before.get("bytes"):
            return msg(
                "{path} has changed: it had {get:,} bytes and has {st_size:,} now",
                path=path,
                get=before.get("bytes"),
                st_size=status.st_size,
            )
        if status.st_mtime_ns == before.get("mtime_ns"):
            return ""
        now = _fingerprint(path, whole="sha256" in before)
    except OSError as error:
        return msg("{path} cannot be read: {strerror}", path=path, strerror=error.strerror)
    if "sha256" in before:
        return "" if now["sha256"] == before["sha256"] else msg("{path} has changed: its content is another", path=path)
    if now["sampled"] != before.get("sampled"):
        return msg("{path} has changed: its content is another", path=path)
    return msg("{path} was written to since; the pieces of it that were compared are the same", path=path)


def _fingerprint(path: str, whole: bool) -> dict[str, Any]:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        known: dict[str, Any] = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        if whole:
            return known | {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        digest = hashlib.sha256()
        for piece in range(_PIECES):
            file.seek(max(0, status.st_size - _PIECE_BYTES) * piece // (_PIECES - 1))
            digest.update(file.read(_PIECE_BYTES))
        return known | {"sampled": digest.hexdigest()}
