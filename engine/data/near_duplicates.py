"""Near duplicates: found by MinHash and locality-sensitive hashing, proved by comparing the texts.

A text's shingles are its runs of four characters, of two where they begin with a CJK character (a Chinese word has
about two). MinHash (Broder 1997) keeps for each of 63 permutations the least hash of a text's shingles; two texts agree
in a permutation with the probability of their Jaccard similarity. Rows that agree in one of 21 bands of three are
candidates: a pair of similarity 0.8 is missed once in a million, one of 0.6 once in 150. Candidates are proved on
the texts, so that nothing but the misses rests on chance: nine tenths of the characters must be the same (the ratio of
the longest common subsequence) and every number in them, since "12 + 7" and "12 + 8" are different questions.

Written with numpy for whole batches because the libraries for it work a row at a time: a millisecond each, a quarter of
an hour for a million.
"""

import re
from collections.abc import Callable

import numpy as np

_BANDS, _BAND_ROWS = 21, 3
PERMUTATIONS = _BANDS * _BAND_ROWS
LEAST_ALIKE = 0.9
_LEAST_AGREEING = 22
"""Agreeing permutations (of 63) below which a pair is not looked at: Jaccard 0.35. Nine tenths of the same characters
are a Jaccard similarity of 0.4 at the least, were the changes spread as badly as can be."""
_NEIGHBOURS = 6
"""Rows that follow in a band's order with the same band. Among many rows with one band (a common beginning), the order
goes on with the next bands, so that the most alike still stand side by side in some of the 21 orders."""
_PAIRS_AT_ONCE = 100_000
_BEST = 8
_MOST_HELD = 2_000_000

_random = np.random.default_rng(20_240_607)
_MULTIPLIERS = _random.integers(0, 1 << 31, PERMUTATIONS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
_MASKS = _random.integers(0, 1 << 32, PERMUTATIONS, dtype=np.uint32)
_DIGITS = re.compile(r"\d+")


def signatures(texts: list[str]) -> np.ndarray:
    """MinHash of each text, shape (texts, 63), uint32."""
    # Three ends after each text let its last shingles be whole without taking in the next text.
    joined = "".join(f"{text}\0\0\0" for text in texts)
    codes = np.frombuffer(joined.encode("utf-32-le", "replace"), np.uint32)
    lengths = np.array([len(text) + 3 for text in texts])
    starts = np.r_[0, np.cumsum(lengths)[:-1]]
    two = _mix(codes[:-1] * np.uint32(0x9E3779B1) ^ _mix(codes[1:]))
    four = two.copy()
    four[:-2] = _mix(two[:-2] * np.uint32(0x85EBCA77) ^ two[2:])
    first = codes[:-1]
    hashes = np.where((first >= 0x2E80) & (first < 0xFB00), two, four)
    # What begins in the ends belongs to no text; a text of no character keeps one such hash of its own.
    hashes[first == 0] = 0xFFFFFFFF
    signed = np.empty((len(texts), PERMUTATIONS), np.uint32)
    for number in range(PERMUTATIONS):
        permuted = (hashes ^ _MASKS[number]) * _MULTIPLIERS[number]
        permuted[first == 0] = 0xFFFFFFFF
        signed[:, number] = np.minimum.reduceat(permuted, starts)
    return signed


def _mix(values: np.ndarray) -> np.ndarray:
    """MurmurHash3's finaliser."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


def candidates(signed: np.ndarray, advance: Callable[[int, int], None] | None = None) -> np.ndarray:
    """Pairs (i, j), i < j, that agree in a band and in enough permutations; shape (pairs, 2), each once, in order.

    Of each text only its pairs with the `_BEST` most alike are kept.
    """
    count = len(signed)
    best = _Best(count)
    bands = [_band(signed, number) for number in range(_BANDS)] if count > 1 else []
    for number in range(len(bands)):
        keys = bands[number]
        order = np.lexsort((bands[(number + 2) % _BANDS], bands[(number + 1) % _BANDS], keys))
        ordered = keys[order]
        for step in range(1, min(_NEIGHBOURS, count - 1) + 1):
            at = np.flatnonzero(ordered[step:] == ordered[:-step])
            if not len(at):
                break
            for start in range(0, len(at), _PAIRS_AT_ONCE):
                here = at[start : start + _PAIRS_AT_ONCE]
                left, right = order[here], order[here + step]
                agreeing = (signed[left] == signed[right]).sum(axis=1)
                kept = agreeing >= _LEAST_AGREEING
                best.add(left[kept], right[kept], agreeing[kept])
        if advance:
            advance(number + 1, _BANDS)
    return best.pairs()


class _Best:
    """Pairs with how much they agree; thinned out to the best of each text before they fill the memory."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._codes: list[np.ndarray] = []
        self._agreeing: list[np.ndarray] = []
        self._held = self._thinned = 0

    def add(self, left: np.ndarray, right: np.ndarray, agreeing: np.ndarray) -> None:
        low, high = np.minimum(left, right), np.maximum(left, right)
        self._codes.append(low.astype(np.int64) * self._count + high)
        self._agreeing.append(agreeing.astype(np.uint8))
        self._held += len(left)
        if self._held - self._thinned > _MOST_HELD:
            self._thin()

    def pairs(self) -> np.ndarray:
        self._thin()
        codes = self._codes[0]
        return np.stack((codes // self._count, codes % self._count), axis=1) if self._count else codes.reshape(0, 2)

    def _thin(self) -> None:
        codes = np.concatenate([np.empty(0, np.int64), *self._codes])
        agreeing = np.concatenate([np.empty(0, np.uint8), *self._agreeing])
        codes, first = np.unique(codes, return_index=True)
        agreeing = agreeing[first]
        kept = np.zeros(len(codes), bool)
        for ends in (codes // max(self._count, 1), codes % max(self._count, 1)):
            order = np.lexsort((255 - agreeing, ends))
            ordered = ends[order]
            starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else ordered
            rank = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.r_[starts, len(ordered)]))
            kept[order[rank < _BEST]] = True
        self._codes, self._agreeing = [codes[kept]], [agreeing[kept]]
        self._held = self._thinned = int(kept.sum())


def _band(signed: np.ndarray, number: int) -> np.ndarray:
    rows = signed[:, number * _BAND_ROWS : (number + 1) * _BAND_ROWS]
    mixed = _mix(_mix(rows[:, 0]) * np.uint32(0x9E3779B1) ^ rows[:, 1])
    return _mix(mixed * np.uint32(0x9E3779B1) ^ rows[:, 2])


def alike(lefts: list[str], rights: list[str]) -> np.ndarray:
    """The share of the same characters of each pair of bare texts, from LEAST_ALIKE on; 0 below it, for texts without a
    character, and for different numbers."""
    from rapidfuzz.distance import Indel  # 15 ms
    from rapidfuzz.process import cpdist

    shares = cpdist(lefts, rights, scorer=Indel.normalized_similarity, score_cutoff=LEAST_ALIKE)
    for at in np.flatnonzero(shares).tolist():
        left, right = lefts[at], rights[at]
        if not left or not right or _DIGITS.findall(left) != _DIGITS.findall(right):
            shares[at] = 0
    return shares
