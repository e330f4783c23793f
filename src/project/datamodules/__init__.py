"""Datamodules: index, split, read, batch and augment samples."""

from project.datamodules.builder import DatasetBuilder
from project.datamodules.dataset_module import DatasetModule
from project.datamodules.huggingface import HuggingFace
from project.datamodules.images.builders import CIFAR10, Bars, DigitPairs, Digits
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
__all__ += ["Bars", "DatasetBuilder", "DatasetModule", "DigitPairs", "HuggingFace"]
__all__ += ["RandomResizedCrop", "TrivialAugment"]
