"""Integrated gradients of the embeddings that a text selects.

Sundararajan et al., Axiomatic Attribution for Deep Networks, 2017. The path leads from the text with its embeddings set
to zero to the text itself, so that the attributions of all words sum to the difference between the two outputs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from project.errors import UserError
from project.interface import Input
from project.modules import Classifier

STEPS = 32  # of the path, by the midpoint rule
BATCH_SIZE = 32  # texts per pass
SIMILAR = (*pairwise([0x21, 0x30, 0x3A, 0x41, 0x5B, 0x61, 0x7B, 0x7F]), (0x80, 0xC0))
"""Ranges of bytes that replace each other, so that a changed word remains one: digits, upper case, lower case and what
is between them in ASCII; bytes of characters of several bytes, but for their first."""
Change = Callable[[int, Tensor, Tensor], Tensor]  # of a lookup: its number in the pass, its indices, its output


def integrated_gradients(model: Classifier, words: Sequence[str], outputs: Sequence[int]) -> Tensor:
    """Return the attribution of outputs to words, float (outputs, words).

    A network may look up embeddings of bytes, tokens or hashed n-grams. The attribution of an embedding is divided
    equally among the words on which its index depends, which is found by changing each word in place. Embeddings that
    depend on no word, as of positions and special tokens, do not vary along the path.

    Raises:
        UserError: No `nn.Embedding` of the network depends on the text.
    """
    inputs = model.data_description.input
    if not words:
        return torch.zeros(len(outputs), 0)
    raw = inputs.read("".join(words))
    variants = [raw, *_changed(raw, _word_of(inputs, words, raw), len(words))]
    dependent = _dependence(model, [inputs.stack([variant])[0] for variant in variants])
    if not any(part is not None for part in dependent):
        raise UserError(
            f"integrated_gradients needs embeddings (nn.Embedding) of the text, and {type(model.net).__name__} looks up"
            " none: try --methods occlusion"
        )
    batch = torch.from_numpy(inputs.stack([raw])).to(model.device)
    return torch.stack([_along_path(model, batch, dependent, output) for output in outputs])


def _along_path(model: Classifier, batch: Tensor, dependent: list[Tensor | None], output: int) -> Tensor:
    """Return the attribution of one output to the words, float (words,), given `_dependence`."""
    amounts = (torch.arange(STEPS, device=batch.device) + 0.5) / STEPS
    gradients: list[Tensor] = [torch.zeros(()) for _ in dependent]
    values: list[Tensor] = [torch.zeros(()) for _ in dependent]
    for part in amounts.split(BATCH_SIZE):
        scaled: dict[int, Tensor] = {}

        def scale(
            number: int, index: Tensor, embedding: Tensor, part: Tensor = part, scaled: dict[int, Tensor] = scaled
        ) -> Tensor:
            words = dependent[number]
            if words is None:
                return embedding
            varies = words.any(0).view(index.shape[1:]).to(embedding)
            amount = 1 - (1 - part.view(-1, *[1] * (index.ndim - 1))) * varies
            values[number] = embedding[0].detach()
            scaled[number] = (embedding * amount[..., None]).detach().requires_grad_()
            return scaled[number]

        with _lookups(model, scale), torch.enable_grad():
            score = model(batch.expand(len(part), *batch.shape[1:])).float()[:, output].sum()
        found = torch.autograd.grad(score, list(scaled.values()), allow_unused=True)
        for number, gradient in zip(scaled, found, strict=True):
            if gradient is not None:
                gradients[number] = gradients[number] + gradient.sum(0).detach() / STEPS
    total = torch.zeros(next(len(words) for words in dependent if words is not None), device=batch.device)
    for words, gradient, value in zip(dependent, gradients, values, strict=True):
        if words is not None:
            shares = words.float() / words.sum(0).clamp(min=1)
            total = total + shares @ (gradient * value).sum(-1).float().flatten()
    return total.cpu()


@torch.no_grad()
def _dependence(model: Classifier, variants: list[NDArray[Any]]) -> list[Tensor | None]:
    """Return for each lookup of a pass which words its indices depend on, bool (words, indices); None if on none.

    Args:
        model: The model.
        variants: The text, and the text with each of its words changed, all of one length.
    """
    parts: list[list[Tensor]] = []
    size = BATCH_SIZE - 1
    for start in range(1, len(variants), size):
        indices: list[Tensor] = []

        def record(number: int, index: Tensor, embedding: Tensor, indices: list[Tensor] = indices) -> Tensor:
            indices.append(index)
            return embedding

        batch = torch.from_numpy(np.stack([variants[0], *variants[start : start + size]])).to(model.device)
        with _lookups(model, record):
            model(batch)
        rows = [index.flatten(1) if len(index) == len(batch) and index.ndim > 1 else None for index in indices]
        parts.append([torch.zeros(len(batch) - 1, 0) if row is None else row[1:] != row[:1] for row in rows])
    joined = [torch.cat(part) for part in zip(*parts, strict=True)]
    return [part if part.any() else None for part in joined]


@contextmanager
def _lookups(model: Classifier, change: Change) -> Iterator[None]:
    """Replace the outputs of all `nn.Embedding` layers, in the order of the pass, by what `change` returns."""
    count = [0]

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        count[0] += 1
        return change(count[0] - 1, inputs[0], output)

    with ExitStack() as hooks:
        for module in model.net.modules():
            if isinstance(module, nn.Embedding):
                hooks.enter_context(module.register_forward_hook(hook))
        yield


def _word_of(inputs: Input, words: Sequence[str], raw: NDArray[Any]) -> NDArray[np.int64]:
    """Return the word of each byte or token of a text, int64 (length,), -1 of special tokens.

    The n-th word ends where the text up to it begins to differ from the whole text, as both are read by the model.
    """
    empty = inputs.read("")
    end = len(raw) - _common(raw[::-1], empty[::-1])  # without special tokens, which an empty text has, too
    word, start = np.full(len(raw), -1), _common(raw, empty)
    for number in range(len(words)):
        stop = min(end, _common(raw, inputs.read("".join(words[: number + 1])))) if number < len(words) - 1 else end
        word[start:stop] = number
        start = max(start, stop)
    return word


def _common(one: NDArray[Any], other: NDArray[Any]) -> int:
    """Return the length of the common start of two sequences."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


def _changed(raw: NDArray[Any], word: NDArray[np.int64], words: int) -> list[NDArray[Any]]:
    """Return the text with each of its words replaced by another one of the same length."""
    other = np.where(raw > 1, raw - 1, raw + 1)
    if raw.dtype == np.uint8:  # bytes
        replaced = np.arange(256, dtype=np.uint8)
        for low, high in SIMILAR:
            replaced[low:high] = np.roll(replaced[low:high], 1)
        other = replaced[raw]
    return [np.where(word == number, other, raw).astype(raw.dtype) for number in range(words)]
