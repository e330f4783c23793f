"""Datamodule of texts: index, split, cut, batch and augment."""

from project.datamodules.texts.augment import CharacterDropout, WordDropout, WordSwap
from project.datamodules.texts.datamodule import TextDataModule
from project.datamodules.texts.intents import HomeIntents

__all__ = ["CharacterDropout", "HomeIntents", "TextDataModule", "WordDropout", "WordSwap"]
