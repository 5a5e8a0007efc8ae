"""`eval.command`: a program of the user's that scores the answers of an evaluation.

It gets the lines of predictions.jsonl whose example was answered on its standard input, and writes one JSON object of
numbers to its standard output, or as the last line of it. No shell reads the command: it is parted into words as a
shell would, and the first is the program.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.errors import InputError
from engine.base.messages import msg
from engine.base.units import duration
from engine.base.worker_process import signal_name
from engine.metrics.names import MAIN_SCORES

MOST_NUMBERS = 50
_OUTPUT_BYTES = 1 << 20
"""Of each of its two outputs."""
_SCRIPT = re.compile(r".+\.(py|sh|bash|pl|rb|js|ts|R|jl|lua|jar)")
_NAME = re.compile(r"[^\W\d][\w.-]{0,59}(@[\w.-]{1,60})?")
_TAKEN = frozenset({"loss", "perplexity", *MAIN_SCORES})
_POLL_SECONDS = 0.02
_ALIVE_SECONDS = 0.5
_LARGE_BYTES = 64 << 20
"""Of a file: beyond it hashing would be felt at every evaluation."""


class CommandFailed(InputError):
    """The command gave no numbers; the message says why, in words."""


@dataclass(frozen=True)
class ScoreCommand:
    """The program and its words, where it runs, and for how long it may."""

    text: str
    folder: Path
    seconds: float

    @property
    def words(self) -> list[str]:
        return parse(self.text)

    @property
    def files(self) -> dict[str, str]:
        """sha256 of each file that its words name, by its path: what the numbers hang on, as far as it can be seen.

        Of the program itself where it is a script; of a very large file size and time instead.
        """
        hashes = {}
        program, *words = [Path(self.folder, os.path.expanduser(word)) for word in self.words]
        for path in [program, *words]:
            with contextlib.suppress(OSError, ValueError):
                if path.is_file() and (path is not program or _is_script(path)):
                    hashes[str(path)] = _known_by(path)
        return hashes

    def identity(self) -> dict[str, Any]:
        """What is kept of it beside its numbers, JSON-ready."""
        return {"text": self.text, "files": self.files}

    def changes(self, earlier: Mapping[str, Any] | None) -> list[str]:
        """In words, how it is another than the one of that identity; empty where it is the same."""
        return changed(earlier, self.identity())

    def numbers(self, lines: Iterable[Mapping[str, Any]], alive: Callable[[], None] = lambda: None) -> dict[str, float]:
        """What it says of these predictions. Raises CommandFailed; `alive` is called again and again meanwhile."""
        import tempfile  # 5 ms

        with tempfile.TemporaryDirectory(prefix="finetop-score-") as scratch:
            stdin_path, stdout_path, stderr_path = (Path(scratch, name) for name in ("in", "out", "err"))
            text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
            stdin_path.write_bytes(text.encode("utf-8", "replace"))
            self._run(stdin_path, stdout_path, stderr_path, alive)
            return read_numbers(stdout_path.read_bytes().decode("utf-8", "replace"))

    def _run(self, stdin_path: Path, stdout_path: Path, stderr_path: Path, alive: Callable[[], None]) -> None:
        try:
            with open(stdin_path, "rb") as stdin, open(stdout_path, "wb") as stdout, open(stderr_path, "wb") as stderr:
                process = subprocess.Popen(
                    self.words,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    cwd=self.folder,
                    process_group=0,  # so that what it starts ends with it
                )
        except OSError as error:
            raise CommandFailed(f"eval.command {self.text}: {error.strerror or error}", _HINT) from None
        until = time.monotonic() + self.seconds
        try:
            alive_at = 0.0
            while process.poll() is None:
                time.sleep(_POLL_SECONDS)
                if time.monotonic() - alive_at >= _ALIVE_SECONDS:
                    alive_at = time.monotonic()
                    alive()
                if time.monotonic() > until:
                    raise CommandFailed(
                        msg("eval.command took longer than {limit} and was ended", limit=duration(self.seconds)),
                        "Raise eval.command_seconds.",
                    )
                if max(stdout_path.stat().st_size, stderr_path.stat().st_size) > _OUTPUT_BYTES:
                    raise CommandFailed(
                        msg(
                            "eval.command wrote more than {output_bytes} MiB and was ended",
                            output_bytes=_OUTPUT_BYTES >> 20,
                        ),
                        _HINT,
                    )
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            code = process.returncode
            how = (
                msg("was killed by {code}", code=signal_name(-code))
                if code < 0
                else msg("ended with status {code}", code=code)
            )
            last_line = _last_line(stderr_path)
            raise CommandFailed(f"eval.command {how}{f': {last_line}' if last_line else ''}", _HINT)


_HINT = "Try it by hand: it reads a run's evaluations/step-*/predictions.jsonl, see docs/evaluation.md."


def parse(text: str) -> list[str]:
    """The command's words. Raises InputError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"eval.command {text}: {str(error).lower()}", "Quotes come in pairs.") from None
    if not words or not words[0]:
        raise InputError("eval.command names no program", "Such as: python score.py")
    return words


def check_command(text: str, folder: Path) -> None:
    """That its program and its scripts are there. Raises InputError."""
    words = parse(text)
    program = os.path.expanduser(words[0])
    if shutil.which(program if os.sep not in program else os.path.join(folder, program)) is None:
        reason = "cannot be run" if os.path.exists(os.path.join(folder, program)) else "is not there"
        raise InputError(
            msg("eval.command {text}: the program {words} {reason}", text=text, words=words[0], reason=reason),
            "Such as: python score.py",
        )
    for word in words[1:]:
        path = os.path.join(folder, os.path.expanduser(word))
        if _SCRIPT.fullmatch(word) and not os.path.exists(path):
            raise InputError(
                msg("eval.command {text}: there is no file {path}", text=text, path=path),
                "Give its path from where you stand.",
            )


def absolute_command(text: str) -> str:
    """The files among its words, and its program, by their whole paths, so that it means the same from anywhere.

    What cannot be read as a command is left as it is, for `check_command` to refuse.
    """
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    if not words or "\0" in text:
        return text
    program = shutil.which(os.path.expanduser(words[0]))
    words[0] = os.path.abspath(program) if program else words[0]
    arguments = [os.path.abspath(os.path.expanduser(word)) if _is_file(word) else word for word in words[1:]]
    return shlex.join([words[0], *arguments])


def _is_file(word: str) -> bool:
    try:
        return os.path.isfile(os.path.expanduser(word))
    except ValueError:
        return False


def read_numbers(output: str) -> dict[str, float]:
    """The object that is the whole output, or its last line: libraries like to print. Raises CommandFailed."""
    lines = output.strip().splitlines()
    if not lines:
        raise CommandFailed("eval.command wrote nothing to its standard output", _HINT)
    content = None
    for text in (output, lines[-1]):
        try:
            content = json.loads(text)
            break
        except (ValueError, RecursionError):
            continue
    if not isinstance(content, dict):
        raise CommandFailed(
            msg("eval.command wrote no JSON object of numbers: {lines}", lines=_shown(lines[-1])), _HINT
        )
    if len(content) > MOST_NUMBERS:
        raise CommandFailed(
            msg(
                "eval.command gave {count:,} numbers; {most_numbers} are the most",
                count=len(content),
                most_numbers=MOST_NUMBERS,
            ),
            _HINT,
        )
    return {name: value for name, value in ((name, _number(name, value)) for name, value in content.items())
            if value is not None}  # fmt: skip


def _number(name: str, value: Any) -> float | None:
    if not _NAME.fullmatch(name):
        raise CommandFailed(
            msg("eval.command: {name} is no name for a metric", name=_shown(name)), "Letters, digits, '_', '-', '.'."
        )
    if name.partition("@")[0] in _TAKEN:
        raise CommandFailed(
            msg("eval.command gives '{name}', which finetop measures itself", name=name), "Give it another name."
        )
    if value is None:
        return None
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and not math.isinf(value):
            return float(value)
    except OverflowError:
        pass
    raise CommandFailed(
        msg("eval.command: '{name}' is {dumps}, which is no number", name=name, dumps=_shown(json.dumps(value))), _HINT
    )


def changed(earlier: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> list[str]:
    """In words, how the command is another one than before; empty where it is the same, or nobody knows."""
    earlier, now = earlier or {}, now or {}
    if earlier.get("text") != now.get("text"):
        return [
            msg(
                "eval.command was {old_command} and is {new_command}",
                old_command=earlier.get("text") or "not set",
                new_command=now.get("text") or "not set",
            )
        ]
    was, now_files = earlier.get("files") or {}, now.get("files") or {}
    return [
        msg("{path} has changed", path=path) for path in now_files if was.get(path) not in (None, now_files[path])
    ] + [msg("{path} is gone", path=path) for path in was if path not in now_files]


def _is_script(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"#!"


def _known_by(path: Path) -> str:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_size > _LARGE_BYTES:
            return f"{status.st_size} bytes of {status.st_mtime_ns}"
        return hashlib.file_digest(file, "sha256").hexdigest()


def _last_line(path: Path) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 4000))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return _shown(lines[-1].strip()) if lines else ""


def _shown(text: str) -> str:
    shown = "".join(char if char.isprintable() else "�" for char in text)
    return shown if len(shown) <= 300 else shown[:299] + "…"


def answered(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The predictions that a command is given."""
    return [line for line in lines if line.get("text") is not None]
