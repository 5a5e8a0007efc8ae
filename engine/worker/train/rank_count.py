"""How many processes train a run together, and what to say where that is another number than before."""

import os

import torch

from engine.base.messages import msg, msg_n
from engine.settings.schema import RunConfig

RANKS = "FINETOP_RANKS"
"""Environment variable: the number of ranks, overriding settings and machine. For tests on a machine without GPUs."""


def choose_rank_count(config: RunConfig, device: torch.device) -> tuple[int, str]:
    """How many ranks a run has here, and a note where that is fewer than it asks for."""
    forced = os.environ.get(RANKS, "")
    if forced.isdecimal() and int(forced) > 0:
        return int(forced), ""
    if device.type != "cuda":
        return 1, ""
    requested, visible = config.run.gpus_wanted, torch.cuda.device_count()
    if requested > visible:
        return visible, msg(
            "The run asks for {requested} GPUs; {visible} can be seen here, and it goes on with {visible}.",
            requested=requested,
            visible=visible,
        )
    return max(1, requested), ""


def ranks_changed(saved_count: int, count: int) -> str:
    """What to say when a run goes on with another number of ranks than its checkpoint was made with."""
    made_by = msg_n("made by {n} rank", "made by {n} ranks", saved_count)
    going_on = msg_n("{n} goes on", "{n} go on", count)
    return msg(
        "The checkpoint was {made_by}, {going_on}: sums are rounded otherwise, and dropout draws other masks. "
        "Nothing else changes.",
        made_by=made_by,
        going_on=going_on,
    )
