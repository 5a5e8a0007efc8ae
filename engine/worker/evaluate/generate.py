"""Answers in batches: greedy, or drawn with a seed.

Prompts are read packed end to end without padding; answers are written side by side, each leaving the batch when it is
done and the next prompts taking its rows (`KVCache`). Models that finetop's packed attention does not suit go in
batches of equally long prompts, where nothing is padded either.
"""

import inspect
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from engine.models.device_limits import ANSWER_CACHE_BYTES, PREFILL_TOKENS
from engine.worker.evaluate.kv_cache import KVCache, columns
from engine.worker.model import attention
from engine.worker.model.load import Precision, table_positions
from engine.worker.model.out_of_memory import is_out_of_memory
from engine.worker.runtime.memory_fit import give_back_memory

_GPU_CACHE_SHARE = 0.4
"""Share of the free memory that keys and values may take."""
_MOST_ROWS = {"cpu": 64, "cuda": 256}
"""More answers in one batch gain nothing."""
_REFILL_SHARE = 4
"""New prompts are read when this part of the rows is free: fewer at a time would read the weights for little."""


@dataclass(frozen=True)
class Sampling:
    """How answers are generated."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    """0: the most likely token each time."""
    seed: int = 0


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seen: Iterable[int] = ()) -> set[int]:
    """Every token that ends an answer: those `seen` at the end of turns (`ChatTemplate.stop_token_ids`), the
    tokenizer's, and those of the generation config."""
    configured = model.generation_config.eos_token_id
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id, *seen}
    return ids - {None}


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    stop: set[int],
    sampling: Sampling,
    precision: Precision,
    packed: bool,
    progress: Callable[[int], None] = lambda done: None,
) -> list[list[int]]:
    """The continuation of each prompt without its stop token, in the order of the prompts.

    `packed`: the model's loss is right on packed examples (`choose_loss`). `progress` gets the number of answers that
    are done. Out of memory, it goes on with half as many answers in a batch. The draw for a prompt depends only on the
    seed and its index among the prompts, not on the batch.
    """
    writing = Writing(model, prompts, stop, sampling, precision, progress)
    write_all(writing, packed)
    return writing.answers


@torch.no_grad()
def write_all(writing: "Writing", packed: bool) -> None:
    """Until all answers are written; out of memory, with half as many at a time."""
    rows_limit = _MOST_ROWS.get(writing.precision.device.type, 64)
    while todo := writing.todo():
        try:
            if packed:
                writing.write_packed(todo, rows_limit)
            else:
                writing.write_plain(todo, rows_limit)
        except Exception as error:
            if not is_out_of_memory(error) or rows_limit == 1:
                raise
        else:
            continue
        rows_limit = max(1, min(rows_limit, len(todo), writing.most_rows) // 2)
        give_back_memory()


@dataclass
class Writing:
    """The prompts of one call, and what has been written so far."""

    model: PreTrainedModel
    prompts: Sequence[list[int]]
    stop: set[int]
    sampling: Sampling
    precision: Precision
    progress: Callable[[int], None]
    answers: list[list[int]] = field(init=False)
    most_rows: int = 1
    """Rows of the batch last begun."""
    most_cache_bytes: int | None = None
    """Keys and values may take no more, whatever is free."""

    def __post_init__(self) -> None:
        self.answers = [[] for _ in self.prompts]
        # Where positions are looked up in a table, an answer ends with it, and a prompt that fills it gets none.
        most, limit = self.sampling.max_new_tokens, table_positions(self.model)
        self.room = [most if limit is None else min(most, limit - len(prompt)) for prompt in self.prompts]
        self.done = [room <= 0 for room in self.room]
        self._draws: dict[int, torch.Generator] = {}

    def todo(self) -> list[int]:
        """Prompts without a whole answer, longest first, so that what may not fit is tried first."""
        left = [i for i, done in enumerate(self.done) if not done]
        for i in left:
            self.answers[i].clear()
            self._draws.pop(i, None)
        return sorted(left, key=lambda i: -len(self.prompts[i]))

    def write_packed(self, todo: list[int], rows_limit: int) -> None:
        """The first of `todo`: as many as are alike enough in length to share buffers."""
        new, cache_tokens = self.sampling.max_new_tokens, self._cache_tokens()

        def fitting(index: int) -> int:
            return max(1, min(rows_limit, cache_tokens // columns(len(self.prompts[index]), new)))

        capacity = fitting(todo[0])
        group = list(itertools.takewhile(lambda i: fitting(i) < 2 * capacity, todo))
        self.most_rows = capacity = min(capacity, len(group))
        cache = KVCache(capacity, len(self.prompts[group[0]]), new)
        live: list[int] = []
        next_tokens: list[int] = []
        waiting = 0
        while waiting < len(group) or live:
            free_rows = capacity - len(live)
            left = len(group) - waiting
            if left and free_rows >= min(left, max(1, capacity // _REFILL_SHARE)):
                joined = self._take(group[waiting : waiting + free_rows])
                waiting += len(joined)
                untouched = len(live)
                next_tokens += self._read(joined, cache)
                live += joined
            else:
                with self.precision.context():
                    logits = self.model(
                        input_ids=torch.tensor(next_tokens, device=self.precision.device)[:, None],
                        attention_mask=cache.mask(),
                        position_ids=cache.positions(),
                        past_key_values=cache,
                        use_cache=True,
                    ).logits[:, -1]
                cache.advance()
                untouched = 0
                next_tokens = self.choose(logits, live)
            going = set(self.accept(live[untouched:], next_tokens[untouched:]))
            kept = [row for row, i in enumerate(live) if row < untouched or i in going]
            if len(kept) < len(live):
                order = cache.keep(kept)
                live, next_tokens = [live[row] for row in order], [next_tokens[row] for row in order]

    def _take(self, candidates: list[int]) -> list[int]:
        """The first of them, as many as one pass may read."""
        total = itertools.accumulate(len(self.prompts[i]) for i in candidates)
        return candidates[: max(1, sum(tokens <= PREFILL_TOKENS for tokens in total))]

    def _read(self, joined: list[int], cache: KVCache) -> list[int]:
        """Read prompts end to end, add them to the cache, and choose the first token of each answer."""
        prompts = [self.prompts[i] for i in joined]
        lengths = [len(prompt) for prompt in prompts]
        device = self.precision.device
        prefilled = DynamicCache()
        with attention.packed(lengths), self.precision.context():
            logits = self.model(
                input_ids=torch.tensor([list(itertools.chain(*prompts))], device=device),
                position_ids=torch.cat([torch.arange(length) for length in lengths])[None].to(device),
                past_key_values=prefilled,
                use_cache=True,
                logits_to_keep=(torch.tensor(lengths).cumsum(0) - 1).to(device),
            ).logits[0]
        cache.join(prefilled, lengths)
        return self.choose(logits, joined)

    def write_plain(self, todo: list[int], rows_limit: int) -> None:
        """The first of `todo`: prompts of one length, all kept until the last of them is done."""
        length = len(self.prompts[todo[0]])
        capacity = max(1, min(rows_limit, self._cache_tokens() // (length + self.sampling.max_new_tokens)))
        live = [i for i in todo if len(self.prompts[i]) == length][:capacity]
        self.most_rows = len(live)
        device = self.precision.device
        ids = torch.tensor([self.prompts[i] for i in live], device=device)
        # State space models call it otherwise.
        cache_argument = (
            "cache_params" if "cache_params" in inspect.signature(self.model.forward).parameters else "past_key_values"
        )
        cache = {cache_argument: DynamicCache(config=self.model.config)}
        going = set(live)
        while going:
            with self.precision.context():
                logits = self.model(input_ids=ids, **cache, use_cache=True, logits_to_keep=1).logits
            tokens = self.choose(logits[:, -1], live)
            unfinished = [(i, token) for i, token in zip(live, tokens, strict=True) if i in going]
            going = set(self.accept(*map(list, zip(*unfinished, strict=True))))
            ids = torch.tensor(tokens, device=device)[:, None]

    def accept(self, rows: Sequence[int], tokens: Sequence[int]) -> list[int]:
        """Write down the next token of each of these prompts; returns the ones whose answer goes on."""
        going = []
        for i, token in zip(rows, tokens, strict=True):
            if token not in self.stop:
                self.answers[i].append(token)
                if len(self.answers[i]) < self.room[i]:
                    going.append(i)
                    continue
            self.done[i] = True
        if len(going) < len(rows):
            self.progress(sum(self.done))
        return going

    def choose(self, logits: Tensor, rows: Sequence[int]) -> list[int]:
        """The next token of each row: the likeliest, or one drawn by the Gumbel-max trick (Gumbel 1954): the largest of
        logits / temperature - log E, E exponential, is distributed as the softmax has it."""
        logits = logits.float()
        if self.sampling.temperature:
            noise = torch.stack([self._noise(i, logits.shape[-1]) for i in rows]).to(logits.device)
            logits = logits / self.sampling.temperature - noise.log()
        return logits.argmax(-1).tolist()

    def _noise(self, index: int, size: int) -> Tensor:
        if index not in self._draws:
            seed = int(np.random.SeedSequence([self.sampling.seed, index]).generate_state(1, np.uint64)[0])
            self._draws[index] = torch.Generator().manual_seed(seed)
        return torch.empty(size).exponential_(generator=self._draws[index])

    def _cache_tokens(self) -> int:
        """How many tokens' keys and values there is memory for."""
        config = self.model.config.get_text_config()
        all_heads = getattr(config, "num_attention_heads", None) or 1  # a state space model has none
        heads = getattr(config, "num_key_value_heads", None) or all_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // all_heads
        bytes_each = 4 if self.precision.autocast is None else 2
        budget: float = ANSWER_CACHE_BYTES["cpu"]
        if self.precision.device.type == "cuda":
            device = self.precision.device
            unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            budget = _GPU_CACHE_SHARE * (torch.cuda.mem_get_info(device)[0] + unused)
        if self.most_cache_bytes is not None:
            budget = min(budget, self.most_cache_bytes)
        return int(budget // (2 * config.num_hidden_layers * heads * head_dim * bytes_each))
