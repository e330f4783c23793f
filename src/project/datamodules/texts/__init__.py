"""Datamodule of texts: index, split, cut, batch and augment."""

from project.datamodules.texts.augment import CharacterDropout, WordDropout, WordSwap
from project.datamodules.texts.datamodule import TextDataModule

__all__ = ["CharacterDropout", "TextDataModule", "WordDropout", "WordSwap"]
