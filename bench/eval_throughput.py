"""Generated tokens per second: finetop's evaluation against plain loops over transformers' `generate`.

    python bench/eval_throughput.py                       20M-parameter Qwen2 on this machine
    python bench/eval_throughput.py --model Qwen/Qwen2.5-0.5B-Instruct --prompts questions.jsonl
    python bench/eval_throughput.py --rows 24 --new 16 --batch-sizes 1,8 --repeats 1        a smoke test

Every engine gets the same weights, prompts, threads and stop tokens, answers greedily, and is timed around the whole
set. `generate` is run at batch 1 and at each of --batch-sizes, padded on the left: once with the prompts as they come,
as a plain loop has them, and once sorted by length, which is the most a careful user does. Its best counts.

Two kinds of answers, since they are two different races:
    varied   answers end at a stop token, at different lengths, as real ones do: padding and rows that have ended are
             what a batch wastes
    full     nobody stops before --new tokens: only the cost of a step counts

With random weights the stop tokens are chosen so that lengths vary: for each prompt, the token its answer has at a
log-normal position. Weights are scaled up, since fresh ones repeat one token endlessly. A row of the table says how
many answers are equal to finetop's, token by token: a batch that is padded rounds differently, so a few may part.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from fixture import SIZES, random_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from engine.worker.evaluate.generate import Sampling, generate, stop_tokens
from engine.worker.model import attention
from engine.worker.model.fast_layers import use_fast_layers
from engine.worker.model.load import Precision, pick_device

Answers = list[list[int]]


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="20m-tied", help="shape of the random model")
    parser.add_argument("--model", help="folder or hub name of a real model instead")
    parser.add_argument("--prompts", type=Path, help="with --model: JSON lines with messages, or texts, one a line")
    parser.add_argument("--rows", type=int, default=192, help="prompts")
    parser.add_argument("--new", type=int, default=96, help="longest answer, in tokens")
    parser.add_argument("--batch-sizes", default="4,8,16,32,64", help="of generate, beside 1")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; engines take turns, the median counts")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument("--out", type=Path, help="append the figures as JSON lines")
    return parser.parse_args(words)


def main() -> None:
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    engines = Engines(options)
    prompts = engines.prompts
    print(f"{len(prompts)} prompts of {min(map(len, prompts))} to {max(map(len, prompts))} tokens, {engines.device}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}")  # fmt: skip
    sizes = [1, *(int(size) for size in options.batch_sizes.split(","))]
    for kind, stop in (("varied", engines.stops), ("full", set())):
        rates, answers = race(engines.all(stop, sizes), options)
        report(kind, rates, answers, options)


class Engines:
    """finetop's generation and transformers' own, on equal weights and prompts."""

    def __init__(self, options: argparse.Namespace, dtype: torch.dtype | None = None) -> None:
        self.options, self.device = options, pick_device()
        dtype = dtype or (torch.bfloat16 if self.device.type == "cuda" else torch.float32)
        self._precision = Precision(self.device, None, dtype)
        self._ours, self._theirs = (
            load(options, name, dtype).to(self.device).eval() for name in (attention.NAME, "sdpa")
        )
        use_fast_layers(self._ours)
        self.prompts, self.stops = read(options, self._ours, self._precision)

    def warm_up(self) -> None:
        """A few tokens from each: on a GPU the first call of a kernel loads it, and memory is taken."""
        generate(self._ours, self.prompts[:8], set(), Sampling(4), self._precision, True)
        plain(self._theirs, self.prompts[:8], set(), 4, 8)

    def all(self, stop: set[int], sizes: list[int]) -> dict[str, Callable[[], Answers]]:
        """By name, finetop first: what writes the answers to all prompts."""
        new = self.options.new
        made: dict[str, Callable[[], Answers]] = {
            "finetop": lambda: generate(self._ours, self.prompts, stop, Sampling(new), self._precision, True)
        }
        for size in sizes:
            made[f"generate, batch {size}"] = lambda s=size: plain(self._theirs, self.prompts, stop, new, s)
            if size > 1:
                made[f"generate, batch {size}, sorted"] = lambda s=size: plain(
                    self._theirs, self.prompts, stop, new, s, by_length=True
                )
        return made


def load(options: argparse.Namespace, implementation: str, dtype: torch.dtype) -> torch.nn.Module:
    attention.register()
    if options.model:
        return AutoModelForCausalLM.from_pretrained(options.model, attn_implementation=implementation, dtype=dtype)
    shape = {key: value for key, value in SIZES[options.size].items() if key != "dtype"}
    shape = {"model_type": "qwen2"} | shape | {"max_position_embeddings": 4096}
    config = AutoConfig.for_model(**shape, bos_token_id=None, eos_token_id=None)
    model = random_model(config, torch.float32, attn_implementation=implementation)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:
                parameter.mul_(6)
    return model.to(dtype)


def read(options: argparse.Namespace, model: torch.nn.Module, precision: Precision) -> tuple[Answers, set[int]]:
    """Prompts as token ids, and the stop tokens."""
    draw = random.Random(0)
    if options.model:
        tokenizer = AutoTokenizer.from_pretrained(options.model)
        rows = [json.loads(line) for line in options.prompts.read_text("utf-8").splitlines() if line.strip()]
        chats = [row["messages"] if isinstance(row, dict) else [{"role": "user", "content": row}] for row in rows]
        chats = [messages[:-1] if messages[-1]["role"] == "assistant" else messages for messages in chats]
        texts = [
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            for messages in chats[: options.rows]
        ]
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts], stop_tokens(model, tokenizer)
    vocabulary = model.config.vocab_size
    lengths = [min(400, 8 + int(draw.lognormvariate(3.6, 0.7))) for _ in range(options.rows)]
    prompts = [[draw.randrange(3, vocabulary) for _ in range(length)] for length in lengths]
    free = generate(model, prompts, set(), Sampling(options.new), precision, True)
    ends = [min(options.new - 1, int(draw.lognormvariate(3.4, 0.8))) for _ in prompts]
    return prompts, {answer[end] for answer, end in zip(free, ends, strict=True)}


@torch.no_grad()
def plain(
    model: torch.nn.Module, prompts: Answers, stop: set[int], new: int, size: int, by_length: bool = False
) -> Answers:
    """transformers' own loop over batches."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i])) if by_length else list(range(len(prompts)))
    answers: Answers = [[] for _ in prompts]
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        width = max(len(prompts[i]) for i in batch)
        ids = torch.tensor([[0] * (width - len(prompts[i])) + prompts[i] for i in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in batch])
        written = model.generate(
            ids,
            attention_mask=mask.to(model.device),
            max_new_tokens=new,
            do_sample=False,
            eos_token_id=sorted(stop) or None,
            pad_token_id=0,
        )[:, width:].tolist()
        for i, row in zip(batch, written, strict=True):
            end = next((at for at, token in enumerate(row) if token in stop), len(row))
            answers[i] = row[:end]
    return answers


def race(
    engines: dict[str, Callable[[], Answers]], options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, Answers]]:
    """Tokens per second of each engine in each round, and the answers of the last."""
    rates: dict[str, list[float]] = {name: [] for name in engines}
    answers: dict[str, Answers] = {}
    for _ in range(options.repeats):
        for name, run in engines.items():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            began = time.perf_counter()
            answers[name] = run()
            took = time.perf_counter() - began
            # Stop tokens are generated too, and counted; what generate computes for rows that have ended is not.
            rates[name].append(sum(min(len(answer) + 1, options.new) for answer in answers["finetop"]) / took)
    return rates, answers


def report(kind: str, rates: dict[str, list[float]], answers: dict[str, Answers], options: argparse.Namespace) -> None:
    lengths = sorted(map(len, answers["finetop"]))
    quarter = len(lengths) // 4
    print(f"\n{kind}: answers of {lengths[0]} to {lengths[-1]} tokens, half of them {lengths[quarter]} to "
          f"{lengths[-quarter - 1]}\n\n  {'':<28}{'tokens/s':>10}{'equal':>8}{'finetop is':>13}")  # fmt: skip
    rate = {name: statistics.median(found) for name, found in rates.items()}
    best = max((name for name in rate if name != "finetop"), key=rate.__getitem__)
    for name in rates:
        same = sum(a == b for a, b in zip(answers[name], answers["finetop"], strict=True))
        times = "" if name == "finetop" else f"{rate['finetop'] / rate[name]:.2f}x"
        print(f"  {name:<28}{rate[name]:>10,.0f}{same:>8}{times:>13}{'  its best' if name == best else ''}")
    if options.out:
        with open(options.out, "a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "rates": rates, "options": vars(options)}, default=str) + "\n")


if __name__ == "__main__":
    main()
