"""Weights & Biases and MLflow beside the run's own logger, with the real packages and without a network."""

import csv
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.loggers import Logger
from lightning_utilities.core.imports import RequirementCache

from project.cli import main
from tests.conftest import REPOSITORY, fit

RUN = Path("logs/run/version_0")
BOTH = {
    "trainer": {
        "logger": [
            {"class_path": "WandbLogger", "init_args": {"project": "birds"}},
            {"class_path": "MLFlowLogger", "init_args": {"experiment_name": "birds"}},
        ]
    }
}


def train(args: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    quiet = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), *args],
        cwd=cwd,
        env={**os.environ, **quiet, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def mlflow_runs(address: str) -> tuple[Any, list[Any]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("birds")
    assert experiment is not None
    return client, client.search_runs([experiment.experiment_id])


needs_report = pytest.mark.skipif(find_spec("project.report") is None, reason="the report was removed")


@pytest.mark.slow
@needs_report
def test_trackers_join_the_runs_own_logger_and_are_resumed(tree: Path, here: Path) -> None:
    Path("both.yaml").write_text(yaml.safe_dump(BOTH))
    done = train(fit(tree, "--config", "both.yaml", "--model.optimizer.lr", "0.002"), here)
    assert done.returncode == 0, done.stderr
    resumed = train(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "3"], here)
    assert resumed.returncode == 0, resumed.stderr

    names = {item.name for item in RUN.iterdir()}
    assert {"config.yaml", "metrics.csv", "report.html", "checkpoints", "split.csv", "wandb"} <= names
    assert not Path("wandb").exists() and not Path("mlruns").exists() and len(list(Path("logs/run").iterdir())) == 1
    saved = yaml.safe_load((RUN / "config.yaml").read_text())["trainer"]["logger"]
    assert saved[0]["init_args"]["name"] is None and saved[1]["init_args"]["run_name"] is None, "for the next run"

    recorded = sorted((RUN / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(recorded) == 2 and len({file.name for file in recorded}) == 1, "one run of W&B, in two parts"
    content = recorded[0].read_bytes()
    for expected in ("run/version_0", "val/acc", "val/confusion_matrix", "train/first_batch", "report.html", "birds"):
        assert expected.encode() in content, expected
    assert b"model.optimizer.init_args.lr" in content

    client, (run,) = mlflow_runs("sqlite:///logs/mlflow.db")
    assert (run.info.run_name, run.info.status) == ("run/version_0", "FINISHED")
    assert run.data.params["model.optimizer.init_args.lr"] == "0.002" and run.data.params["trainer.max_epochs"] == "2"
    with (RUN / "metrics.csv").open(newline="") as stream:
        expected_acc = [float(row["val/acc"]) for row in csv.DictReader(stream) if row["val/acc"]]
    assert [metric.value for metric in client.get_metric_history(run.info.run_id, "val/acc")] == expected_acc
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"report.html", "images", "val", "test"} <= artifacts
    assert run.data.tags["report"] == str((here / RUN / "report.html").resolve())


@pytest.fixture
def server(here: Path) -> Iterator[str]:
    """Address of an MLflow server on the loopback interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{here}/server.db", "--artifacts-destination", str(here / "artifacts")]
    process = subprocess.Popen([*command, *store], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
@needs_report
def test_mlflow_server(tree: Path, here: Path, server: str) -> None:
    args = fit(tree, "--trainer.logger", "MLFlowLogger", "--trainer.logger.experiment_name", "birds")
    done = train(args, here, MLFLOW_TRACKING_URI=server)
    assert done.returncode == 0, done.stderr
    client, (run,) = mlflow_runs(server)
    assert run.info.run_name == "run/version_0" and "test/acc" in run.data.metrics
    assert "report.html" in {file.path for file in client.list_artifacts(run.info.run_id)}
    assert not Path("logs/mlflow.db").exists()


@pytest.mark.slow
def test_unreachable_server_is_one_line(
    tree: Path, here: Path, failing: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = ["--trainer.logger.tracking_uri", "http://127.0.0.1:9"]
    assert failing(fit(tree, "--trainer.logger", "MLFlowLogger", *address)).startswith("error: mlflow: ")
    assert not RUN.exists(), "nothing was trained"


@pytest.mark.parametrize(("name", "extra"), [("WandbLogger", "wandb"), ("MLFlowLogger", "mlflow")])
def test_missing_tracker_is_one_line(
    name: str, extra: str, tree: Path, here: Path, failing: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        f"lightning.pytorch.loggers.{extra}._{extra.upper()}_AVAILABLE", RequirementCache(f"{extra}>=999")
    )
    assert failing(fit(tree, "--trainer.logger", name)) == (
        f"error: this needs the package {extra}: pip install -e '.[{extra}]'"
    )
    assert not RUN.exists()


def test_built_in_logger_is_rejected(tree: Path, here: Path, failing: Callable[[list[str]], str]) -> None:
    said = failing(fit(tree, "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "."))
    assert said.startswith("error: trainer.logger CSVLogger: every run logs to TensorBoard and metrics.csv")
    assert not RUN.exists()


def test_other_loggers_join(tree: Path, here: Path) -> None:
    config = {"trainer": {"logger": {"class_path": "tests.test_trackers.Recorder"}}}
    Path("own.yaml").write_text(yaml.safe_dump(config))
    main(fit(tree, "--config", "own.yaml"))
    assert (RUN / "metrics.csv").is_file() and (RUN / "config.yaml").is_file()
    recorded = json.loads(Path("recorded.json").read_text())
    assert recorded["name"] == "run/version_0" and recorded["hyperparameters"]["trainer.max_epochs"] == 2
    assert {"val/acc", "test/acc", "train/learning_rate"} <= set(recorded["metrics"])


class Recorder(Logger):
    """A logger that knows nothing of images."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self._name, self.kept = name, {"name": name, "metrics": [], "hyperparameters": {}}

    @property
    def name(self) -> str | None:
        return self._name

    @property
    def version(self) -> str:
        return "1"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.kept["metrics"] += metrics  # type: ignore[operator]
        self.save()

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.kept["hyperparameters"] |= params  # type: ignore[operator]

    def save(self) -> None:
        Path("recorded.json").write_text(json.dumps(self.kept))
