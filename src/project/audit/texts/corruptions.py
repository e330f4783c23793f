"""Text corruptions at five severities each.

Typing errors as in Belinkov and Bisk, Synthetic and Natural Noise Both Break Neural Machine Translation, 2018, but
independent of a keyboard, so that they apply to any language; forms of the same characters; and missing words. Each
function takes a text, the share of its characters, words or blanks to change, and a random generator.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from project.interface import Batch
from project.runs.job import Trained
from project.texts.words import split_words

Corruption = Callable[[str, float, Generator], str]
FEW, SOME, MANY = (0.01, 0.02, 0.05, 0.1, 0.2), (0.05, 0.1, 0.2, 0.3, 0.5), (0.1, 0.25, 0.5, 0.75, 1.0)
WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
"""Full-width form of each character of ASCII."""
WIDTHS = {**WIDE, **{wide: code for code, wide in WIDE.items()}}


def _swap(text: str, share: float, rng: Generator) -> str:
    """Swap neighboring characters of a word."""
    characters = list(text)
    for place in np.flatnonzero(rng.random(max(0, len(text) - 1)) < share):
        pair = characters[place : place + 2]
        if not any(map(str.isspace, pair)):
            characters[place : place + 2] = pair[::-1]
    return "".join(characters)


def _insert(text: str, share: float, rng: Generator) -> str:
    """Insert characters of the text after others."""
    places = iter(rng.integers(max(1, len(text)), size=len(text)).tolist())
    return _some(text, share, rng, lambda character: character + text[next(places)])


def _some(parts: Sequence[str], share: float, rng: Generator, change: Callable[[str], str]) -> str:
    """Return characters or words as a text, a share of them changed."""
    chosen = rng.random(len(parts)) < share
    return "".join(change(part) if changed else part for part, changed in zip(parts, chosen, strict=True))


def _characters(change: Callable[[str], str]) -> Corruption:
    return lambda text, share, rng: _some(text, share, rng, change)


def _words(change: Callable[[str], str]) -> Corruption:
    return lambda text, share, rng: _some(split_words(text), share, rng, change)


CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, ...]]] = {
    "character_swap": (_swap, FEW),
    "character_deletion": (_characters(lambda _: ""), FEW),
    "character_insertion": (_insert, FEW),
    "added_blanks": (_characters(lambda character: character + " "), FEW),
    "missing_blanks": (_characters(lambda character: "" if character.isspace() else character), MANY),
    "upper_case": (_words(str.upper), MANY),
    "full_width": (_words(lambda word: word.translate(WIDTHS)), MANY),  # and full-width words in half the width
    "missing_words": (_words(lambda _: ""), SOME),
}
"""A function and the share that it changes at each severity."""


def corrupt(text: str, name: str, severity: int, seed: int = 0) -> str:
    """Corrupt a text at a severity of 1 to 5; deterministic for a seed, e.g. its row in the index."""
    function, shares = CORRUPTIONS[name]
    return function(text, shares[severity - 1], np.random.default_rng((severity, seed)))


def corruptions(
    trained: Trained, subset: Sequence[Batch]
) -> dict[str, dict[str, Callable[[Batch, int], Tensor] | str]]:
    """Return by kind and name functions that corrupt a batch at a severity, or the reason why one does not apply."""
    texts = {row: trained.data.path(row) for batch in subset for row in batch.index.tolist()}

    def change(name: str, batch: Batch, severity: int) -> Tensor:
        inputs = trained.module.data_description.input
        changed = [inputs.read(corrupt(texts[row], name, severity, row)) for row in batch.index.tolist()]
        return inputs.prepare(torch.from_numpy(inputs.stack(changed))).to(batch.inputs.device)

    found: dict[str, Callable[[Batch, int], Tensor] | str] = {}
    for name in CORRUPTIONS:
        unchanged = all(corrupt(text, name, 5, row) == text for row, text in texts.items())
        found[name] = "changes none of the texts" if unchanged else partial(change, name)
    return {"corruption": found}
