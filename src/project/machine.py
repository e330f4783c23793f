"""What this machine can do, and the settings that suit it."""

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

import torch

from project.words import counted


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
        return (
            f"cpu ({counted(torch.get_num_threads(), 'thread')}{', freed memory kept' if keep_freed_memory() else ''})"
        )
    return device.type


def memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
