"""Passwords and keys are neither written to run folders nor printed."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from project.output import redact_secrets
from project.runs.provenance import record_start
from scripts.audit import verdict
from tests.conftest import QUICK, fit
from tests.runs import finish

TOKENS = {
    "AWS_SECRET_ACCESS_KEY": "plantedSECRETaccess/key+0",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED000000000",
    "WANDB_API_KEY": "plantedwandb0123456789",
    "HF_TOKEN": "hf_plantedtoken0123456789",
    "PROJECT_KEY": "planted" + 57 * "0",
}
PASSWORD = "planted" + "Password"  # not a literal, as runs record the diff of this file
URL = f"postgresql://someone:{PASSWORD}@127.0.0.1:1/database"
PLANTED = [*TOKENS.values(), PASSWORD]


def test_only_secrets_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "0123456789")
    text = "see https://me:pass@host/x, https://host:80/a@b and --key 0123456789 of s3://bucket/0123"
    assert (
        redact_secrets(text)
        == "see https://me:***@host/x, https://host:80/a@b and --key $SOME_TOKEN of s3://bucket/0123"
    )


@pytest.mark.slow
def test_runs_contain_no_secrets(tree: Path, tmp_path: Path, here: Path) -> None:
    shown = finish([*fit(tree), "--run_name", f"a {TOKENS['HF_TOKEN'][:2]}"], here, **TOKENS)
    shown += finish(["predict", "--ckpt_path", "best", "--data.root", str(tree), *QUICK], here, **TOKENS)
    shown += finish(["test", "--ckpt_path", "best", *QUICK, "--require_signature", ""], here, **TOKENS)
    assert "tested" in shown or "test" in shown
    files = {file: file.read_bytes() for file in (here / "logs").rglob("*") if file.is_file()}
    assert len(files) > 10
    assert not [(file, token) for file, data in files.items() for token in PLANTED if token.encode() in data]
    assert not [token for token in PLANTED if token in shown]


def test_secrets_in_the_recorded_command_are_redacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["train.py", "--storage", URL, "--key", TOKENS["HF_TOKEN"]])
    for name, value in TOKENS.items():
        monkeypatch.setenv(name, value)
    record_start(tmp_path / "environment.yaml", {})
    text = (tmp_path / "environment.yaml").read_text()
    assert "someone:***@" in text and "$HF_TOKEN" in text and not [token for token in PLANTED if token in text]


def test_a_data_url_with_a_password_is_rejected(here: Path, failing: Callable[[list[str]], str]) -> None:
    message = failing(fit(Path("x"), "--data.root", f"s3://me:{PASSWORD}@bucket/shards"))
    assert "contains a password" in message and PASSWORD not in message
    assert not (here / "logs").exists() or not any((here / "logs").rglob("*.yaml"))
    shutil.rmtree(here / "logs", ignore_errors=True)


@pytest.mark.slow
def test_a_failed_database_connection_does_not_print_the_password(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from project.cli import main as tools

    Path("space.yaml").write_text("model.optimizer.lr: {low: 0.001, high: 0.1, log: true}\n")
    Path("c.yaml").write_text(f"data: {{root: {tree}}}\ntrainer: {{max_epochs: 1}}\n")
    with pytest.raises(SystemExit):
        tools(["sweep", "--config", "c.yaml", "--space", "space.yaml", "--trials", "1", "--storage", URL, "--",
               "--checkpoint.monitor", "val/acc"])  # fmt: skip
    shown = capsys.readouterr()
    assert PASSWORD not in shown.out + shown.err and "someone:***@127.0.0.1" in shown.err


def test_audit_fails_on_vulnerabilities_but_not_on_skipped_packages() -> None:
    skipped = [{"name": "a", "skip_reason": "not found"}]
    assert verdict([], {})[1] == verdict(skipped, {})[1] == 0
    bad = [
        *skipped,
        {"name": "b", "version": "1", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-2"], "fix_versions": []}]},
    ]
    lines, code = verdict(bad, {})
    assert code == 1 and "b 1: PYSEC-1" in lines[0]
    assert verdict(bad, {"CVE-2": "not used"})[1] == 0
    assert verdict([{"name": "b", "version": "1", "vulns": []}], {})[1] == 0
