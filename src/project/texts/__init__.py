"""Texts as network inputs. Does not import torch, so that exported models run without it."""

from project.texts.input import TextInput, clean_text

__all__ = ["TextInput", "clean_text"]

SHORT_OPTIONS = {"text": "data.text"}

TextInput.__module__ = __name__  # checkpoints name this class, wherever its file is
