"""Networks and the LightningModule that trains them."""

from project.modules.classifier import Classifier
from project.modules.convnet import ConvNet

__all__ = ["Classifier", "ConvNet"]
