"""Models of texts: export, inference in Python and `predict_exported`, for texts in any script and of any length."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import project
from project.cli import main
from project.deploy.load import load_exported
from project.errors import UserError
from tests.conftest import REPOSITORY

RUN = Path("logs/run/version_0")
BEST = RUN / "checkpoints" / "best.ckpt"
CPU = ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
ODD = [
    *("", "a", "turn the lights off"),
    *("caf\u00e9 na\u00efve", "cafe\u0301 nai\u0308ve", "打开灯", "\U0001f600\U0001f680", "\x00"),
    *("\u200bgood ", "mixed 中文 and caf\u00e9 \U0001f44d", "good " * 500, "好" * 700),
]
"""Texts with accents in both Unicode forms, in Chinese, of emoji, empty and longer than 1,024 bytes."""
FILLER = ["the", "film", "i", "saw", "was", "我", "看", "了", "电影", "naïve", "café", "😀"]
WORDS = {"bad": ["poor", "差", "triste"], "good": ["great", "好", "g\u00e9nial"]}


@pytest.fixture
def trained(here: Path) -> Path:
    """A run of a network on bytes, trained with augmentation on texts of 1 to 800 words."""
    random = np.random.default_rng(0)
    with Path("reviews.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for number in range(160):
            name = ("bad", "good")[number % 2]
            length = [0, 2, 6, 20, 800][number // 2 % 5]
            words = [*random.choice(FILLER, length), *random.choice(WORDS[name], 1 + length // 4), str(number)]
            writer.writerow([" ".join(map(str, words)), name])
    data = ["--data", "project.datamodules.texts.TextDataModule", "--data.table", "reviews.csv"]
    data += ["--data.item_transforms", "[project.datamodules.texts.WordDropout]", "--data.num_workers", "0"]
    net = ["--model.net", "project.modules.networks.texts.ByteNet"]
    main(["fit", *data, *net, *CPU, "--trainer.max_epochs", "2", "--test_after_fit", "false"])
    return here


def table(file: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a CSV file."""
    with file.open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    return header, rows


@pytest.mark.slow
def test_all_formats_predict_the_same_as_the_checkpoint(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = project.load(BEST)
    expected = np.stack([each.scores for each in model.predict(ODD)])
    assert expected[4] == pytest.approx(expected[3], abs=1e-7), "both Unicode forms"
    for format in ("onnx", "pt2", "safetensors"):
        main(["export", "--ckpt_path", "best", "--format", format, *CPU])
        assert "texts, individually and as a batch" in (shown := capsys.readouterr().out)
        assert "100.00% of predictions agree" in shown
        file = RUN / f"model.{format}"
        exported = project.load(file)
        batch, single = exported.predict(ODD), [exported.predict(text) for text in ODD]
        for found in (batch, single):
            np.testing.assert_allclose(np.stack([each.scores for each in found]), expected, atol=2e-6)
        metadata = load_exported(file).metadata
        assert metadata["input"].startswith("text: uint8 (N, bytes)") and "1,024 bytes" in metadata["input"]
    graph = onnx.load(RUN / "model.onnx").graph
    assert [each.name for each in graph.input] == ["text"] and graph.output[0].name == "probabilities"

    main(["export", "--ckpt_path", "best", "--int8", "true", *CPU])
    assert "in int8; " in capsys.readouterr().out
    sizes = [(RUN / f"model{suffix}.onnx").stat().st_size for suffix in ("", "_int8")]
    assert sizes[1] < 0.35 * sizes[0]
    quantized = np.stack([each.scores for each in project.load(RUN / "model_int8.onnx").predict(ODD)])
    np.testing.assert_allclose(quantized, expected, atol=0.05)


@pytest.mark.slow
def test_a_file_that_disagrees_is_deleted(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["export", "--ckpt_path", "best", *CPU])
    file = RUN / "model.onnx"
    from project.deploy import export

    def write(partial: Path, *_: object) -> None:
        changed = onnx.load(file)
        (bias,) = [value for value in changed.graph.initializer if value.name.endswith("head.bias")]
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32([0.01, 0]), bias.name))
        onnx.save(changed, partial)

    before = file.read_bytes()
    monkeypatch.setattr(export, "write", write)
    with pytest.raises(SystemExit):
        main(["export", "--ckpt_path", "best", *CPU])
    assert file.read_bytes() == before and sorted(RUN.glob("*.onnx")) == [file]


@pytest.mark.slow
def test_predict_exported_writes_the_table_of_predict(
    trained: Path, tmp_path: Path, failing: Callable[[list[str]], str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["export", "--ckpt_path", "best", "--output", "m.onnx", *CPU])
    with Path("new.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["review", "n"], *([text.replace("\x00", ""), "1"] for text in ODD)])
    options = ["--data.table", "new.csv", "--data.columns.text", "review"]
    main(["predict", "--ckpt_path", "best", *options, *CPU])
    header, theirs = table(Path("logs/predict/version_0/predictions.csv"))
    # In a process that cannot import torch.
    for name in ("torch", "lightning"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('ONNX needs no torch')")
    args = ["predict_exported", "m.onnx", "--table", "new.csv", "--columns.text", "review", "--output", "p.csv"]
    done = subprocess.run(
        [sys.executable, "-m", "project", *args],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY / "src")])},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "2 texts: cut, as the model reads up to 1,024 bytes" in done.stdout and "2 texts: empty" in done.stdout
    ours = table(Path("p.csv"))
    assert ours[0] == header == ["text", "class", "bad", "good"]
    assert len(theirs) == len(ODD) and [row[:2] for row in ours[1]] == [row[:2] for row in theirs]
    numbers = [np.array([row[2:] for row in rows], float) for rows in (ours[1], theirs)]
    np.testing.assert_allclose(*numbers, atol=2e-6)

    folder = Path("notes")
    folder.mkdir()
    (folder / "b.txt").write_text("打开灯\n", encoding="utf-8")
    (folder / "a.txt").write_bytes("caf\u00e9 na\u00efve".encode("cp1252"))
    (folder / "c.md").write_text("no")
    capsys.readouterr()
    main(["predict_exported", "m.onnx", "notes", "--output", "f.csv"])
    assert "skipped: 1 .md" in capsys.readouterr().out
    assert table(Path("f.csv"))[1] == [next(row for row in ours[1] if row[0] == text) for text in (ODD[3], ODD[5])]
    main(["predict_exported", "--output", "t.csv", "m.onnx", "--text", " turn the lights off"])
    assert table(Path("t.csv"))[1] == [ours[1][2]]
    assert "turn the lights off: " in capsys.readouterr().out

    for args, message in (
        (["none.txt"], "no such folder or file: none.txt; to predict a text, use --text"),
        (["--table", "new.csv"], "has no column 'text'; it has review, n: name one with --columns.text"),
        ([], "give the samples to predict as one of"),
        (["notes", "--text", "a"], "give the samples to predict as one of"),
    ):
        assert message in failing(["predict_exported", "m.onnx", *args])


def test_models_of_another_input_are_refused(here: Path) -> None:
    from collections import Counter

    from project.interface import ImageInput, Input, Source

    with pytest.raises(UserError, match="the model takes images: give a folder or an image"):
        ImageInput(8, 8).batches(Source(None, text="a"), Counter())
    with pytest.raises(UserError, match="samples cannot be read from files"):
        Input().batches(Source(Path("a")), Counter())
    with pytest.raises(UserError, match="models of samples cannot be exported"):
        _ = Input().graph
