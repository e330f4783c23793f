"""Attribution of outputs to the words of a text, and its faithfulness."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from project.explain.texts.gradients import integrated_gradients
from project.modules import Classifier
from project.texts.words import UNITS, split_words

Method = Literal["occlusion", "integrated_gradients"]
METHODS: tuple[Method, ...] = get_args(Method)
BATCH_SIZE = 64  # texts per forward pass
MAX_WORDS = 256  # longer texts are explained by spans of words
STEPS = 8  # of the deletion and insertion curves


def words_of(model: Classifier, sample: Tensor, limit: int = MAX_WORDS) -> tuple[list[str], bool]:
    """Return the words of a raw input as the model reads it, and whether there are all; if not, spans of words."""
    text = model.data_description.input.render(sample.cpu().numpy())
    return split_words(text, limit), len(UNITS.findall(text)) <= limit


def encode(model: Classifier, texts: Sequence[str]) -> Tensor:
    """Return texts as a batch of raw inputs of the model, on its device."""
    inputs = model.data_description.input
    stacked = inputs.stack([inputs.read(text) for text in texts])
    return inputs.prepare(torch.from_numpy(stacked)).to(model.device)


@torch.no_grad()
def outputs_of(model: Classifier, texts: Sequence[str]) -> Tensor:
    """Return the outputs for texts, float32 (N, outputs)."""
    starts = range(0, len(texts), BATCH_SIZE)
    return torch.cat([model(encode(model, texts[start : start + BATCH_SIZE])).float() for start in starts])


def attribution(
    model: Classifier, words: Sequence[str], outputs: Sequence[int], method: Method = "occlusion"
) -> Tensor:
    """Return the attribution of outputs to words, float (outputs, words): positive where a word increases the output.

    Args:
        model: A trained model of texts in eval mode.
        words: The words of one text, each with the blanks that follow it; see `split_words`.
        outputs: The outputs to explain, e.g. classes: their logits, or standardized values.
        method: `occlusion` is the decrease of the output if a word is deleted, as in Li et al., Understanding Neural
            Networks through Representation Erasure, 2016. For `integrated_gradients` see the function.

    Raises:
        UserError: The network has no embeddings, for integrated gradients.
    """
    if method == "integrated_gradients":
        return integrated_gradients(model, words, outputs)
    without = ["".join([*words[:place], *words[place + 1 :]]) for place in range(len(words))]
    found = outputs_of(model, ["".join(words), *without])[:, list(outputs)]
    return (found[0] - found[1:]).T


def faithfulness(model: Classifier, words: Sequence[str], attributions: Tensor, output: int) -> list[list[float]]:
    """Return the areas under the deletion and the insertion curve of each attribution.

    Deletion removes the words in order of decreasing attribution, insertion starts with none and adds them in that
    order; the curves are the probability of the class or label, in [0, 1], or the standardized value. The probability
    of the whole text minus the deletion area is the comprehensiveness, minus the insertion area the sufficiency, each
    averaged over shares of words (AOPC): DeYoung et al., ERASER: A Benchmark to Evaluate Rationalized NLP Models, 2020.

    Args:
        model: A trained model of texts in eval mode.
        words: The words of one text.
        attributions: Float (N, words), e.g. of two methods and at random.
        output: The output that they explain.

    Returns:
        Deletion and insertion area of each of the N attributions.
    """
    texts = []
    for order in attributions.argsort(dim=1, descending=True, stable=True).tolist():
        tops = [set(order[: round(len(words) * step / STEPS)]) for step in range(STEPS + 1)]
        for kept in (False, True):
            texts += ["".join(word for i, word in enumerate(words) if (i in top) == kept) for top in tops]
    scores = model.task.attribution_scores(outputs_of(model, texts).to(model.device))[:, output]
    areas: list[list[float]] = torch.trapezoid(scores.view(-1, 2, STEPS + 1), dx=1 / STEPS, dim=2).tolist()
    return areas


def random_attribution(words: Sequence[str], seed: int) -> Tensor:
    """Return a random attribution, float (words,): the baseline for `faithfulness`."""
    return torch.from_numpy(np.random.default_rng(seed).random(len(words), np.float32))
