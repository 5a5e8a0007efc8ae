"""A fork server for tests: worker processes without the five seconds that importing torch costs each of them.

`python forkserver.py SOCKET` imports what workers import and forks one for each request. What asks is a stand-in for
the interpreter (`stub`): tests set `sys.executable` to it, and it hands `-P -m engine.worker... WORDS`, or `-P -c CODE
WORDS` where the code speaks of engine.worker, to the server, with its own descriptors, environment and working
directory. Anything else it gives to the real Python; in `-m tui`, `-m engine.daemon` and `-m engine.serve` it stands in
again. The worker is in a session of its own; signals to the stand-in reach it, its exit status is the stand-in's, and
where the stand-in is killed, so is the worker. Tests of how processes start and are found keep to real ones.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from fcntl import F_DUPFD, fcntl
from pathlib import Path
from typing import NoReturn

from engine.daemon.forkserver_client import NO_THREADS

ROOT = Path(__file__).parents[2]
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_MESSAGE_BYTES = 1 << 17
_BEYOND = 900
"""No process of these tests has so many descriptors."""

_STUB = """\
#!{python} -IS
import json, os, signal, socket, sys
words = sys.argv[1:]
kind, what = words[1:3] if words[:1] == ["-P"] else ("", "")
is_worker = kind == "-m" and what.startswith("engine.worker") or kind == "-c" and "engine.worker" in what
at = words.index("-m") if "-m" in words[:2] else -1
if at >= 0 and words[at + 1] in ("tui", "engine.daemon", "engine.serve"):
    words[at : at + 1] = ["-c", {again!r}]
if not is_worker:
    os.execv({python!r}, [{python!r}, *words])
passed = [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2]
passed = [number for number in passed if os.path.exists(f"/proc/self/fd/{{number}}")]  # but for the folder's own
channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
channel.connect({address!r})
request = {{"kind": kind, "what": what, "words": words[3:], "environment": dict(os.environ), "cwd": os.getcwd()}}
socket.send_fds(channel, [json.dumps(request | {{"passed": passed}}).encode()], [0, 1, 2, *passed])
for number in passed:
    os.close(number)
pid = json.loads(channel.recv(1000))["pid"]
for number in {forwarded!r}:
    signal.signal(number, lambda number, frame: os.kill(pid, number))
answer = channel.recv(1000)
status = json.loads(answer)["status"] if answer else 256
if os.WIFSIGNALED(status):
    if os.WTERMSIG(status) != signal.SIGKILL:
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.waitstatus_to_exitcode(status))
"""

_AGAIN = """\
import runpy, sys
sys.executable, sys.argv[:1] = {stub!r}, []
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""

_FRONT_DOOR = """\
#!{python}
import sys
sys.path.insert(0, {root!r})
sys.executable = {stub!r}
from tui.__main__ import main
sys.exit(main())
"""


class ForkServer:
    """A running server; `stub` stands in for the interpreter, `finetop` for the command of that name."""

    def __init__(self, folder: Path) -> None:
        address = folder / "fork"
        self.stub, self.finetop = folder / "python", folder / "finetop"
        names = {"python": sys.executable, "root": str(ROOT), "address": str(address), "stub": str(self.stub)}
        names["forwarded"] = tuple(map(int, _FORWARDED))
        names["again"] = _AGAIN.format(stub=str(self.stub))
        for path, text in ((self.stub, _STUB), (self.finetop, _FRONT_DOOR)):
            path.write_text(text.format(**names))
            path.chmod(0o755)
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | NO_THREADS
        # No child of the tests, some of which look whether they left any: it detaches itself, and leaves when its
        # standard input ends.
        starter = subprocess.Popen([sys.executable, __file__, str(address)], env=environment, stdin=subprocess.PIPE)
        assert starter.wait() == 0
        self._lifeline = starter.stdin
        deadline = time.monotonic() + 120
        while not address.exists():
            assert time.monotonic() < deadline, "the fork server left"
            time.sleep(0.02)

    def close(self) -> None:
        self._lifeline.close()


def serve(address: str) -> None:
    from engine.worker import forkserver

    forkserver._load()
    import engine.worker.export.export
    import engine.worker.serve
    import engine.worker.trace.trace  # noqa: F401

    assert not forkserver._unsafe(), forkserver._unsafe()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{address}.new")
    listener.listen(64)
    os.rename(f"{address}.new", address)
    running: dict[int, tuple[int, socket.socket]] = {}
    """pidfd of each worker -> its pid, and who waits for it."""
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is listener:
                    channel, _ = listener.accept()
                    pid = _fork(channel)
                    pidfd = os.pidfd_open(pid)
                    running[pidfd] = pid, channel
                    selector.register(pidfd, selectors.EVENT_READ)
                    selector.register(channel, selectors.EVENT_READ, pid)
                elif isinstance(key.fileobj, socket.socket):  # the stand-in was killed
                    selector.unregister(key.fileobj)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(key.data, signal.SIGKILL)
                else:
                    pid, channel = running.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    status = os.waitpid(pid, 0)[1]
                    with contextlib.suppress(KeyError):
                        selector.unregister(channel)
                    with contextlib.suppress(OSError):
                        channel.send(json.dumps({"status": status}).encode())
                    channel.close()


def _fork(channel: socket.socket) -> int:
    data, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 16)
    if pid := os.fork():
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(json.dumps({"pid": pid}).encode())
        return pid
    request = json.loads(data)
    _become(descriptors, request)


def _become(descriptors: list[int], request: dict) -> NoReturn:
    import runpy
    import warnings

    from engine.worker.forkserver import become

    numbered = zip(request["passed"], descriptors[3:], strict=True)
    passed = {number: fcntl(source, F_DUPFD, _BEYOND) for number, source in numbered}
    closerange = os.closerange

    def close_others(*_: int) -> None:
        """What the stand-in was passed keeps its number."""
        os.closerange = closerange
        closerange(3, _BEYOND)
        for number, source in passed.items():
            os.dup2(source, number)
        closerange(_BEYOND, _BEYOND + len(passed))

    os.closerange = close_others  # what `become` calls

    def run() -> int:
        sys.argv = [request["what"], *request["words"]]
        if "follower" in request["what"]:  # it leaves with its parent, and asks whether this is rank 0
            sys.argv[3] = str(os.getppid())
        if request["kind"] == "-c":
            sys.argv[0] = "-c"
            exec(compile(request["what"], "<string>", "exec"), {"__name__": "__main__"})
        else:
            module = request["what"] + (".__main__" if request["what"] == "engine.worker" else "")
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*found in sys.modules after import.*", RuntimeWarning)
                runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0

    become(descriptors[:3], request, run)


if __name__ == "__main__":
    if os.fork() == 0:
        serve(sys.argv[1])
        os._exit(0)
