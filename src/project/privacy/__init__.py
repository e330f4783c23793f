"""Training that tells little of any single image."""

from project.privacy.differential import DifferentialPrivacy

__all__ = ["DifferentialPrivacy"]
