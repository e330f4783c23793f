"""Texts as network inputs. Does not import torch, so that exported models run without it."""

from project.texts.input import TextInput, clean_text
from project.texts.tokens import TokenInput

__all__ = ["TextInput", "TokenInput", "clean_text"]

COMMANDS = {
    "check_texts": (
        "project.datamodules.texts.check.check_texts",
        "data",
        "find duplicates, data leakage and damaged encoding in texts",
    ),
}
SHORT_OPTIONS = {"text": "data.text"}

TextInput.__module__ = TokenInput.__module__ = __name__  # checkpoints name these classes, wherever their files are
