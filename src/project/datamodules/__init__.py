"""Finding, splitting, reading, batching and augmenting images."""

from project.datamodules.cifar10 import CIFAR10
from project.datamodules.datamodule import ImageDataModule
from project.datamodules.digits import Digits
from project.datamodules.source import Source
from project.datamodules.transforms import AlternatingFlip, CutMix, MixUp, RandomCrop, RandomResizedCrop, TrivialAugment

__all__ = [
    "CIFAR10",
    "AlternatingFlip",
    "CutMix",
    "Digits",
    "ImageDataModule",
    "MixUp",
    "RandomCrop",
    "RandomResizedCrop",
    "Source",
    "TrivialAugment",
]
