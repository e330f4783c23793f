"""What is set for the machine."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from project.cli import main
from tests.conftest import fit

AGAIN = """
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
"""Page faults of a piece of work once it was done some times before."""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize(("what", "variables"), [("keep", {}), ("give back", {"MALLOC_ARENA_MAX": "8"})])
def test_freed_memory_is_kept_unless_glibcs_own_variables_say_otherwise(what: str, variables: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, what], env=os.environ | variables, capture_output=True, text=True, check=True
    )
    pages = 2 * 2**26 // os.sysconf("SC_PAGE_SIZE")
    assert int(done.stdout) < pages / 100 if what == "keep" else int(done.stdout) > pages / 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_precision_suits_the_processor(
    processor: str, tree: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = "bf16-mixed" if processor == "with bf16" else "32-true"
    args = fit(tree, "--trainer.max_epochs", "8")
    at = args.index("--trainer.precision")
    main([*args[:at], *args[at + 2 :]])
    shown = capsys.readouterr().out
    assert f"precision {expected}" in shown and "accuracy 100.00%" in shown
    main(["test", "--ckpt_path", "best"])
    assert "accuracy 100.00%" in capsys.readouterr().out
