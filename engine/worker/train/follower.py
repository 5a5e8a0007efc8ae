"""`python -m engine.worker.train.follower`: one of the ranks beside rank 0; data_parallel.py says what they are to
each other.

It has rank 0's log, session and environment, writes nothing of its own, and executes rank 0's orders.
"""

import contextlib
import ctypes
import json
import math
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection

from engine.base.messages import records
from engine.worker.runtime.environment import set_environment

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Never returns: a follower exits at once, without waiting for any library's clean-up."""
    rank, count, parent, channel, failure_pipe, store = map(int, sys.argv[1:])
    for number in (signal.SIGTERM, signal.SIGINT):  # sent to the whole session; rank 0 decides
        signal.signal(number, signal.SIG_IGN)
    die_with(parent)
    code = 1
    try:
        set_environment()
        follow(rank, count, Connection(channel), store)
        code = 0
    except Exception as error:
        traceback.print_exc()
        from engine.worker.runtime.heartbeat import failure

        reported = failure(error)
        with contextlib.suppress(OSError):
            os.write(failure_pipe, json.dumps({**reported, "messages": records(reported)}).encode())
    finally:
        sys.stderr.flush()
        os._exit(code)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which started it, is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before prctl was called
        os._exit(1)


def follow(rank: int, count: int, channel: Connection, store: int) -> None:
    """Load the run and take part in its steps, until rank 0 has no more orders."""
    import torch

    from engine.worker.data.packing import make_pack
    from engine.worker.model.fast_layers import use_fast_layers
    from engine.worker.model.load import (
        causal_lm,
        choose_precision,
        enable_activation_checkpointing,
        load_base,
        make_trainable,
        pick_device,
    )
    from engine.worker.model.loss import LOSS_TOLERANCE, choose_loss
    from engine.worker.model.optimizer import make_optimizer, set_learning_rate
    from engine.worker.model.out_of_memory import is_out_of_memory
    from engine.worker.runtime.checkpoint import load_state
    from engine.worker.runtime.memory_fit import give_back_memory
    from engine.worker.runtime.resume_checks import probe_indices
    from engine.worker.runtime.torch_setup import set_up_torch
    from engine.worker.train.data_parallel import Begin, Ranks, Step
    from engine.worker.train.gradients import forward_backward

    device = pick_device(rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    ranks = Ranks.as_follower(rank, count, device, store, channel)
    begin = ranks.receive()
    if not isinstance(begin, Begin):
        return
    config, tokens = begin.config, begin.tokens
    set_up_torch(config, device, count)

    # The same model as rank 0's, by the same steps; its trained weights come with the order `broadcast`.
    torch.manual_seed(config.train.seed)
    precision = choose_precision(config, device)
    model = make_trainable(load_base(config, precision, begin.source), config)
    use_fast_layers(model)
    optimizer = make_optimizer(model, config.optim)
    lm = causal_lm(model)
    probe = make_pack(tokens, probe_indices(tokens)).to(device)
    model.eval()
    with precision.context():
        loss_fn, _ = choose_loss(lm, probe, config.model.attention, LOSS_TOLERANCE[precision.autocast])
    model.train()
    if begin.resumed:
        optimizer.load_state_dict(load_state(begin.resumed)["optimizer"])
    parameters = [p for p in model.parameters() if p.requires_grad]
    ranks.connect(parameters, config.train.seed)

    recomputing = False
    while (order := ranks.receive()) not in (None, "leave"):
        if order == "broadcast":
            ranks.broadcast(parameters)
        elif order == "verify":
            ranks.verify(parameters)
        elif isinstance(order, Step):
            if order.activation_checkpointing and not recomputing:
                enable_activation_checkpointing(lm)
                recomputing = True
            set_learning_rate(optimizer, order.rate)
            failed = False
            try:
                loss, norm = forward_backward(
                    loss_fn, tokens, order.indices, order.micro_tokens, parameters, config, precision, ranks
                )
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                failed = True  # on every rank: rank 0 orders the step again, in smaller passes
            if not failed and math.isfinite(loss) and math.isfinite(norm):  # else rank 0 ends the run
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if failed:
                give_back_memory()
    ranks.leave()


if __name__ == "__main__":
    main()
