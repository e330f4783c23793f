"""Hardware of this machine, settings that suit it, and installed fonts."""

import ctypes
import os
import sys
from functools import cache, lru_cache
from pathlib import Path

import torch

from project.output import pluralize


def default_precision(accelerator: str) -> str:
    """Return the Trainer precision for this hardware: bf16 if natively supported, else fp16 on CUDA, float32 elsewhere.

    Args:
        accelerator: The Trainer's `accelerator` option.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if accelerator in ("auto", "cpu") and not torch.backends.mps.is_available() and cpu_has_bf16():
        return "bf16-mixed"
    return "32-true"


def cpu_has_bf16() -> bool:
    """Return True if the CPU has bfloat16 matrix instructions; emulated bfloat16 is slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


@cache
def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the next training step, and return True if it does.

    By default glibc returns large blocks, such as activations and gradients, to the operating system as soon as they
    are freed, and the next step waits until every page is mapped and zeroed again. Environment variables of glibc
    (MALLOC_TRIM_THRESHOLD_ and others that start with MALLOC_) take precedence.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # missing in musl
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX in <malloc.h>
    return mallopt is not None and bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, 2**31 - 1))


def describe_device(device: torch.device) -> str:
    """Return a description of the device for the console."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        threads = pluralize(torch.get_num_threads(), "thread")
        return f"cpu ({threads}{', freed memory kept' if keep_freed_memory() else ''})"
    return device.type


def memory() -> int:
    """Return the physical memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


FONT_FAMILIES = (
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
"""Fonts to draw class names with, in order of preference; the first one comes with matplotlib."""


@lru_cache
def _installed_fonts() -> dict[str, Path]:
    from matplotlib.font_manager import fontManager

    files: dict[str, Path] = {}
    for font in fontManager.ttflist:
        if (font.style, font.weight, font.stretch) == ("normal", 400, "normal"):
            files.setdefault(font.name, Path(font.fname))
    return {family: files[family] for family in FONT_FAMILIES if family in files}


def font_families() -> list[str]:
    """Return the installed font families; matplotlib draws each character with the first one that contains it."""
    return list(_installed_fonts())


@lru_cache
def font_file(text: str) -> Path:
    """Return the installed font file that covers most characters of a text."""
    from matplotlib.ft2font import FT2Font

    def coverage(file: Path) -> int:
        font = FT2Font(str(file))
        return sum(font.get_char_index(ord(character)) > 0 for character in set(text))

    return max(_installed_fonts().values(), key=coverage)
