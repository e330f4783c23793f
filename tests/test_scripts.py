"""Cluster scripts, tested with mocks of the SLURM commands."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, fit

SLURM = REPOSITORY / "scripts" / "slurm.sh"
SRUN = """#!{python}
import os, signal, subprocess, sys
tasks = int(os.environ["SLURM_NTASKS"])
processes = [
    subprocess.Popen(sys.argv[1:], env={{**os.environ, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}})
    for i in range(tasks)
]
signal.signal(signal.SIGTERM, lambda number, _: [process.send_signal(number) for process in processes])
sys.exit(max(abs(process.wait()) for process in processes))
"""


@pytest.mark.parametrize("script", sorted((REPOSITORY / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid_and_executable(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0
    assert os.access(script, os.X_OK)


def test_slurm_options_precede_first_command() -> None:
    lines = [line for line in SLURM.read_text().splitlines() if line]
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH ")]
    first_command = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    assert options and max(options) < first_command, "sbatch ignores options after the first command"
    given = {lines[number].removeprefix("#SBATCH --").partition("=")[0] for number in options}
    assert {"requeue", "signal", "open-mode", "ntasks-per-node", "gpus-per-node"} <= given


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """Environment of a SLURM job with two tasks on this machine, with mocks of srun and scontrol."""
    mocks = tmp_path / "bin"
    mocks.mkdir()
    (mocks / "srun").write_text(SRUN.format(python=sys.executable))
    (mocks / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/requeued\n')
    for command in mocks.iterdir():
        command.chmod(0o755)
    job = {"JOB_ID": 4711, "JOB_NAME": "train", "NNODES": 1, "NTASKS": 2, "NTASKS_PER_NODE": 2, "NODEID": 0}
    return {
        **os.environ,
        "PATH": f"{mocks}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
        "SLURM_JOB_NODELIST": "127.0.0.1",
        **{f"SLURM_{name}": str(value) for name, value in job.items()},
    }


@pytest.mark.slow
@pytest.mark.ddp
def test_job_is_requeued_and_resumes_at_time_limit(tree: Path, tmp_path: Path, cluster: dict[str, str]) -> None:
    (tmp_path / "train.py").symlink_to(REPOSITORY / "train.py")  # the job starts in the root of the repository
    slow = ["--trainer.callbacks", "tests.test_launch.Slow", "--trainer.max_epochs", "4"]
    options = ["--trainer.strategy", "ddp", "--test_after_fit", "false"]
    command = ["bash", str(SLURM), *fit(tree, *slow, *options)[1:]]
    cluster["PYTHONPATH"] = f"{REPOSITORY}:{cluster.get('PYTHONPATH', '')}"
    last = tmp_path / "logs" / "train-4711" / "version_0" / "checkpoints" / "last.ckpt"

    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    job = subprocess.Popen(command, cwd=tmp_path, env=cluster, **streams)  # type: ignore[call-overload]
    deadline = time.monotonic() + 120
    while not last.exists():
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    output = job.communicate(timeout=120)[0]
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n", output
    assert " 4/4 " not in output

    done = subprocess.run(command, cwd=tmp_path, env=cluster, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert [run.name for run in last.parents[2].iterdir()] == ["version_0"], "resumed in the same run folder"
    with (last.parents[1] / "metrics.csv").open() as stream:
        assert [float(row["epoch"]) for row in csv.DictReader(stream) if row["val/loss"]] == [0, 1, 2, 3]
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n", "a finished job is not requeued"
