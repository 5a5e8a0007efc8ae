"""Several processes that train one run together, each with all the weights and its share of every step's examples.

The run's own process is rank 0. It alone decides, writes, evaluates and saves; the other ranks, the followers
(follower.py), execute the steps it sends and hold nothing that could be lost. They are connected in two ways:

* a socket from rank 0 to each follower, for orders and small exchanged values; it closes when either side is gone;
* collectives (NCCL between GPUs, gloo elsewhere) for gradients and weights. All ranks agree before each, so that no
  rank waits in one for a rank that does not come: not for hours of evaluation, not for one that ran out of memory.

A follower is spawned, not forked: by the time their number is known, CUDA and thread pools may be in use, of which a
fork would have broken copies. It belongs to the run's session, and the kernel kills it when rank 0 dies. When a
follower dies, rank 0 learns of it from the socket, and a thread ends rank 0 if it hangs in a collective nevertheless.

With one rank there is none of this: `shard` returns its argument, and every other method does nothing.
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

from engine.base.errors import InputError, OomKilled, OutOfMemory, RankLost, RunFailed, first_line
from engine.base.messages import msg
from engine.base.oom_kills import OomWatch
from engine.base.worker_process import signal_name, worker_environment
from engine.runs.journal import Journal, with_messages
from engine.settings.schema import RunConfig
from engine.worker.data.packing import TokenSet
from engine.worker.model.out_of_memory import is_out_of_memory
from engine.worker.runtime.checkpoint import Checkpoint
from engine.worker.train.rank_count import choose_rank_count

FOLLOWER = ("-P", "-m", "engine.worker.train.follower")
"""Arguments of the Python that is started for each rank but the first."""
_BUCKET_BYTES = 64 * 2**20
"""Small gradients are summed together in one buffer of this size; one as large as the buffer is summed in place."""
_GRACE_SECONDS = 10.0
"""For rank 0 to notice itself that a follower is gone, before its process is ended."""
_LEAVE_SECONDS = 5.0
_PEER_REPORT_SECONDS = 2.0
"""A follower whose collective fails because another rank is gone waits so long, so that rank 0 learns of that first."""
_ERRORS: dict[str, type[RunFailed]] = {"out-of-memory": OutOfMemory, "oom-killer": OomKilled}
_PATIENCE = timedelta(days=7)
"""Timeout of a collective. A rank that is gone is noticed in other ways, and a slow one is no failure."""


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
    """One optimizer step; sent again when it is repeated."""

    number: int
    indices: np.ndarray
    """int64: the step's examples, all ranks'."""
    micro_tokens: int
    rate: float
    activation_checkpointing: bool


@dataclass
class _Follower:
    rank: int
    process: subprocess.Popen
    channel: Connection
    last_words: BinaryIO
    """Its failure as JSON, if it can report one; end of file when it is gone, for whatever reason."""


@dataclass
class Ranks:
    """This process among those that train the run. Rank 0 calls `start` first; then every rank calls the methods in
    the order they are defined in."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    store: int = -1
    """Descriptor of the memory file through which the ranks find each other. It stays open as long as the process
    lives: torch writes to it when it destroys the process group, and by then its number could be another file's."""
    _began: float = field(default_factory=time.monotonic)
    _seed: int = 0
    _folder: Path = Path()
    _channel: Connection | None = None
    _followers: list[_Follower] = field(default_factory=list)
    _bucket: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    _lost: dict[str, str] = field(default_factory=dict)
    _rank_lost: threading.Event = field(default_factory=threading.Event)
    _leaving: threading.Event = field(default_factory=threading.Event)
    _oom: OomWatch = field(default_factory=OomWatch)

    @staticmethod
    def as_follower(rank: int, count: int, device: torch.device, store: int, channel: Connection) -> "Ranks":
        """This process as one of the ranks beside rank 0, connected to it by `channel`."""
        return Ranks(rank, count, device, store, _channel=channel)

    # -- the same on every rank ----------------------------------------------------------------------------------

    def connect(self, parameters: list[nn.Parameter], seed: int) -> None:
        """Wait until every rank has loaded its model, and connect. Allocates the buffer of `sum_gradients` for good."""
        self._seed = seed
        if self.count == 1:
            return
        self._exchange("loaded")
        # All ranks are of this machine. Left to choose, gloo may take an interface that leads nowhere.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
        own_gpu = self.device.type == "cuda" and self.count <= torch.cuda.device_count()
        with self._naming_lost_rank():
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
            dist.all_reduce(self._bucket[:8])  # NCCL allocates its own memory at the first collective

    def broadcast(self, parameters: list[nn.Parameter]) -> None:
        """Copy rank 0's weights to every rank."""
        if self.count == 1:
            return
        self._send("broadcast")
        with torch.no_grad(), self._naming_lost_rank():
            for parameter in parameters:
                dist.broadcast(parameter.data, 0)

    def begin_step(self, step: Step) -> None:
        """Send the step to the followers. From here on each rank draws its own random numbers of this step."""
        if self.count > 1:
            self._send(step)
            self._seed_step(step.number)

    def shard(self, indices: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """This rank's examples of a step, int64: longest first, each to the rank with the fewest tokens (Graham 1969).

        `indices`, `lengths`: int64, the step's examples and the tokens of every example of the set.
        """
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
        """Out of memory on one rank is raised on all: its own error there, and one that names the rank elsewhere."""
        failure = None
        try:
            yield
        except Exception as error:
            if self.count == 1 or not is_out_of_memory(error):
                raise
            failure = error
        if self.count == 1:
            return
        failures = self._exchange(first_line(failure) if failure else None)
        for rank, text in enumerate(failures):
            if text is not None:
                raise failure or torch.OutOfMemoryError(f"rank {rank}: {text}")

    def sum_gradients(self, parameters: list[nn.Parameter], loss: Tensor) -> None:
        """Replace gradients and loss (a scalar) on every rank by their sums, equal to the bit on all.

        A parameter that no rank has a gradient for, such as an expert that no token reached, is left without.
        """
        if self.count == 1:
            return
        has_gradient = self._exchange(bytes(p.grad is not None for p in parameters))
        used = [p for p, ranks in zip(parameters, zip(*has_gradient, strict=True), strict=True) if any(ranks)]
        gradients: list[Tensor] = []
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        small: dict[torch.dtype, list[Tensor]] = {loss.dtype: [loss]}
        with torch.no_grad(), self._naming_lost_rank():
            for gradient in gradients:
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
        """RunFailed when the ranks' weights differ: nothing trained from there on would be right."""
        if self.count == 1:
            return
        self._send("verify")
        mine = float(sum(p.detach().sum(dtype=torch.float64) for p in parameters))
        sums = self._exchange(mine)
        # Not to the last bit, since GPUs of different kinds add in a different order.
        if max(sums) - min(sums) > 1e-6 * max(1.0, *map(abs, sums)):
            raise RunFailed(
                "the weights on the ranks have come to differ, which they never should",
                "Resume from a checkpoint before this one, or train on one GPU (run.gpu_count=1).",
            )

    def _seed_step(self, step: int) -> None:
        import random

        seed = int(np.random.SeedSequence([self._seed, self.rank, step]).generate_state(1, np.uint64)[0])
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)

    def _exchange(self, mine: Any) -> list[Any]:
        """Every rank's `mine`, by rank; the same list on all of them (an all-gather over the sockets)."""
        with self._naming_lost_rank():
            if self._channel is not None:
                self._channel.send(mine)
                return self._channel.recv()
            gathered = [mine, *(follower.channel.recv() for follower in self._followers)]
            for follower in self._followers:
                follower.channel.send(gathered)
            return gathered

    # -- followers -----------------------------------------------------------------------------------------------

    def receive(self) -> Begin | Step | str | None:
        """The next order, on a follower; None when there is nothing more to do."""
        if self._channel is None:
            return None
        try:
            order = self._channel.recv()
        except (EOFError, OSError):
            return None
        if isinstance(order, Step):
            self._seed_step(order.number)
        return order

    def leave(self) -> None:
        """Disconnect from the other ranks."""
        if dist.is_initialized():
            dist.destroy_process_group()

    # -- rank 0 --------------------------------------------------------------------------------------------------

    def start(self, folder: Path, config: RunConfig, device: torch.device) -> str:
        """Start the run's followers; they load their libraries meanwhile. Returns a note where there are fewer GPUs
        than requested, or an empty string. Raises InputError where several ranks cannot run."""
        self.count, complaint = choose_rank_count(config, device)
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
        self._send(begin)

    def _send(self, order: Begin | Step | str) -> None:
        if self.rank == 0:
            with self._naming_lost_rank():
                for follower in self._followers:
                    follower.channel.send(order)

    @contextlib.contextmanager
    def _naming_lost_rank(self) -> Iterator[None]:
        """Whatever goes wrong between the ranks: if one of them is gone, that is the error to raise."""
        try:
            yield
        except Exception:
            if self.rank == 0 and self._rank_lost.wait(_LEAVE_SECONDS):
                kind = _ERRORS.get(self._lost["cause"], RankLost)
                raise kind(self._lost["reason"], self._lost["hint"]) from None
            if self.rank:
                time.sleep(_PEER_REPORT_SECONDS)
            raise

    def _watch(self, follower: _Follower) -> None:
        """Wait, in a thread of its own, until the follower is gone."""
        last_words = follower.last_words.read()
        status = follower.process.wait()
        if self._leaving.is_set():
            return
        self._lost = self._lost or _exit_reason(follower, last_words, status, self._oom)
        self._rank_lost.set()
        if not self._leaving.wait(_GRACE_SECONDS):
            with contextlib.suppress(OSError):
                seconds = round(time.monotonic() - self._began, 1)
                Journal(self._folder).write("state", state="failed", **self._lost, seconds=seconds)
            print(self._lost["reason"], file=sys.stderr, flush=True)
            os._exit(1)  # the other followers die with this process

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        """Let the followers exit, or kill them; returns when they are gone, and with them the lock they share."""
        self._leaving.set()
        if error is None:
            with contextlib.suppress(OSError, RunFailed):
                self._send("leave")
        for follower in self._followers:
            follower.channel.close()
        # NCCL wants all ranks to leave at once. After an error there may be no other rank: the end of the process
        # frees what it holds.
        if self._followers and dist.is_initialized() and (error is None or dist.get_backend() == "gloo"):
            dist.destroy_process_group()
        for follower in self._followers:
            try:
                follower.process.wait(_LEAVE_SECONDS if error is None else 0.5)
            except subprocess.TimeoutExpired:
                follower.process.kill()
                follower.process.wait()


def _exit_reason(follower: _Follower, last_words: bytes, status: int, oom: OomWatch) -> dict[str, str]:
    """Reason, hint and cause, as the journal has them."""
    rank = msg("rank {rank} (pid {pid})", rank=follower.rank, pid=follower.process.pid)
    with contextlib.suppress(ValueError):
        reported = with_messages(json.loads(last_words))
        cause = "out-of-memory" if reported["cause"] == "out-of-memory" else "failed"
        reason = msg("{rank} failed: {reason}", rank=rank, reason=reported["reason"])
        return {"reason": reason, "hint": reported["hint"], "cause": cause}
    reason, hint = msg("{rank} ended with code {status}", rank=rank, status=status), "The log may hold more."
    if status < 0:
        reason = msg(
            "{rank} was killed by signal {signal} ({signal_name})",
            rank=rank,
            signal=-status,
            signal_name=signal_name(-status),
        )
    if status == -signal.SIGKILL and (ran_out := oom.verdict()):
        reason = msg("out of memory ({ran_out}): the kernel's OOM killer ended {rank}", ran_out=ran_out, rank=rank)
        hint = "Each rank loads the libraries and the data: fewer of them, by --set run.gpu_count=N, take less."
        return {"reason": reason, "hint": hint, "cause": "oom-killer"}
    return {"reason": reason, "hint": oom.hint(status) or hint, "cause": "failed"}
