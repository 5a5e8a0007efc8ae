"""The text of tokens."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


def token_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Of one sequence of token ids, special tokens included; the tokenizer's own `decode` is annotated for batches."""
    text = tokenizer.decode(list(ids))
    return text if isinstance(text, str) else "".join(text)
