"""eval: how fast does evaluation write answers, and are they the right ones?

Proves: tokens per second that finetop's generation writes on this card beside `generate` of transformers at its best
batch size, prompts sorted by length (bench/eval_throughput.py); in float32, that both write the same answers.
ok: not slower than transformers' best, both for answers of different lengths and for equally long ones; nine in ten
answers equal, token by token, to those of `generate` one by one (with random weights the likeliest tokens are close to
each other, so that rounding parts a few). Fell short: otherwise.
"""

import statistics
from typing import Any

from gpu.findings import Findings, Measurement
from gpu.kit import Kit

EQUAL = 0.9
ROWS, NEW, SIZES = 256, 96, (64, 256)


def measurements() -> list[Measurement]:
    return [
        Measurement("same answers", 24, same_answers),
        Measurement("1.5b", 55, lambda kit: beside_generate(kit, "1.5b")),
    ]


def beside_generate(kit: Kit, model: str) -> Findings:
    import eval_throughput as bench

    findings = Findings()
    rows, new, sizes = (16, 8, (8,)) if kit.tiny else (ROWS, NEW, SIZES)
    options = bench.arguments(["--size", kit.shape(model), "--rows", str(rows), "--new", str(new), "--repeats", "1"])
    engines = bench.Engines(options)
    engines.warm_up()
    for kind, stop in (("varied", engines.stops), ("equally long", set())):
        racing = engines.all(stop, list(sizes))
        rates, _ = bench.race(racing, options)
        judge(findings, kind, rates)
    return findings


def judge(findings: Findings, kind: str, rates: dict[str, list[float]]) -> None:
    """Tokens per second of each engine in each round."""
    medians = {name: statistics.median(seen) for name, seen in rates.items()}
    ours = medians.pop("finetop")
    best = max(medians, key=medians.__getitem__)
    findings.figure(f"{kind}, finetop", ours, "tokens/s")
    findings.figure(f"{kind}, {best}", medians[best], "tokens/s")
    findings.at_least(f"{kind}: finetop beside transformers' best", ours / medians[best], 1.0)


def same_answers(kit: Kit) -> Findings:
    import eval_throughput as bench
    import torch

    findings = Findings()
    rows, new = (8, 8) if kit.tiny else (24, 32)
    options = bench.arguments(["--size", kit.shape("0.5b"), "--rows", str(rows), "--new", str(new), "--repeats", "1"])
    engines = bench.Engines(options, torch.float32)
    writing = engines.all(engines.stops, [1])
    judge_answers(findings, writing["finetop"](), writing["generate, batch 1"]())
    return findings


def judge_answers(findings: Findings, ours: list[Any], expected: list[Any]) -> None:
    equal = sum(one == other for one, other in zip(ours, expected, strict=True)) / len(expected)
    findings.figure("equal answers", equal, "%")
    findings.at_least("share of equal answers", equal, EQUAL)
    findings.at_least("different answers among them", len({tuple(answer) for answer in expected}), 2)
