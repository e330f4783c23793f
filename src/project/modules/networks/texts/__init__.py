"""Networks for texts."""

from project.modules.networks.texts.bytenet import ByteNet

__all__ = ["ByteNet"]
