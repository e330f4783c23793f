"""Near duplicates of texts, found by MinHash of their bytes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from project.datamodules.index import StringArray

GRAM = 5  # bytes: as many letters of English, two characters of Chinese
HASHES, BANDS = 64, 16  # of 10,000 pairs with a Jaccard similarity of 0.8, all but two have an equal band
NEIGHBORS = 8  # texts with an equal band that each is compared with, in each band
CHUNK = 2**22  # n-grams that are hashed together


def near_pairs(texts: Sequence[str], similarity: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return pairs of texts whose sets of n-grams of bytes are similar.

    Pairs with an equal band of MinHash values (Broder, On the Resemblance and Containment of Documents, 1997) are
    compared exactly. In a group of more than `NEIGHBORS` similar texts, not all pairs are compared.

    Args:
        texts: Different texts.
        similarity: Minimum Jaccard similarity, in (0, 1].

    Returns:
        Positions, int64 (pairs, 2), the smaller first, and the Jaccard similarity of each pair.
    """
    encoded = StringArray(f" {text} ".ljust(GRAM) for text in texts)
    signatures = _signatures(encoded)
    rng = np.random.default_rng(0)
    candidates = [np.zeros((0, 2), np.int64)]
    for band in np.split(signatures, BANDS):
        key = band[0].astype(np.uint64)
        for values in band[1:]:
            key = _mix(key ^ (values.astype(np.uint64) << np.uint64(32)))
        order = np.lexsort((rng.random(len(texts)), key))
        for step in range(1, NEIGHBORS + 1):
            one, other = order[:-step], order[step:]
            same = key[one] == key[other]
            candidates.append(np.sort(np.stack([one[same], other[same]], 1), 1))
    pairs = np.unique(np.concatenate(candidates), axis=0)
    # The estimate discards most candidates; its standard deviation is at most 1 / (2 sqrt(64)) = 0.06, and 0.05 at 0.8.
    estimate = np.zeros(len(pairs))
    for values in signatures:
        estimate += values[pairs[:, 0]] == values[pairs[:, 1]]
    pairs = pairs[estimate / HASHES >= similarity - 0.15]
    exact = _jaccard(encoded, pairs)
    found = exact >= similarity
    return pairs[found], exact[found]


def _signatures(texts: StringArray) -> NDArray[np.uint32]:
    """Return the MinHash values of each text, uint32 (HASHES, N)."""
    factors = np.random.default_rng(1).integers(0, 2**63, HASHES, np.uint64) * np.uint64(2) + np.uint64(1)
    signatures = np.empty((HASHES, len(texts)), np.uint32)
    start = 0
    while start < len(texts):
        before = 0 if start == 0 else int(texts.ends[start - 1])
        stop = max(start + 1, int(np.searchsorted(texts.ends, before + CHUNK, "right")))
        ends = texts.ends[start:stop] - before
        grams = _mix(_grams(texts.characters[before : before + int(ends[-1])]))
        starts = np.concatenate([[0], ends[:-1]])
        valid = np.ones(len(grams), bool)  # n-grams within one text
        for offset in range(1, GRAM):
            valid[ends[:-1] - offset] = False
        inside = np.concatenate([[0], np.cumsum(valid)])
        grams, first = grams[valid], inside[starts]
        for row, factor in enumerate(factors):
            hashed = ((grams * factor) >> np.uint64(32)).astype(np.uint32)
            signatures[row, start:stop] = np.minimum.reduceat(hashed, first)
        start = stop
    return signatures


def _grams(characters: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the n-grams of bytes as numbers, uint64 (length - GRAM + 1,)."""
    count = len(characters) - GRAM + 1
    grams = np.zeros(count, np.uint64)
    for offset in range(GRAM):
        grams = grams << np.uint64(8) | characters[offset : offset + count]
    return grams


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a bijective hash of 64-bit numbers, as in MurmurHash3."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values = (values ^ (values >> np.uint64(33))) * np.uint64(factor)
    return values ^ (values >> np.uint64(33))


def _jaccard(texts: StringArray, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the Jaccard similarity of the n-grams of each pair, float64 (pairs,)."""
    from scipy.sparse import csr_array

    rows, position = np.unique(pairs, return_inverse=True)
    sets = [np.unique((_mix(_grams(texts.encoded(row))) >> np.uint64(33)).astype(np.int32)) for row in rows.tolist()]
    sizes = np.array([len(each) for each in sets], np.int64)
    columns = np.concatenate([np.zeros(0, np.int32), *sets])
    present = csr_array(
        (np.ones(len(columns), np.int32), columns, np.append(0, np.cumsum(sizes))), shape=(len(rows), 2**31 - 1)
    )
    chunks = np.array_split(position.reshape(-1, 2).T, 1 + int(sizes[position].sum()) // CHUNK, axis=1)
    similarity = []
    for one, other in chunks:
        shared = present[one].multiply(present[other]).sum(1)
        similarity.append(shared / (sizes[one] + sizes[other] - shared))
    return np.concatenate(similarity)
