"""`python -m engine.worker.forkserver FD`: a process that has everything imported, and forks a worker for each run, and
an engine for each model that the server answers with.

Importing torch, transformers and peft takes 5 to 6 s of a processor; a fork of a process that has done it takes some
milliseconds. A fork copies only the thread that calls it, and no state of the GPU driver, so this process must have
neither: it never trains, never touches CUDA, and looks before every fork whether some library has started a thread.

FD is one end of a socket pair whose messages are whole (SOCK_SEQPACKET), each a JSON object. The daemon sends
`{"module", "words", "environment", "cwd"}` and with it the folder's locked log as a file descriptor. It receives
`{"ready": seconds}` or `{"off": reason}` once, `{"pid": n}` or `{"error": reason}` for each run, and `{"exited": n,
"status": wait status}` for each worker. When the other end closes, the daemon is gone: this process exits, and its
workers go on without it.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
import unittest.mock
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from engine.base.messages import msg, msg_n
from engine.base.worker_process import RUN
from engine.worker.__main__ import main as train
from engine.worker.answer.__main__ import main as answer
from engine.worker.runtime.environment import set_environment

MESSAGE_BYTES = 1 << 17
"""An environment is some KB; the kernel refuses single messages of more than about 200 KB."""
_PRELOADED = (
    "engine.worker.train.loop",
    "engine.worker.answer.answering",
    "engine.worker.runtime.heartbeat",
    "peft.tuners.lora",
    "safetensors.torch",
    "tokenizers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.generation.utils",
    "transformers.integrations",
)
"""transformers imports its parts at first use; these are used by every run. The model's own part comes with a fork."""
_PR_SET_NAME = 15


def main() -> int:
    """Serve until the daemon is gone; returns the exit code."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    began = time.monotonic()
    # Stopping the daemon's session from a terminal is no reason to exit before the daemon does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        problem = _unsafe(_load())
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        _tell(channel, {"off": problem})
        return 1
    gc.collect()
    gc.freeze()  # a collection in a fork would touch, and so copy, every page that holds objects
    _tell(channel, {"ready": round(time.monotonic() - began, 2)})
    _serve(channel)
    return 0


def _load() -> str:
    """Import what every run uses. Returns the module whose import was the first to start a thread, or nothing."""
    set_environment()

    culprit = "torch" if _other_threads() else ""
    with _cuda_untouched():
        for name in _PRELOADED:
            importlib.import_module(name)
            culprit = culprit or (name if _other_threads() else "")
    return culprit


@contextlib.contextmanager
def _cuda_untouched() -> Iterator[None]:
    """Within it, libraries that ask torch about GPUs while they are imported are answered without CUDA.

    bitsandbytes, which PEFT imports, asks whether there is one, how many, and what they can do, to choose its library
    and for its diagnostics. Each of these questions initialises CUDA's driver, or with PYTORCH_NVML_BASED_CUDA_CHECK
    NVML, which (driver 580) opens the card and starts a thread all the same.
    """
    import torch

    cards = visible_cards(os.environ) if torch.backends.cuda.is_built() else 0
    device = torch.device("cuda") if cards else None
    answers: list[tuple[Any, str, Any]] = [
        (torch.cuda, "is_available", lambda: cards > 0),
        (torch.cuda, "device_count", lambda: cards),
        (torch.cuda, "get_device_capability", lambda device=None: (8, 0)),
        (torch.accelerator, "is_available", lambda: cards > 0),
        (torch.accelerator, "device_count", lambda: cards),
        (torch.accelerator, "current_accelerator", lambda check_available=False: device),
    ]
    with contextlib.ExitStack() as stack:
        for module, name, answer in answers:
            stack.enter_context(unittest.mock.patch.object(module, name, answer))
        yield


def visible_cards(environment: Mapping[str, str], devices: Path = Path("/dev")) -> int:
    """How many GPUs there are for a process with this environment, by their device files."""
    if environment.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1", "NoDevFiles"):
        return 0
    return sum(1 for path in devices.glob("nvidia[0-9]*") if path.name.removeprefix("nvidia").isdecimal())


def _other_threads() -> list[str]:
    """The names of this process's threads but for the main one: Python's own where it has one, else the kernel's."""
    python = {thread.native_id: thread.name for thread in threading.enumerate()}
    names = []
    for task in set(map(int, os.listdir("/proc/self/task"))) - {os.getpid()}:
        with contextlib.suppress(OSError):
            names.append(python.get(task) or Path(f"/proc/self/task/{task}/comm").read_text().strip())
    return names


def _unsafe(culprit: str = "") -> str:
    """Why a fork of this process would not be safe; empty if it is. `culprit`: the module that has started a thread."""
    import torch

    if names := _other_threads():
        return msg_n(
            "{library} has started a thread: {names}",
            "{library} has started {n} threads: {names}",
            len(names),
            library=msg("importing {module}", module=culprit) if culprit else "a library",
            names=", ".join(sorted(names)),
        )
    if torch.cuda.is_initialized():
        return "CUDA has been initialised"
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("/dev/nvidia"):
                return "a library has opened the GPU"
    return ""


def _serve(channel: socket.socket) -> None:
    watched: dict[int, int] = {}
    """pidfd of each worker -> its pid."""
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is channel:
                    message, descriptors = _receive(channel)
                    if message is None:
                        return
                    pid = _start(channel, message, descriptors)
                    if pid:
                        descriptor = os.pidfd_open(pid)
                        watched[descriptor] = pid
                        selector.register(descriptor, selectors.EVENT_READ)
                else:
                    selector.unregister(key.fileobj)
                    os.close(key.fd)
                    pid, status = os.waitpid(watched.pop(key.fd), 0)
                    _tell(channel, {"exited": pid, "status": status})


def _receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    content, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 4)
    return (json.loads(content) if content else None), descriptors


def _tell(channel: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the daemon is gone, as the next read of the channel shows
        channel.send(json.dumps(message).encode())


def _start(channel: socket.socket, request: dict[str, Any], descriptors: list[int]) -> int:
    """Fork the worker and send its pid; 0 if none was started."""
    log = descriptors[0]
    try:
        problem = _unsafe()
        if not problem and (pid := os.fork()) == 0:
            _become_worker(request, log)
    except OSError as error:
        problem = msg("no process could be made: {error}", error=error.strerror)
    os.close(log)
    if problem:
        _tell(channel, {"error": problem})
        return 0
    _tell(channel, {"pid": pid})
    return pid


def _become_worker(request: dict[str, Any], log: int) -> None:
    """In the fork: the worker of a run, or an engine. Never returns."""

    def run() -> int:
        sys.argv = [request["module"], *request["words"]]
        _name_process(f"finetop-{Path(request['words'][0]).name}")
        _reseed()
        work = train if request["module"] == RUN else answer
        return work(sys.argv[1:])

    become((os.open(os.devnull, os.O_RDONLY), log, log), request, run)


def become(streams: Sequence[int], request: Mapping[str, Any], run: Callable[[], int]) -> NoReturn:
    """In a fork: what a new process would have been given, and its ending, with the exit code that `run` returns.

    `streams` become its standard input, output and error; `given` holds its `environment` and its folder, `cwd`.
    """
    code = 1
    try:
        os.setsid()
        for target, source in enumerate(streams):
            os.dup2(source, target)
        os.closerange(3, _highest_descriptor() + 1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["cwd"])
        code = run()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _highest_descriptor() -> int:
    return max(int(name) for name in os.listdir("/proc/self/fd"))


def _name_process(name: str) -> None:
    """As `top` and `ps -o comm` show it: 15 bytes at most."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def _reseed() -> None:
    """Seed Python's and numpy's random state as a new process would, not equally in every run."""
    import random

    import numpy as np

    random.seed()
    np.random.seed()


if __name__ == "__main__":
    os._exit(main())  # without waiting for threads that a library may have started
