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
    by_name: dict[str, dict[str, Any]] = {}
    left = WHOLE_BYTES
    for origin in find_origins(list(files), plain_text=plain_text, use="all"):
        if origin.on_hub:
            continue
        whole = origin.size_bytes <= left
        left -= origin.size_bytes if whole else 0
        by_name[origin.name] = _fingerprint(origin.name, whole)
    return by_name


def changes(recorded: Mapping[str, Mapping[str, Any]], files: Iterable[str], *, plain_text: bool) -> list[str]:
    """In the user's words, how the data differs from its fingerprints; empty when it does not."""
    try:
        now = {
            origin.name for origin in find_origins(list(files), plain_text=plain_text, use="all") if not origin.on_hub
        }
    except Exception as error:  # a file that is gone, a folder that is empty now: find_origins has the words for it
        return [str(getattr(error, "message", error))]
    sentences = [msg("{path} is gone", path=path) for path in recorded if path not in now]
    sentences += [msg("{path} is new", path=path) for path in sorted(now - recorded.keys())]
    return sentences + [change for path in recorded if path in now and (change := _change(path, recorded[path]))]


def _change(path: str, recorded: Mapping[str, Any]) -> str:
    try:
        status = os.stat(path)
        if status.st_size != recorded.get("bytes"):
            return msg(
                "{path} has changed: it had {bytes_before:,} bytes and has {bytes_now:,} now",
                path=path,
                bytes_before=recorded.get("bytes"),
                bytes_now=status.st_size,
            )
        if status.st_mtime_ns == recorded.get("mtime_ns"):
            return ""
        now = _fingerprint(path, whole="sha256" in recorded)
    except OSError as error:
        return msg("{path} cannot be read: {strerror}", path=path, strerror=error.strerror)
    if "sha256" in recorded:
        is_same = now["sha256"] == recorded["sha256"]
        return "" if is_same else msg("{path} has changed: its content is another", path=path)
    if now["sampled"] != recorded.get("sampled"):
        return msg("{path} has changed: its content is another", path=path)
    return msg("{path} was written to since; the pieces of it that were compared are the same", path=path)


def _fingerprint(path: str, whole: bool) -> dict[str, Any]:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        entry: dict[str, Any] = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        if whole:
            return entry | {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        digest = hashlib.sha256()
        for piece in range(_PIECES):
            file.seek(max(0, status.st_size - _PIECE_BYTES) * piece // (_PIECES - 1))
            digest.update(file.read(_PIECE_BYTES))
        return entry | {"sampled": digest.hexdigest()}
