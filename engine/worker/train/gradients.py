"""One optimizer step's gradients, in as many passes as its examples need, on one rank or several."""

import math

import numpy as np
import torch
from torch import nn

from engine.settings.schema import RunConfig
from engine.worker.data.packing import TokenSet, make_pack, plan_passes
from engine.worker.model.load import Precision
from engine.worker.model.loss import PackedLoss, UnpackedLoss
from engine.worker.train.data_parallel import Ranks


def forward_backward(
    loss_fn: PackedLoss | UnpackedLoss,
    tokens: TokenSet,
    indices: np.ndarray,
    micro_tokens: int,
    parameters: list[nn.Parameter],
    config: RunConfig,
    precision: Precision,
    ranks: Ranks,
) -> tuple[float, float]:
    """Gradients of one optimizer step: the loss per supervised token of the step, and the norm before clipping.

    `indices`: int64, the step's examples, all ranks'. Each rank makes the passes of its own shard; the sums, and what
    is raised, are then the same on all.
    """
    label_tokens = int(tokens.label_tokens[indices].sum())
    total = torch.zeros((), device=precision.device)
    with ranks.sync_oom():
        for group in plan_passes(ranks.shard(indices, tokens.lengths), tokens.lengths, micro_tokens):
            pack = make_pack(tokens, group).to(precision.device)
            with precision.context():
                total += loss_fn.backward(pack, label_tokens)
    ranks.sum_gradients(parameters, total)
    with ranks.sync_oom():
        limit = config.optim.grad_clip or math.inf
        norm = nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
        # One wait for the device.
        loss, grad_norm = torch.stack([total / label_tokens, norm.to(total.dtype)]).tolist()
    return loss, grad_norm
