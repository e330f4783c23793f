"""Provenance of a run: config.yaml, split.csv and environment.yaml."""

import os
import platform
import re
import shlex
import subprocess
import sys
import time
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from project.files import atomic_write
from project.interface import data_of
from project.machine import describe_device, memory
from project.output import redact_secrets
from project.runs.folder import ENVIRONMENT
from project.runs.logger import RunLogger
from project.runs.trackers import start_trackers


class SaveRun(SaveConfigCallback):
    """Callback that writes the config, the split and the environment to the run folder."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the files, except in `fit`: a failed attempt to resume must not change the files of the run."""
        if stage != "fit":
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files of a `fit`, after the checkpoint is restored."""
        super().setup(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write config.yaml and, in `fit`, split.csv and environment.yaml; called once, on rank 0."""
        folder = trainer.logger.log_dir if trainer.logger else None  # trainer.log_dir is a collective call
        if folder is None:
            return
        run, config, data = Path(folder), self.config.clone(), data_of(trainer)
        run.mkdir(parents=True, exist_ok=True)
        if stage == "fit":
            config.ckpt_path = None  # `fit --config config.yaml` must start a new run
            if "checkpoint" in config and (kept := trainer.checkpoint_callback):  # what `auto` stands for
                config.checkpoint.monitor, config.checkpoint.mode = kept.monitor, kept.mode  # type: ignore[attr-defined]
            data.write_split(run / "split.csv")
            seed = os.environ.get("PL_GLOBAL_SEED")
            facts = {"seed": seed, "data": str(data.folder), "data_fingerprint": data.description.fingerprint}
            hyperparameters = trainer.logger.hyperparameters if isinstance(trainer.logger, RunLogger) else {}
            record_start(run / ENVIRONMENT, {**facts, "trackers": start_trackers(trainer, hyperparameters)})
        with atomic_write(run / self.config_filename) as partial:
            self.parser.save(config, partial, skip_none=False, overwrite=True, multifile=False)


class _Dumper(yaml.SafeDumper):
    """YAML dumper that writes multi-line strings as literal blocks, so that diffs are readable."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def record_start(file: Path, facts: dict[str, Any]) -> None:
    """Append a YAML document to a file: one per start or resume of a run.

    It contains the given facts, the time, the command, the git commit and diff, the hardware and the versions of all
    installed packages.
    """
    document = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": redact_secrets(shlex.join(sys.orig_argv)),
        "folder": str(Path.cwd()),
        **facts,
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "git": _git(),
        "hardware": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(memory() / 1e9, 1),
            "gpus": [describe_device(torch.device("cuda", number)) for number in range(torch.cuda.device_count())],
            "cuda": torch.version.cuda,
            "system": platform.platform(),
        },
        "python": platform.python_version(),
        "packages": dict(sorted(map(_name_and_version, distributions()))),
    }
    form: Any = {"explicit_start": True, "sort_keys": False, "allow_unicode": True, "width": 1000}
    with file.open("a", encoding="utf-8") as stream:
        yaml.dump(document, stream, _Dumper, **form)


def _name_and_version(package: Distribution) -> tuple[str, str]:
    """Read name and version with a regex: parsing the metadata of all packages takes a second."""
    text = package.read_text("METADATA") or package.read_text("PKG-INFO") or ""
    name, version = (re.search(rf"^{field}: *(.*)$", text, re.MULTILINE) for field in ("Name", "Version"))
    return name[1] if name else "?", version[1] if version else "?"


def _git() -> dict[str, Any] | None:
    """Return the commit of this repository, its untracked files and the diff; None outside a git repository."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(Path(__file__).parents[3]), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, errors="replace").stdout

    try:
        status = git("status", "--porcelain").splitlines()
        return {
            "commit": git("rev-parse", "HEAD").strip(),
            "untracked": [line[3:] for line in status if line.startswith("??")],
            "diff": redact_secrets("\n".join(line.rstrip() for line in git("diff", "HEAD").splitlines())),
        }
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
