"""Texts that may be kept."""

import os
import re


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
