"""Several processes that train one run together, each with all the weights and its share of every step's examples.

The run's own process is rank 0. It alone decides, writes, evaluates and saves; the others, followers (follower.py), do
the steps it tells them of and hold nothing that could be lost. There are two ways between them:

* a socket from rank 0 to each follower, for orders and for agreeing: short words, and it ends when a side is gone;
* collectives (NCCL between GPUs, gloo elsewhere) for gradients and weights. All ranks agree before each, so that nobody
  waits in one for a rank that does not come: not for hours of evaluation, not for one that ran out of memory.

A follower is spawned, not forked: by the time their number is known, CUDA and thread pools may be in use, of which a
fork would have broken copies. It has the run's session, and dies with rank 0 by the kernel's hand. When a follower
dies, rank 0 hears it from the socket, and a thread ends the process if it hangs in a collective all the same.

With one rank there is none of this: `share` hands back what it is given, and everything else does nothing.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from engine.base.errors import InputError, OutOfMemory, RankLost, RunFailed, first_line
from engine.base.messages import msg
from engine.base.worker_process import MEMORY_HINT, signal_name, worker_environment
from engine.runs.journal import Journal
from engine.settings.schema import RunConfig
from engine.worker.data.packing import TokenSet
from engine.worker.model.out_of_memory import is_out_of_memory
from engine.worker.runtime.checkpoint import Checkpoint

RANKS = "FINETOP_RANKS"
"""In the environment: so many ranks, whatever the settings and the machine say. For tests on a machine without GPUs."""
FOLLOWER = ("-P", "-m", "engine.worker.train.follower")
"""What Python is started with for each rank but the first."""
_BUCKET_BYTES = 64 * 2**20
"""Small gradients travel together in one buffer of this size; one as large as the buffer travels alone, in place."""
_GRACE_SECONDS = 10.0
"""For rank 0 to notice itself that a follower is gone; then its process is ended."""
_LEAVE_SECONDS = 5.0
_PEER_REPORT_SECONDS = 2.0
"""A follower whose collective fails because another is gone waits so long, for rank 0 to hear of the other first."""
_PATIENCE = timedelta(days=7)
"""Of a collective. That a rank is gone is noticed otherwise; a slow one is no failure."""


@dataclass(frozen=True)
class Begin:
    """What a follower needs to load the run."""

    config: RunConfig
    tokens: TokenSet
    source: str | None
    """Folder of the model's weights, where they are not the base's own."""
    resumed: Checkpoint | None
    """Where the optimizer's state is to be read."""


@dataclass(frozen=True)
class Step:
    """One optimizer step; told again where it is repeated."""

    number: int
    indices: np.ndarray
    """The step's examples, all ranks'."""
    micro_tokens: int
    rate: float
    activation_checkpointing: bool


@dataclass
class _Follower:
    rank: int
    process: subprocess.Popen
    channel: Connection
    last_words: BinaryIO
    """Why it leaves, as JSON; ends when it is gone, however that came."""


@dataclass
class Ranks:
    """This process among those that train the run. Rank 0 calls `start`, then all the rest in the order they stand."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    store: int = -1
    """Descriptor of the memory in which the collectives find each other. Open as long as the process is there: torch
    writes to it when it lets go of it, and another file might have its number by then."""
    _began: float = field(default_factory=time.monotonic)
    _seed: int = 0
    _folder: Path = Path()
    _channel: Connection | None = None
    _followers: list[_Follower] = field(default_factory=list)
    _bucket: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    _lost: dict[str, str] = field(default_factory=dict)
    _someone_fell: threading.Event = field(default_factory=threading.Event)
    _leaving: threading.Event = field(default_factory=threading.Event)

    @staticmethod
    def following(rank: int, count: int, device: torch.device, store: int, channel: Connection) -> "Ranks":
        return Ranks(rank, count, device, store, _channel=channel)

    # -- the same on every rank ----------------------------------------------------------------------------------

    def connect(self, parameters: list[nn.Parameter], seed: int) -> None:
        """Wait until every rank has loaded its model, and connect. Now what a sum takes is allocated for good."""
        self._seed = seed
        if self.count == 1:
            return
        self._exchange("loaded")
        # All ranks are of this machine. Left to choose, gloo may take an interface that leads nowhere.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
        own_gpu = self.device.type == "cuda" and self.count <= torch.cuda.device_count()
        with self._heard():
            dist.init_process_group(
                "nccl" if own_gpu else "gloo",
                store=dist.FileStore(f"/proc/self/fd/{self.store}", self.count),
                rank=self.rank,
                world_size=self.count,
                timeout=_PATIENCE,
                device_id=self.device if own_gpu else None,
            )
            size = min(_BUCKET_BYTES, sum(p.numel() * p.element_size() for p in parameters) + 64)
            self._bucket = torch.zeros(size // 8 * 8, dtype=torch.uint8, device=self.device)
            dist.all_reduce(self._bucket[:8])  # NCCL takes its own memory with the first

    def spread(self, parameters: list[nn.Parameter]) -> None:
        """Give every rank rank 0's weights."""
        if self.count == 1:
            return
        self._tell("spread")
        with torch.no_grad(), self._heard():
            for parameter in parameters:
                dist.broadcast(parameter.data, 0)

    def begin_step(self, step: Step) -> None:
        """Tell the followers what to do. From here on each rank draws its own random numbers of this step."""
        if self.count > 1:
            self._tell(step)
            self._draw_anew(step.number)

    def share(self, indices: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """This rank's part of a step's examples: longest first, each to whom has the fewest tokens (Graham 1969)."""
        if self.count == 1:
            return indices
        tokens = [0] * self.count
        mine = []
        for index in indices[np.argsort(-lengths[indices], kind="stable")]:
            rank = tokens.index(min(tokens))
            tokens[rank] += int(lengths[index])
            if rank == self.rank:
                mine.append(int(index))
        return np.array(mine, dtype=np.int64)

    @contextlib.contextmanager
    def sync_oom(self) -> Iterator[None]:
        """What runs out of memory on one rank does so on all: its error there, and one that names it elsewhere."""
        failure = None
        try:
            yield
        except Exception as error:
            if self.count == 1 or not is_out_of_memory(error):
                raise
            failure = error
        if self.count == 1:
            return
        said = self._exchange(first_line(failure) if failure else None)
        for rank, text in enumerate(said):
            if text is not None:
                raise failure or torch.OutOfMemoryError(f"rank {rank}: {text}")

    def sum_gradients(self, parameters: list[nn.Parameter], loss: Tensor) -> None:
        """Replace gradients and loss on every rank by their sums, equal to the bit on all.

        A parameter that no rank has a gradient of, such as an expert that no token came to, is left without.
        """
        if self.count == 1:
            return
        having = self._exchange(bytes(p.grad is not None for p in parameters))
        used = [p for p, ranks in zip(parameters, zip(*having, strict=True), strict=True) if any(ranks)]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        small: dict[torch.dtype, list[Tensor]] = {loss.dtype: [loss]}
        with torch.no_grad(), self._heard():
            for parameter in used:
                gradient = parameter.grad
                if gradient.numel() * gradient.element_size() < len(self._bucket):
                    small.setdefault(gradient.dtype, []).append(gradient)
                    continue
                flat = gradient.contiguous()
                dist.all_reduce(flat)
                if flat is not gradient:
                    gradient.copy_(flat)
            for dtype, tensors in small.items():
                self._sum_small(tensors, self._bucket.view(dtype))

    def _sum_small(self, tensors: list[Tensor], bucket: Tensor) -> None:
        start = 0
        while start < len(tensors):
            end, filled = start, 0
            while end < len(tensors) and filled + tensors[end].numel() <= len(bucket):
                filled += tensors[end].numel()
                end += 1
            group, used = tensors[start:end], bucket[:filled]
            torch.cat([tensor.reshape(-1) for tensor in group], out=used)
            dist.all_reduce(used)
            sums = used.split([tensor.numel() for tensor in group])
            torch._foreach_copy_(group, [s.view(t.shape) for s, t in zip(sums, group, strict=True)])
            start = end

    def verify(self, parameters: list[nn.Parameter]) -> None:
        """RunFailed when the ranks' weights have come to differ: nothing they train on would be right any more."""
        if self.count == 1:
            return
        self._tell("verify")
        mine = float(sum(p.detach().sum(dtype=torch.float64) for p in parameters))
        sums = self._exchange(mine)
        # Not to the last bit, since GPUs of different kinds add in a different order.
        if max(sums) - min(sums) > 1e-6 * max(1.0, *map(abs, sums)):
            raise RunFailed(
                "the weights on the ranks have come to differ, which they never should",
                "Resume from a checkpoint before this one, or train on one GPU (run.gpu_count=1).",
            )

    def _draw_anew(self, step: int) -> None:
        import random

        seed = int(np.random.SeedSequence([self._seed, self.rank, step]).generate_state(1, np.uint64)[0])
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)

    def _exchange(self, mine: Any) -> list[Any]:
        """What each rank says, by rank; the same list on all of them."""
        with self._heard():
            if self.rank:
                self._channel.send(mine)
                return self._channel.recv()
            said = [mine, *(follower.channel.recv() for follower in self._followers)]
            for follower in self._followers:
                follower.channel.send(said)
            return said

    # -- followers -----------------------------------------------------------------------------------------------

    def hear(self) -> Begin | Step | str | None:
        """The next order; None when there is nothing more to do."""
        try:
            order = self._channel.recv()
        except (EOFError, OSError):
            return None
        if isinstance(order, Step):
            self._draw_anew(order.number)
        return order

    def leave(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    # -- rank 0 --------------------------------------------------------------------------------------------------

    def start(self, folder: Path, config: RunConfig, device: torch.device) -> str:
        """Start the followers this run is to have; they load their libraries meanwhile. Says what is not as wished."""
        self.count, complaint = wanted_ranks(config, device)
        self.device, self._folder = device, folder
        if self.count == 1:
            return complaint
        if not sys.platform.startswith("linux"):
            raise InputError("several ranks need Linux", "Leave run.gpu_count at 1.")
        self.store = os.memfd_create("finetop-ranks")
        for rank in range(1, self.count):
            self._followers.append(self._spawn(rank))
        for follower in self._followers:
            threading.Thread(target=self._watch, args=[follower], daemon=True).start()
        return complaint

    def _spawn(self, rank: int) -> _Follower:
        ours, theirs = Pipe()
        hears, says = os.pipe()
        words = [rank, self.count, os.getpid(), theirs.fileno(), says, self.store]
        try:
            process = subprocess.Popen(
                [sys.executable, *FOLLOWER, *map(str, words)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), says, self.store],
                env=worker_environment() | {"TRANSFORMERS_VERBOSITY": "error"},  # rank 0 has warned
            )
        finally:
            theirs.close()
            os.close(says)
        return _Follower(rank, process, ours, open(hears, "rb"))

    def begin(self, begin: Begin) -> None:
        """Let the followers load the model while this rank does."""
        self._tell(begin)

    def _tell(self, order: Begin | Step | str) -> None:
        if self.rank == 0:
            with self._heard():
                for follower in self._followers:
                    follower.channel.send(order)

    @contextlib.contextmanager
    def _heard(self) -> Iterator[None]:
        """Whatever goes wrong between the ranks: if one of them is gone, that is the reason."""
        try:
            yield
        except Exception:
            if self.rank == 0 and self._someone_fell.wait(_LEAVE_SECONDS):
                kind = OutOfMemory if self._lost["cause"] == "out-of-memory" else RankLost
                raise kind(self._lost["reason"], self._lost["hint"]) from None
            if self.rank:
                time.sleep(_PEER_REPORT_SECONDS)
            raise

    def _watch(self, follower: _Follower) -> None:
        """A thread of its own, until the follower is gone."""
        said = follower.last_words.read()
        status = follower.process.wait()
        if self._leaving.is_set():
            return
        self._lost = self._lost or _exit_reason(follower, said, status)
        self._someone_fell.set()
        if not self._leaving.wait(_GRACE_SECONDS):
            with contextlib.suppress(OSError):
                seconds = round(time.monotonic() - self._began, 1)
                Journal(self._folder).write("state", state="failed", **self._lost, seconds=seconds)
            print(self._lost["reason"], file=sys.stderr, flush=True)
            os._exit(1)  # the other followers die with this process

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        """Let the followers go, or make them; returns when they are gone, and with them the lock they share."""
        self._leaving.set()
        if error is None:
            with contextlib.suppress(OSError, RunFailed):
                self._tell("leave")
        for follower in self._followers:
            follower.channel.close()
        # NCCL wants all ranks to leave at once. After an error there may be nobody to leave with: the process's end
        # frees what it has.
        if self._followers and dist.is_initialized() and (error is None or dist.get_backend() == "gloo"):
            dist.destroy_process_group()
        for follower in self._followers:
            try:
                follower.process.wait(_LEAVE_SECONDS if error is None else 0.5)
            except subprocess.TimeoutExpired:
                follower.process.kill()
                follower.process.wait()


def wanted_ranks(config: RunConfig, device: torch.device) -> tuple[int, str]:
    """How many ranks a run has here, and a complaint where that is fewer than it asks for."""
    forced = os.environ.get(RANKS, "")
    if forced.isdecimal() and int(forced) > 0:
        return int(forced), ""
    if device.type != "cuda":
        return 1, ""
    wanted, there = config.run.gpus_wanted, torch.cuda.device_count()
    if wanted > there:
        return there, msg(
            "The run asks for {wanted} GPUs; {there} can be seen here, and it goes on with {there}.",
            wanted=wanted,
            there=there,
        )
    return max(1, wanted), ""


def _exit_reason(follower: _Follower, said: bytes, status: int) -> dict[str, str]:
    """Reason, hint and cause, as the journal has them."""
    who = msg("rank {rank} (pid {pid})", rank=follower.rank, pid=follower.process.pid)
    with contextlib.suppress(ValueError):
        told = json.loads(said)
        cause = "out-of-memory" if told["cause"] == "out-of-memory" else "failed"
        return {"reason": f"{who} failed: {told['reason']}", "hint": told["hint"], "cause": cause}
    reason, hint = msg("{who} ended with code {status}", who=who, status=status), "The log may hold more."
    if status < 0:
        reason = msg(
            "{who} was killed by signal {status} ({signal_name})",
            who=who,
            status=-status,
            signal_name=signal_name(-status),
        )
    if status == -signal.SIGKILL:
        hint = MEMORY_HINT
    return {"reason": reason, "hint": hint, "cause": "failed"}


def ranks_changed(before: int, now: int) -> str:
    """What to say when a run goes on with another number of ranks than its checkpoint was made with."""
    return msg(
        "The checkpoint was made by {before} rank{value}, {now} go{value_2} on: sums are "
        "rounded otherwise, and dropout draws other masks. Nothing else changes.",
        before=before,
        value="s" * (before != 1),
        now=now,
        value_2="es" * (now == 1),
    )
