"""Scripts of texts, and traces of damaged encoding and of markup."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

HIGH = "".join({bytes([byte]).decode(name, "ignore") for byte in range(0x80, 0xC0) for name in ("cp1252", "latin-1")})
NEXT = f"[{re.escape(HIGH)}]"
"""A byte within a character of UTF-8, read as Windows-1252 or Latin-1."""
MOJIBAKE = (
    rf"[\u00c2\u00c3]{NEXT}|(?:[\u00d0\u00d1]{NEXT}){{2}}|[\u00e0-\u00ef]{NEXT}{{2}}|\u00f0{NEXT}{{3}}|\u951f\u65a4"
)
DAMAGE = {
    "mojibake": MOJIBAKE,
    "replacement characters": "\ufffd",
    "bytes that are not UTF-8": "[\udc80-\udcff]",
    "control characters": r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]",
    "markup": r"</?[A-Za-z][^<>]{0,200}>|&(?:#\d{1,7}|#x[0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});",
    "scripts mixed in a word": r"[A-Za-z][\u0400-\u04ff]|[\u0400-\u04ff][A-Za-z]",
}
"""Patterns by kind of damage; mixed scripts are letters that only look alike."""
HAN = {"CJK": "Han", "IDEOGRAPHIC": "Han"}


def find_damage(texts: Sequence[str]) -> Iterator[tuple[str, list[int], list[str]]]:
    """Yield the kind of damage, the rows that have it, and how often each has which character or tag most."""
    for kind, pattern in DAMAGE.items():
        compiled, rows, details = re.compile(pattern), [], []
        for row, text in enumerate(texts):
            if found := compiled.findall(text):
                most, count = Counter(found).most_common(1)[0]
                rows.append(row)
                details.append(f"{count:,} x {most!r}")
        yield kind, rows, details


def count_scripts(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names of the scripts, and the letters of each script in each text, int64 (N, scripts)."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    lengths = [len(text) for text in texts]
    unique, character = np.unique(codes, return_inverse=True)
    found = [script_of(chr(code)) for code in unique.tolist()]
    names = sorted(set(found) - {""})
    number = np.array([names.index(name) if name else len(names) for name in found], np.int64)
    text = np.repeat(np.arange(len(lengths)), lengths)
    width = len(names) + 1
    counts = np.bincount(text * width + number[character], minlength=width * len(lengths))
    return names, counts.reshape(len(lengths), width)[:, :-1]


def script_of(character: str) -> str:
    """Return the script of a letter, by the first word of its Unicode name; empty for other characters."""
    if not character.isalpha():
        return ""
    first = unicodedata.name(unicodedata.normalize("NFKC", character)[0], "").partition(" ")[0].partition("-")[0]
    return HAN.get(first, first.capitalize())
