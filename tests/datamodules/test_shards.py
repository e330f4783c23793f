"""Shards: the same images, with a fixed split and without metadata."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import torch
from moto.server import ThreadedMotoServer
from PIL import Image

from project.cli import main
from project.cli import main as tool
from project.datamodules.images.builders import Digits
from project.datamodules.images.shards import INDEX, ShardReader, read_shard_index
from project.images import decode, read_bytes
from project.interface import ClassTarget
from tests.conftest import QUICK, REPOSITORY, fit


def test_shards_contain_every_image_with_its_split(tree: Path, tmp_path: Path) -> None:
    tool(["shard", str(tree), str(tmp_path / "shards"), "--short-side", "10", "--quality", "100"])
    index = read_shard_index(str(tmp_path / "shards"), None)
    assert list(index.keys) == sorted(str(path.relative_to(tree)) for path in tree.rglob("*.png"))
    assert {split: len(index.rows(split)) for split in ("train", "val", "test")} == {"train": 42, "val": 9, "test": 9}  # type: ignore[arg-type]
    read = ShardReader(str(tmp_path / "shards"))
    for row in (0, 25, 59):
        image, original = decode(read(row)).pixels, decode(read_bytes(tree / index.keys[row])).pixels
        assert image.shape == (10, 10, 3)
        mean, expected = image.mean((0, 1)), original.mean((0, 1))
        assert np.abs(mean - expected).max() < 4 and index.names[index.labels[row]] in index.keys[row]
    trained = read_shard_index(
        str(tmp_path / "shards"), ClassTarget(["red", "pink", "green", "blue"], [])
    )  # in the model's order
    assert [trained.names[label] for label in trained.labels] == [path.split("/")[0] for path in index.keys]


def test_orientation_is_applied_and_exif_is_removed(tree: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "Secret Owner"
    Image.new("RGB", (30, 20), "red").save(tree / "red" / "turned.jpg", exif=exif)
    tool(["shard", str(tree), str(tmp_path / "shards")])
    index = read_shard_index(str(tmp_path / "shards"), None)
    jpeg = ShardReader(str(tmp_path / "shards"))(list(index.keys).index("red/turned.jpg"))
    assert decode(jpeg).pixels.shape == (30, 20, 3)
    assert all(b"Secret" not in file.read_bytes() for file in (tmp_path / "shards").iterdir())


def test_unreadable_images_and_an_existing_output_directory(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "red" / "000.png").write_text("no image")
    shards = tmp_path / "shards"
    with pytest.raises(SystemExit):
        tool(["shard", str(tree), str(shards)])
    message = capsys.readouterr().err
    assert "1 of 60 images" in message and "skip them with --on_corrupt skip" in message
    assert not list(tmp_path.glob("*shards*")), "no incomplete files remain"
    tool(["shard", str(tree), str(shards), "--on_corrupt", "skip"])
    assert len(read_shard_index(str(shards), None).keys) == 59
    with pytest.raises(SystemExit):
        tool(["shard", str(tree), str(shards)])
    assert f"{shards} exists" in capsys.readouterr().err


def test_duplicates_are_warned_about(tree: Path, tmp_path: Path) -> None:
    (tree / "red" / "copy.png").write_bytes((tree / "blue" / "003.png").read_bytes())
    with pytest.warns(UserWarning, match="1 exact duplicate with conflicting labels, e.g. blue/003.png and red/copy"):
        tool(["shard", str(tree), str(tmp_path / "shards")])


def test_damaged_shards_are_a_user_error(tree: Path, here: Path, failing: Callable[[list[str]], str]) -> None:
    tool(["shard", str(tree), "shards"])
    for chunk in (here / "shards").glob("*.bin"):
        chunk.write_bytes(chunk.read_bytes().replace(b"\xff\xd8\xff", b"no "))
    assert "from the shards (damaged: write them again): not an image" in failing(fit(here / "shards"))


@pytest.mark.slow
def test_the_same_config_trains_on_shards(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool(["shard", str(tree), "shards"])
    crop = ["--data.item_transforms+", "project.datamodules.RandomResizedCrop", "--data.num_workers", "2"]
    main([*fit(here / "shards"), "--trainer.max_epochs", "6", *crop])
    assert "60 images, 3 classes; train 42  val 9  test 9" in capsys.readouterr().out
    main(["test", "--ckpt_path", "best", *QUICK[:4]])
    assert "accuracy 100.00%" in capsys.readouterr().out


def test_invalid_shard_addresses(here: Path, failing: Callable[[list[str]], str]) -> None:
    assert "cannot read the shards at nowhere://bucket" in failing(fit(Path("x"), "--data.root", "nowhere://bucket"))
    (here / INDEX).write_bytes(b"broken")
    assert f"cannot read the shards at {here}" in failing(fit(here))


@pytest.mark.slow
def test_packed_images_files_and_shards_give_the_same_results(here: Path) -> None:
    root = Digits().prepare(here)
    tool(["shard", str(root), "shards", "--quality", "95"])
    common = ["fit", "--config", str(REPOSITORY / "configs" / "convnet.yaml"), "--trainer.max_epochs", "4"]
    common += ["--data.item_transforms+", "torchvision.transforms.v2.CenterCrop", "--data.item_transforms.size", "30"]
    forms = {"packed": [], "plain": ["--data.pack_limit", "0"], "shards": ["--data.root", "shards"]}
    losses, accuracy, weights = {}, {}, {}
    for name, options in forms.items():
        device = ["--data.root", str(root), "--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
        main([*common, *device, *options, "--run_name", name])
        with (here / "logs" / name / "version_0" / "metrics.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        losses[name] = [float(row["val/loss"]) for row in rows if row["val/loss"]]
        accuracy[name] = float(rows[-1]["test/acc"])
        saved = torch.load(here / f"logs/{name}/version_0/checkpoints/last.ckpt", weights_only=True)
        weights[name] = saved["state_dict"]
    assert all(torch.equal(weights["packed"][key], weights["plain"][key]) for key in weights["packed"])
    assert losses["packed"] == losses["plain"] and accuracy["packed"] == accuracy["plain"] > 0.9
    assert losses["shards"] == pytest.approx(losses["packed"], abs=0.05) and losses["shards"][-1] < 0.2
    assert accuracy["shards"] == pytest.approx(accuracy["packed"], abs=0.02)
    assert any(not torch.equal(weights["packed"][key], weights["shards"][key]) for key in weights["packed"])


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A local S3 server with an empty bucket."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    client = boto3.client("s3")
    client.create_bucket(Bucket="images")
    yield client
    server.stop()


@pytest.mark.slow
def test_shards_in_an_object_store(
    tree: Path, here: Path, bucket: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(["shard", str(tree), "shards"])
    for file in (here / "shards").iterdir():
        bucket.upload_file(str(file), "images", f"colors/{file.name}")
    monkeypatch.setenv("DATA_OPTIMIZER_CACHE_FOLDER", str(here / "cache"))
    main([*fit(tree), "--data.root", "s3://images/colors", "--trainer.max_epochs", "6"])
    shown = capsys.readouterr().out
    assert "60 images, 3 classes; train 42  val 9  test 9" in shown and "accuracy 100.00%" in shown
