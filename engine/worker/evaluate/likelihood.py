"""Classification by likelihood: of all labels, the one the model would most likely answer with.

A label's likelihood is that of its tokens and of the end of turn after them, so that a short label has no advantage
over a longer one that begins like it, and the likelihoods of all possible answers sum to one. All labels of a prompt
are scored in one pass: the prompt's tokens are followed by the tree of all label tokens (labels that begin alike share
them), and each token attends to the prompt and to those before it on its own branch (tree attention, Miao et al. 2023,
"SpecInfer", arXiv 2305.09781). So a prompt is read once, however many labels there are.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.base.errors import DataError
from engine.base.messages import msg
from engine.formats.examples import Example
from engine.worker.data.chat_template import ChatTemplate, Encoded
from engine.worker.data.packing import TokenSet, make_pack, plan_passes
from engine.worker.model.load import Precision, check_positions, table_positions
from engine.worker.model.loss import PackedLoss, UnpackedLoss
from engine.worker.model.out_of_memory import is_out_of_memory
from engine.worker.runtime.memory_fit import give_back_memory

_PASS_TOKENS = 1024
"""Tokens of one pass. More would gain little, and its mask grows with their square."""
_LOGITS_BYTES = 2**28
_SLIDING = ("sliding_attention", "chunked_attention")


_TOO_LONG = (
    "A question with each of the labels behind it has to fit, and data.max_length does not cut it: leave the longest "
    "questions out, or let the label be written (--classify generate; in training eval.classify=generate)."
)


@dataclass(frozen=True)
class Choice:
    """The likeliest label of a prompt."""

    label: str
    probability: float
    """Of this label among all of them."""


@torch.no_grad()
def choose_labels(
    loss_fn: PackedLoss | UnpackedLoss,
    template: ChatTemplate,
    prompts: Sequence[Example],
    labels: Sequence[str],
    precision: Precision,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Choice]:
    """The likeliest label of each prompt. Raises DataError where the chat template cannot take a label,
    ModelError where a label would stand beyond the model's last position.
    """
    likelihoods = np.full((len(prompts), len(labels)), -np.inf)
    encoded = [template.encode_prompt(prompt) for prompt in prompts]
    if prompts and table_positions(loss_fn.model) is not None:
        longest = max(range(len(prompts)), key=lambda i: len(encoded[i]))
        chats = _answered(template, prompts[longest], labels)
        check_positions(loss_fn.model, max(len(chat.ids) for chat in chats), _TOO_LONG)
    slow = list(range(len(prompts)))
    if isinstance(loss_fn, PackedLoss) and (shared := _shared_tails(template, prompts, encoded, labels)):
        tree = _Tree.of([tuple(tail) for tail in shared])
        fast = [i for i in slow if _window_reaches(loss_fn, len(encoded[i]) + tree.depth)]
        slow = sorted(set(slow) - set(fast))
        _score_label_tree(loss_fn, tree, encoded, fast, likelihoods, precision, progress)
    for done, i in enumerate(slow, len(prompts) - len(slow) + 1):
        likelihoods[i] = _by_loss(loss_fn, _answered(template, prompts[i], labels), precision)
        progress(done)
    best = likelihoods.argmax(axis=1)
    shares = np.exp(likelihoods - likelihoods.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return [Choice(labels[k], float(shares[i, k])) for i, k in enumerate(best)]


def _answered(template: ChatTemplate, prompt: Example, labels: Sequence[str]) -> list[Encoded]:
    answers = ({"role": "assistant", "content": label} for label in labels)
    chats = [Example(messages=(*prompt.messages, answer), tools=prompt.tools) for answer in answers]
    encoded: list[Encoded] = []
    for chat, label in zip(template.encode_chats(chats), labels, strict=True):
        if isinstance(chat, DataError):
            raise DataError(
                msg("the chat template cannot take the label '{label}': {message}", label=label, message=chat.message)
            )
        encoded.append(chat)
    return encoded


def _shared_tails(
    template: ChatTemplate, prompts: Sequence[Example], encoded: Sequence[list[int]], labels: Sequence[str]
) -> list[list[int]] | None:
    """What each label adds to any prompt, up to its end of turn; None where that depends on the prompt.

    Tried on the shortest and the longest prompt: a tokenizer that merges across the border, or a template that rewrites
    what was before, shows on any.
    """
    by_length = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
    shared = None
    for i in {by_length[0], by_length[len(prompts) // 2], by_length[-1]} if prompts else ():
        prompt_ids, tails = encoded[i], []
        for chat in _answered(template, prompts[i], labels):
            ids, label_at = chat.ids.tolist(), np.flatnonzero(chat.loss_mask)
            if (
                ids[: len(prompt_ids)] != prompt_ids
                or label_at[0] != len(prompt_ids)
                or not chat.loss_mask[len(prompt_ids) : label_at[-1]].all()
            ):
                return None
            tails.append(ids[len(prompt_ids) : label_at[-1] + 1])
        if shared is not None and tails != shared:
            return None
        shared = tails
    return shared


def _window_reaches(loss_fn: PackedLoss, tokens: int) -> bool:
    """Whether every layer attends that far back: the mask of the tree knows no sliding windows."""
    config = loss_fn.model.config.get_text_config()
    window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
    kinds = getattr(config, "layer_types", None)
    slides = kinds is None or any(kind in _SLIDING for kind in kinds)
    return window is None or not slides or tokens <= window


@dataclass(frozen=True)
class _Tree:
    """Label tokens without the last of each, which is only predicted. Node 0 is the prompt's last token."""

    tokens: list[int]
    """Of the nodes from 1 on."""
    depths: list[int]
    """Of the nodes from 1 on, the first being 1."""
    sees: np.ndarray
    """bool, (nodes - 1, nodes - 1): which nodes stand before a node on its branch, itself included."""
    reads: list[list[tuple[int, int]]]
    """For each label: at which node which token is predicted."""

    @property
    def depth(self) -> int:
        return max(self.depths, default=0)

    @staticmethod
    def of(tails: Sequence[tuple[int, ...]]) -> "_Tree":
        nodes: dict[tuple[int, ...], int] = {(): 0}
        for tail in tails:
            for end in range(1, len(tail)):
                nodes.setdefault(tail[:end], len(nodes))
        paths = list(nodes)[1:]
        sees = np.zeros((len(paths), len(paths)), dtype=bool)
        for row, path in enumerate(paths):
            sees[row, [nodes[path[:end]] - 1 for end in range(1, len(path) + 1)]] = True
        reads = [[(nodes[tail[:end]], tail[end]) for end in range(len(tail))] for tail in tails]
        return _Tree([path[-1] for path in paths], [len(path) for path in paths], sees, reads)


def _score_label_tree(
    loss_fn: PackedLoss,
    tree: _Tree,
    encoded: Sequence[list[int]],
    chosen: list[int],
    likelihoods: np.ndarray,
    precision: Precision,
    progress: Callable[[int], None],
) -> None:
    """Fill the rows `chosen` of `likelihoods`, in batches that fit the memory."""
    vocabulary = loss_fn.model.config.get_text_config().vocab_size
    rows_limit = max(1, _LOGITS_BYTES // (4 * vocabulary * (1 + len(tree.tokens))))
    left, limit, done = sorted(chosen, key=lambda i: -len(encoded[i])), _PASS_TOKENS, 0
    while left:
        running = itertools.accumulate(len(encoded[i]) + len(tree.tokens) for i in left[:rows_limit])
        batch = left[: max(1, sum(tokens <= limit for tokens in running))]
        try:
            likelihoods[batch] = _one_pass(loss_fn, tree, [encoded[i] for i in batch], precision)
        except Exception as error:
            if not is_out_of_memory(error) or len(batch) == 1:
                raise
            rows_limit = len(batch) // 2
        else:
            left, done = left[len(batch) :], done + len(batch)
            progress(done)
            continue
        give_back_memory()


def _one_pass(loss_fn: PackedLoss, tree: _Tree, prompts: list[list[int]], precision: Precision) -> np.ndarray:
    """Log-likelihood of every label after each prompt, float64, shape (prompts, labels)."""
    nodes = len(tree.tokens)
    sizes = [len(prompt) + nodes for prompt in prompts]
    attends = torch.zeros((sum(sizes), sum(sizes)), dtype=torch.bool)
    start = 0
    ids: list[int] = []
    positions: list[int] = []
    kept_positions: list[int] = []
    branches = torch.from_numpy(tree.sees)
    for prompt, size in zip(prompts, sizes, strict=True):
        border, end = start + len(prompt), start + size
        attends[start:border, start:border] = torch.ones((len(prompt), len(prompt)), dtype=torch.bool).tril()
        attends[border:end, start:border] = True
        attends[border:end, border:end] = branches
        ids += [*prompt, *tree.tokens]
        positions += [*range(len(prompt)), *(len(prompt) - 1 + depth for depth in tree.depths)]
        kept_positions += range(border - 1, end)
        start = end
    device = precision.device
    with precision.context():
        logits = loss_fn.model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            attention_mask=attends[None, None].to(device),
            use_cache=False,
            logits_to_keep=torch.tensor(kept_positions, device=device),
        ).logits[0]
    total = torch.logsumexp(logits.float(), dim=-1).view(len(prompts), nodes + 1)
    logits = logits.view(len(prompts), nodes + 1, -1)
    label_of = torch.tensor([k for k, reads in enumerate(tree.reads) for _ in reads], device=device)
    node, token = torch.tensor([read for reads in tree.reads for read in reads], device=device).T
    token_likelihoods = (logits[:, node, token].float() - total[:, node]).double()
    summed = torch.zeros((len(prompts), len(tree.reads)), dtype=torch.float64, device=device)
    return summed.index_add_(1, label_of, token_likelihoods).cpu().numpy()


def _by_loss(loss_fn: PackedLoss | UnpackedLoss, chats: Sequence[Encoded], precision: Precision) -> np.ndarray:
    """The same for one prompt, float64, shape (labels,), reading the prompt once for each label: for models and
    templates that allow no sharing."""
    answers = []
    for chat in chats:
        last = int(np.flatnonzero(np.diff(np.concatenate(([False], chat.loss_mask)).astype(int)) == 1)[-1])
        only_last = chat.loss_mask & (np.arange(len(chat.ids)) >= last)
        answers.append((chat.ids, only_last))
    tokens = TokenSet.join(answers)
    likelihoods = np.zeros(len(chats))
    for group in plan_passes(np.arange(len(tokens)), tokens.lengths, _PASS_TOKENS):
        with precision.context():
            losses = loss_fn.token_losses(make_pack(tokens, group).to(precision.device))
        parts = losses.double().split(tokens.label_tokens[group].tolist())
        likelihoods[group] = [-float(part.sum()) for part in parts]
    return likelihoods
