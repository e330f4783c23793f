"""Datamodules: index, split, read, batch and augment images."""

from project.datamodules.images.builders import CIFAR10, Bars, DatasetBuilder, DigitPairs, Digits
from project.datamodules.images.datamodule import ImageDataModule
from project.datamodules.images.transforms import (
    AlternatingFlip,
    CutMix,
    MixUp,
    RandomCrop,
    RandomResizedCrop,
    TrivialAugment,
)

__all__ = ["CIFAR10", "AlternatingFlip", "CutMix", "Digits", "ImageDataModule", "MixUp", "RandomCrop"]
__all__ += ["Bars", "DatasetBuilder", "DigitPairs", "RandomResizedCrop", "TrivialAugment"]
