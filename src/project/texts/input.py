"""Texts as raw UTF-8 bytes."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from project.interface import GraphInput, Input, Source

BLANKS = "\u200b\u2060\ufeff\x00"  # zero-width characters and NUL, which pads batches


def clean_text(text: str) -> str:
    """Return a text in Unicode NFC, without NUL and zero-width characters, and without whitespace at its ends.

    Halves of surrogate pairs, which JSON may contain, become U+FFFD; bytes that are not UTF-8 are kept.
    """
    text = re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", text)
    return unicodedata.normalize("NFC", text.translate(dict.fromkeys(map(ord, BLANKS)))).strip()


@dataclass(frozen=True)
class TextInput(Input):
    """Texts as UTF-8 bytes; a batch is uint8 (N, bytes), padded with zeros at the end to its longest text.

    Args:
        max_bytes: Longer texts are cut, at the boundary of a character.
    """

    kind: ClassVar[str] = "text"
    key: ClassVar[str] = "text"
    handler: ClassVar[str] = "project.serve.texts.TextHandler"
    max_bytes: int = 1024

    def __str__(self) -> str:
        return f"up to {self.max_bytes:,} bytes"

    @override
    def read(self, sample: Any) -> NDArray[Any]:
        """Return the bytes of a text, uint8 (bytes,), from a string, or from the UTF-8 bytes of a clean text."""
        raw = sample if isinstance(sample, bytes) else os.fsencode(clean_text(str(sample)))
        return np.frombuffer(cut(raw, self.max_bytes), np.uint8)

    def is_cut(self, text: str) -> bool:
        """Return True if a clean text is longer than what the model reads."""
        return len(os.fsencode(text)) > self.max_bytes

    @override
    def stack(self, samples: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return pad(samples, 0)

    @override
    def render(self, sample: NDArray[Any]) -> str:
        return os.fsdecode(sample.astype(np.uint8).tobytes().rstrip(b"\0"))

    @override
    def adopt(self, trained: Input) -> Input:
        return replace(trained, max_bytes=self.max_bytes) if isinstance(trained, TextInput) else self

    def describe(self, texts: Sequence[str]) -> str:
        """Return a sentence on what is lost of texts, besides bytes that are cut; by default, nothing."""
        return ""

    @property
    @override
    def graph(self) -> GraphInput:
        layout = f"text: uint8 (N, bytes), Unicode NFC in UTF-8, cut after {self.max_bytes:,} bytes, 0 at the end"
        axes, front = {0: "texts", 1: "bytes"}, "project.deploy.texts.Pad"
        return GraphInput("text", layout, np.zeros((2, 37), np.uint8), axes, front)

    @override
    def batches(self, source: Source, notes: Counter[str]) -> Iterator[tuple[list[str], NDArray[Any]]]:
        from project.texts.files import text_batches

        return text_batches(self, source, notes)


def cut(raw: bytes, length: int) -> bytes:
    """Return at most `length` bytes of UTF-8, without a part of a character at the end."""
    ends = range(length, max(-1, length - 4), -1) if len(raw) > length else []
    return raw[: next((end for end in ends if raw[end] & 0xC0 != 0x80), length)]  # bytes that are not UTF-8 are cut


def pad(samples: Sequence[NDArray[Any]], value: int) -> NDArray[Any]:
    """Return sequences as one array (N, longest), at least one column wide, padded at the end."""
    longest = max(1, *map(len, samples)) if len(samples) else 1
    batch = np.full((len(samples), longest), value, samples[0].dtype if len(samples) else np.uint8)
    for row, sample in zip(batch, samples, strict=True):
        row[: len(sample)] = sample
    return batch
