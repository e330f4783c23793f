"""Numbers in words, and texts that may be kept."""

import os
import re


def counted(number: int, noun: str) -> str:
    """1 epoch, 2 epochs, 1,000 images."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def without_secrets(text: str) -> str:
    """A text that is to be kept or shown, without passwords of addresses and what the environment keeps secret.

    USER:PASSWORD@ becomes USER:***@, and the value of a variable with TOKEN, SECRET, PASSWORD or KEY in its name
    becomes that name.
    """
    text = re.sub(r"(://[^/@\s:]*):[^@/\s]+@", r"\1:***@", text)
    for name, value in os.environ.items():
        if len(value) >= 8 and re.search("TOKEN|SECRET|PASSWORD|KEY", name.upper()):
            text = text.replace(value, f"${name}")
    return text
