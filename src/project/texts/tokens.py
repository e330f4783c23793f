"""Texts as tokens of a pretrained language model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from project.interface import GraphInput
from project.texts.input import TextInput, pad

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class TokenInput(TextInput):
    """Texts as tokens of a pretrained language model; a batch is int64 (N, tokens), padded to its longest text.

    Checkpoints and exported files carry the content of the model's tokenizer.json and config.json in this description,
    so that they need neither its folder nor a network.

    Args:
        max_bytes: Longer texts are cut before they are split into tokens.
        max_tokens: Longer texts are cut after this number of tokens; special tokens count and are kept.
        pad_id: Token that pads a batch.
        tokenizer: Content of tokenizer.json.
        config: Content of config.json, from which the network is built.
    """

    max_tokens: int = 256
    pad_id: int = 0
    tokenizer: str = field(default="", repr=False)
    config: dict[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return f"up to {self.max_tokens:,} tokens"

    @override
    def read(self, sample: Any) -> NDArray[Any]:
        """Return the tokens of a text, int64 (tokens,), from a string, or from the UTF-8 bytes of a clean text."""
        return np.array(_load(self.tokenizer, self.max_tokens).encode(self._text(sample)).ids, np.int64)

    @override
    def stack(self, samples: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return pad(samples, self.pad_id)

    @override
    def render(self, sample: NDArray[Any]) -> str:
        return _load(self.tokenizer, self.max_tokens).decode([*map(int, sample)])

    @override
    def is_cut(self, text: str) -> bool:
        return super().is_cut(text) or len(_load(self.tokenizer, None).encode(text).ids) > self.max_tokens

    @property
    @override
    def graph(self) -> GraphInput:
        layout = f"tokens: int64 (N, tokens) of the tokenizer in data_description, {self.pad_id} at the end"
        return GraphInput("tokens", layout, np.full((2, 37), self.pad_id + 1), {0: "texts", 1: "tokens"})

    @override
    def describe(self, texts: Sequence[str]) -> str:
        tokenizer, model = _load(self.tokenizer, None), json.loads(self.tokenizer)["model"]
        unknown = model.get("unk_id", tokenizer.token_to_id(model.get("unk_token") or ""))
        tokens = [np.array(tokenizer.encode(self._text(text)).ids) for text in texts]
        lengths, everything = np.array([*map(len, tokens)]), np.concatenate(tokens)
        return (
            f"texts of {int(np.median(lengths)):,} tokens (median), at most {lengths.max():,};"
            f" {(lengths > self.max_tokens).mean():.1%} are cut after {self.max_tokens:,} (--model.net.max_tokens);"
            f" {(everything == unknown).mean():.1%} of the tokens are unknown to the tokenizer"
        )

    def _text(self, sample: Any) -> str:
        return super().read(sample).tobytes().decode(errors="replace")  # a file may hold bytes that are not UTF-8


@lru_cache
def _load(content: str, max_tokens: int | None) -> "Tokenizer":
    """Return the tokenizer; the cutting and padding that tokenizer.json may ask for are replaced."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(content)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if max_tokens is not None:
        tokenizer.enable_truncation(max_tokens)
    tokenizer.encode_special_tokens = True  # "[PAD]" in a text is text
    return tokenizer
