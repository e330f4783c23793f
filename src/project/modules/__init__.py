"""Networks, optimizers, schedules, tasks, and the LightningModule that trains them."""

from project.modules.classifier import Classifier
from project.modules.networks.convnet import ConvNet
from project.modules.networks.pretrained import Timm, TorchVision
from project.modules.networks.pruned import Pruned
from project.modules.networks.resnet import ResNet
from project.modules.networks.speedrun_net import SpeedrunNet, WhiteningConv
from project.modules.optimizers.muon import Muon
from project.modules.optimizers.schedule import WarmupDecay

__all__ = ["Classifier", "ConvNet", "Muon", "Pruned", "ResNet", "SpeedrunNet", "Timm", "TorchVision", "WarmupDecay"]
__all__ += ["WhiteningConv"]
