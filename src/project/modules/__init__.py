"""Networks, the LightningModule that trains them, and what it trains them with."""

from project.modules.classifier import Classifier
from project.modules.convnet import ConvNet
from project.modules.muon import Muon
from project.modules.pretrained import Timm, TorchVision
from project.modules.pruned import Pruned
from project.modules.resnet import ResNet
from project.modules.schedule import WarmupDecay
from project.modules.speedrun_net import SpeedrunNet
from project.modules.whitening import WhiteningConv

__all__ = [
    "Classifier",
    "ConvNet",
    "Muon",
    "Pruned",
    "ResNet",
    "SpeedrunNet",
    "Timm",
    "TorchVision",
    "WarmupDecay",
    "WhiteningConv",
]
