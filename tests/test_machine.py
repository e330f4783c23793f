"""Settings chosen for the hardware."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from project.cli import main
from tests.conftest import fit

PAGE_FAULTS = """
import resource, sys, torch
from project.machine import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
else:
    assert not keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    (torch.zeros(2**24) + 1).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(min(faults() for _ in range(20)))
"""
"""A script that prints the page faults of an operation after a warm-up."""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize(("mode", "variables"), [("keep", {}), ("return", {"MALLOC_ARENA_MAX": "8"})])
def test_freed_memory_is_kept_unless_malloc_variables_are_set(mode: str, variables: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PAGE_FAULTS, mode],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    pages = 2 * 2**26 // os.sysconf("SC_PAGE_SIZE")
    assert int(done.stdout) < pages / 100 if mode == "keep" else int(done.stdout) > pages / 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_default_precision(processor: str, tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = "bf16-mixed" if processor == "with bf16" else "32-true"
    args = fit(tree, "--trainer.max_epochs", "8")
    at = args.index("--trainer.precision")
    main([*args[:at], *args[at + 2 :]])
    shown = capsys.readouterr().out
    assert f"precision {expected}" in shown and "accuracy 100.00%" in shown
    main(["test", "--ckpt_path", "best"])
    assert "accuracy 100.00%" in capsys.readouterr().out
