"""Tests of signatures: altered, missing and unsigned files, keys, and loading with --require_signature."""

import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from project.cli import main
from project.errors import UserError
from project.secure.sign import make_key, sign, signature_of, verify
from tests.conftest import QUICK, fit

Failing = Callable[[list[str]], str]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_key(tmp_path / "key")
    return tmp_path / "key"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with signed files and files that change with use."""
    folder = tmp_path / "logs" / "run" / "version_0"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("best", "last"):
        torch.save({"value": torch.full((100,), float(len(name)))}, folder / "checkpoints" / f"{name}.ckpt")
    for name in ("config.yaml", "split.csv", "metrics.csv", "events.out.tfevents.1", "report.html"):
        (folder / name).write_text(name)
    return folder


def public(key: Path) -> Path:
    return key.with_name("key.pub")


def verification_error(path: Path, key: Path) -> str:
    with pytest.raises(UserError) as error:
        verify(path, key=public(key))
    return str(error.value)


def test_the_commands(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["make_key", str(tmp_path / "key")])
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    main(["sign", str(run), "--key", str(tmp_path / "key")])
    (run / "events.out.tfevents.1").write_text("more")
    (run / "report.html").unlink()
    capsys.readouterr()
    main(["verify", str(run), "--key", str(tmp_path / "key.pub")])
    assert "checkpoints/best.ckpt, checkpoints/last.ckpt, config.yaml" in capsys.readouterr().out
    (run / "config.yaml").write_text("other")
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(run), "--key", str(tmp_path / "key.pub")])
    assert stopped.value.code == 2
    assert "altered: config.yaml" in capsys.readouterr().err.splitlines()[-1]


def test_keys_are_not_overwritten(key: Path) -> None:
    before = key.read_bytes(), public(key).read_bytes()
    with pytest.raises(UserError, match="already exists"):
        make_key(key)
    public(key).unlink()
    with pytest.raises(UserError, match="already exists"):
        make_key(key)
    assert key.read_bytes() == before[0]


def test_altered_missing_and_unsigned_files_are_reported(run: Path, key: Path) -> None:
    sign(run, key=key)
    best, last = (run / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1
    best.write_bytes(content)
    assert "altered: checkpoints/best.ckpt." in verification_error(run, key)
    best.unlink()
    assert "missing: checkpoints/best.ckpt." in verification_error(run, key)
    last.rename(best)
    message = verification_error(run, key)
    assert "altered: checkpoints/best.ckpt; missing: checkpoints/last.ckpt." in message
    sign(run, key=key)
    best.rename(run / "checkpoints" / "better.ckpt")
    message = verification_error(run, key)
    assert "missing: checkpoints/best.ckpt; not signed: checkpoints/better.ckpt." in message
    sign(run, key=key)
    (run / "model.onnx").write_bytes(b"")
    assert "not signed: model.onnx." in verification_error(run, key)


def test_a_single_file_is_signed(tmp_path: Path, key: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"weights")
    sign(model, key=key)
    verify(model, key=public(key))
    shutil.copy(model, tmp_path / "other.onnx")
    shutil.copy(signature_of(model), tmp_path / "other.onnx.sig")
    assert "missing: model.onnx; not signed: other.onnx" in verification_error(tmp_path / "other.onnx", key)
    model.write_bytes(b"Weights")
    assert "altered: model.onnx" in verification_error(model, key)


def test_every_change_of_a_signature_is_detected(run: Path, key: Path) -> None:
    sign(run, key=key)
    file, draw = run / "signature", random.Random(0)
    content = file.read_bytes()
    end = content.index(b"\n")
    positions = [
        *range(end + 1),
        *draw.sample(range(end + 1, len(content)), 100),
    ]  # all of the signature, some manifest
    for position in positions:
        flipped = bytearray(content)
        flipped[position] ^= 1 << draw.randrange(8)
        file.write_bytes(flipped)
        assert "is not a signature by" in verification_error(run, key)
    for length in range(0, len(content), 7):
        file.write_bytes(content[:length])
        assert "is not a signature by" in verification_error(run, key)
    for position in range(end):  # uppercase hex digits encode the same bytes
        flipped = bytearray(content)
        flipped[position : position + 1] = flipped[position : position + 1].upper()
        file.write_bytes(flipped)
        assert flipped == content or "is not a signature by" in verification_error(run, key)


def test_signatures_of_other_keys_are_rejected(run: Path, key: Path, tmp_path: Path) -> None:
    assert "is not signed" in verification_error(run, key)
    make_key(tmp_path / "foreign")
    sign(run, key=tmp_path / "foreign")
    assert "was signed with another key" in verification_error(run, key)
    for wrong in (run / "config.yaml", key):
        with pytest.raises(UserError, match="is not a public Ed25519 key"):
            verify(run, key=wrong)
    with pytest.raises(UserError, match="is not a private Ed25519 key"):
        sign(run, key=public(key))
    with pytest.raises(UserError, match="cannot read the public key .*: No such file"):
        verify(run, key=tmp_path / "none")


def test_nothing_to_sign(tmp_path: Path, key: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="nothing to sign"):
        sign(tmp_path / "empty", key=key)
    with pytest.raises(UserError, match="cannot read"):
        sign(tmp_path / "none", key=key)


@pytest.mark.slow
def test_require_signature_loads_only_signed_checkpoints(
    tree: Path, here: Path, key: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(fit(tree, "--test_after_fit", "false", "--trainer.max_epochs", "1"))
    run = here / "logs" / "run" / "version_0"
    best, moved = run / "checkpoints" / "best.ckpt", here / "moved.ckpt"
    required = ["--require_signature", str(public(key))]
    predict = ["predict", "--data.root", str(tree / "red"), *QUICK[:6], *required, "--ckpt_path"]
    assert "is not signed" in failing([*predict, "best"])
    sign(run, key=key)
    main([*predict, "best"])
    assert (here / "logs" / "predict" / "version_0" / "predictions.csv").is_file()
    monkeypatch.chdir(best.parent)
    main([*predict, "best.ckpt"])
    monkeypatch.chdir(here)
    shutil.copy(best, best.with_suffix(".pt"))
    assert "is not among the signed files" in failing([*predict, str(best.with_suffix(".pt"))])
    shutil.copy(best, moved)
    assert "is not signed" in failing([*predict, str(moved)])
    sign(moved, key=key)
    main([*predict, str(moved)])
    for option in ("--model.init_from", "--model.teacher"):
        assert "is not signed" in failing([*fit(tree, option, str(shutil.copy(best, "b.ckpt"))), *required])
    best.write_bytes(b"no checkpoint at all")  # rejected before it is loaded
    assert "altered: checkpoints/best.ckpt" in failing([*predict, str(best)])
