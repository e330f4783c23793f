"""What is printed, and what is not."""

import logging
import sys
import warnings

OF_NO_USE = (
    r".*does not have many workers.*",  # workers are chosen for the machine
    r".*sync_dist=True.*",  # the metrics are synchronised when they are computed
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*isinstance\(treespec, LeafSpec\).*",  # lightning against torch 2.14
    r".*You.re using the WeightAveraging callback with a model that overrides.*",
    r".*your dataloader is not resumable.*",  # it is: it asks where the epoch stands
    r".*distributed\.nn\.functional\.all_gather is deprecated.*",
    r".*You called `self\.log\('.*_per_second'.*",
    r".*module\(s\) in eval mode at the start of training.*",  # the frozen ones
    r".*callbacks used to create the checkpoint.*",  # such as early stopping, for a test
    r".*The dirpath has changed from .*",
    r"Glyph \d+ .* missing from font.*",  # a box is drawn in its place
)
"""Warnings that a user could do nothing about."""


def print_plainly() -> None:
    """Print a warning as its message alone, without the place in the code; names of files in whatever encoding."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has none
        sys.stdout.reconfigure(errors="backslashreplace")


def quieten_lightning() -> None:
    """Leave out what Lightning says of itself, and warns of without need."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in OF_NO_USE:
        warnings.filterwarnings("ignore", message)
