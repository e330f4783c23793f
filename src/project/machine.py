"""What this machine can do, the settings that suit it, and the fonts that it has."""

import ctypes
import os
import sys
from functools import cache, lru_cache
from pathlib import Path

import torch

from project.output import pluralize


def default_precision(accelerator: str) -> str:
    """The Trainer precision that suits the hardware: bf16 where there are instructions for it, else what is fastest.

    Args:
        accelerator: The Trainer's `accelerator` option.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if accelerator in ("auto", "cpu") and not torch.backends.mps.is_available() and cpu_has_bf16():
        return "bf16-mixed"
    return "32-true"


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 matrices in hardware; emulated, they are slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


@cache
def keep_freed_memory() -> bool:
    """Have the C library keep what a training step frees for the next step; whether it does.

    glibc gives blocks of some megabytes back to the system at once, as activations and gradients are, and the next step
    waits for the system to hand out and clear every page again. Its own variables (MALLOC_TRIM_THRESHOLD_ and the
    others that begin with MALLOC_) have precedence.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    trim_threshold, mmap_max = -1, -4  # as in <malloc.h>
    return mallopt is not None and bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, 2**31 - 1))


def describe_device(device: torch.device) -> str:
    """One device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        threads = pluralize(torch.get_num_threads(), "thread")
        return f"cpu ({threads}{', freed memory kept' if keep_freed_memory() else ''})"
    return device.type


def memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


FAMILIES = (
    *(
        "DejaVu Sans",
        "Noto Sans CJK SC",
        "Noto Sans SC",
        "Source Han Sans SC",
        "WenQuanYi Micro Hei",
        "WenQuanYi Zen Hei",
    ),
    *("Microsoft YaHei", "SimHei", "PingFang SC", "Noto Sans CJK JP", "Hiragino Sans", "Yu Gothic", "Noto Sans CJK KR"),
    *("Malgun Gothic", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS"),
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


def font_families() -> list[str]:
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
