"""What a rented card is asked, stage by stage. `bench/gpu_kit.py` is the door; docs/gpu.md says how to use it.

A stage is one module here, named in `STAGES`: its docstring says what it proves, what counts as ok and what as fallen
short, and `measurements()` lists what it takes, each with the seconds it needs on a card of an H100's kind. What a
measurement finds is kept as soon as it is there (`records`), so a command that ends goes on in the next one.
"""

import importlib

from gpu.findings import Measurement

STAGES = ("smoke", "monitor", "train", "qlora", "estimate", "oom", "speed", "warm", "eval", "serve", "energy")
"""In the order of what they tell most: what fails in one makes those after it worth less."""


def measurements(stage: str) -> list[Measurement]:
    return importlib.import_module(f"gpu.stages.{stage}").measurements()


def docstring(stage: str) -> str:
    return importlib.import_module(f"gpu.stages.{stage}").__doc__ or ""
