"""Highlighted words of the samples in the report of a test."""

import torch
from torch import Tensor

from project.explain.texts.attribution import attribution, words_of
from project.modules import Classifier

MAX_PARTS = 50  # longer texts are explained by spans of words, as a report is written after every fit
Part = tuple[str, float]


def highlighted(words: list[str], values: Tensor) -> list[Part]:
    """Return words with their attributions relative to the largest of the text, in [-1, 1]."""
    largest = float(values.abs().max()) if len(words) else 0.0
    return [(word, round(value / max(largest, 1e-12), 3)) for word, value in zip(words, values.tolist(), strict=True)]


def overlays(
    model: Classifier, inputs: Tensor, target: Tensor, side: int, mask: Tensor | None = None
) -> list[list[Part]]:
    """Return the words of texts with their attributions by occlusion, see `highlighted`.

    Args:
        model: A trained model in eval mode.
        inputs: Raw inputs of texts, (N, length).
        target: Output to explain for each text, int64 (N,).
        side: Size of overlays of images; not used.
        mask: Padding of images; not used.
    """
    found = []
    with torch.inference_mode():
        for sample, output in zip(inputs, target.tolist(), strict=True):
            words, _ = words_of(model, sample, MAX_PARTS)
            found.append(highlighted(words, attribution(model, words, [output])[0]))
    return found
