"""Augmentation of texts. Wei and Zou, EDA: Easy Data Augmentation Techniques for Text Classification, 2019."""

import re
from abc import ABC, abstractmethod

import numpy as np
from typing_extensions import override

from project.errors import UserError
from project.texts.words import UNITS


class TextTransform(ABC):
    """Random change of a text in training; subclasses implement `change`.

    Args:
        p: Probability with which each word or character is changed, in [0, 1].

    Raises:
        UserError: `p` is out of range.
    """

    def __init__(self, p: float = 0.1) -> None:
        if not 0 <= p <= 1:
            raise UserError(f"{type(self).__name__}: p must be in [0, 1], got {p}")
        self.p = p

    @abstractmethod
    def change(self, text: str, rng: np.random.Generator) -> str:
        """Return the changed text; all that is random is drawn from `rng`."""


class WordDropout(TextTransform):
    """Delete words at random, but not all of them."""

    @override
    def change(self, text: str, rng: np.random.Generator) -> str:
        words = list(UNITS.finditer(text))
        dropped = rng.random(len(words)) < self.p
        if not dropped.any() or dropped.all():
            return text
        return _replace(text, [(word, "") for word, drop in zip(words, dropped, strict=True) if drop])


class WordSwap(TextTransform):
    """Swap words with the next one at random."""

    @override
    def change(self, text: str, rng: np.random.Generator) -> str:
        words = list(UNITS.finditer(text))
        changes: list[tuple[re.Match[str], str]] = []
        for first in np.flatnonzero(rng.random(max(0, len(words) - 1)) < self.p).tolist():
            one, other = words[first], words[first + 1]
            if not changes or changes[-1][0] is not one:
                changes += [(one, other[0]), (other, one[0])]
        return _replace(text, changes)


class CharacterDropout(TextTransform):
    """Delete characters at random, but not all of them, as in typing errors."""

    @override
    def change(self, text: str, rng: np.random.Generator) -> str:
        kept = rng.random(len(text)) >= self.p
        changed = "".join(character for character, keep in zip(text, kept, strict=True) if keep)
        return changed if changed.strip() else text


def _replace(text: str, changes: list[tuple[re.Match[str], str]]) -> str:
    """Return the text with some of its words replaced, in the order of the text."""
    parts, end = [], 0
    for word, new in changes:
        parts += [text[end : word.start()], new]
        end = word.end()
    return "".join([*parts, text[end:]])
