"""What libraries read when they are loaded. Must be set before torch is imported."""

import logging
import os
import warnings


def set_environment() -> None:
    """What libraries read when they are loaded, and what they need not say."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if "OMP_WAIT_POLICY" not in os.environ:
        # GNU OpenMP's threads spin for milliseconds at each barrier; where another program wants the core, two runs
        # side by side then crawl. 10,000 turns are some 30 us: a twentieth slower on a quiet machine.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # the name before torch 2.9
        # Every step has another number of tokens, and blocks of one size serve no other: without it a LoRA run of 7B
        # came to hold all 150 GB of an H200, several times its tensors, and left nothing to a run beside it.
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    _quieten()


def _quieten() -> None:
    """Keep two warnings out of the logs of all runs: libraries talk to each other there, and nobody can act on it."""
    # peft 0.21 asks transformers 5 by the old name.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    # bitsandbytes looks for a faster CPU kernel when it is imported, in a package that it does not require.
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
        lambda record: not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")
    )
