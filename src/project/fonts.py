"""Fonts that have the characters of a name, in whatever script."""

from functools import lru_cache
from pathlib import Path

FAMILIES = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Noto Sans CJK JP",
    "Hiragino Sans",
    "Yu Gothic",
    "Noto Sans CJK KR",
    "Malgun Gothic",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Arial Unicode MS",
)
"""The first comes with matplotlib; the others are looked for on the machine."""


@lru_cache
def _installed() -> dict[str, Path]:
    from matplotlib.font_manager import fontManager

    files: dict[str, Path] = {}
    for font in fontManager.ttflist:
        if (font.style, font.weight, font.stretch) == ("normal", 400, "normal"):
            files.setdefault(font.name, Path(font.fname))
    return {family: files[family] for family in FAMILIES if family in files}


def families() -> list[str]:
    """The families on this machine, for matplotlib to take each character from the first that has it."""
    return list(_installed())


@lru_cache
def font_file(text: str) -> Path:
    """The font that has most of a text's characters, the first of several."""
    from matplotlib.ft2font import FT2Font

    def found(file: Path) -> int:
        font = FT2Font(str(file))
        return sum(font.get_char_index(ord(character)) > 0 for character in set(text))

    return max(_installed().values(), key=found)
