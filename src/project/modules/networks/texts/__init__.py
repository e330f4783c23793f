"""Networks for texts."""

from project.modules.networks.texts.bytenet import ByteNet
from project.modules.networks.texts.transformer import Transformer

__all__ = ["ByteNet", "Transformer"]
