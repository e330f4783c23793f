"""Shards: the same images, split once, without what a camera wrote into them."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image

from project.__main__ import main as tool
from project.cli import main
from project.datamodules.decode import decode_image, read_image
from project.datamodules.digits import Digits
from project.datamodules.shards import INDEX, ShardReader, read_shard_index
from tests.conftest import QUICK, REPOSITORY, fit


def test_every_image_comes_back_in_its_split(tree: Path, tmp_path: Path) -> None:
    tool(["shard", str(tree), str(tmp_path / "shards"), "--short-side", "10", "--quality", "100"])
    index = read_shard_index(str(tmp_path / "shards"), None)
    assert list(index.paths) == sorted(str(path.relative_to(tree)) for path in tree.rglob("*.png"))
    assert {split: len(index.rows(split)) for split in ("train", "val", "test")} == {"train": 42, "val": 9, "test": 9}  # type: ignore[arg-type]
    read = ShardReader(str(tmp_path / "shards"))
    for row in (0, 25, 59):
        image = decode_image(read(row))
        assert image.shape == (3, 10, 10)
        mean, expected = image.float().mean((1, 2)), read_image(tree / index.paths[row]).float().mean((1, 2))
        assert np.abs(mean - expected).max() < 4 and index.class_names[index.labels[row]] in index.paths[row]


def test_orientation_is_applied_and_nothing_else_of_exif_survives(tree: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "Secret Owner"
    Image.new("RGB", (30, 20), "red").save(tree / "red" / "turned.jpg", exif=exif)
    tool(["shard", str(tree), str(tmp_path / "shards")])
    index = read_shard_index(str(tmp_path / "shards"), None)
    jpeg = ShardReader(str(tmp_path / "shards"))(list(index.paths).index("red/turned.jpg"))
    assert decode_image(jpeg).shape == (3, 30, 20)
    assert all(b"Secret" not in file.read_bytes() for file in (tmp_path / "shards").iterdir())


def test_unreadable_images_and_a_folder_that_exists(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "red" / "000.png").write_text("no image")
    shards = tmp_path / "shards"
    with pytest.raises(SystemExit):
        tool(["shard", str(tree), str(shards)])
    assert "1 of 60 images" in capsys.readouterr().err
    assert not list(tmp_path.glob("*shards*")), "nothing half-written stays"
    tool(["shard", str(tree), str(shards), "--on_corrupt", "skip"])
    assert len(read_shard_index(str(shards), None).paths) == 59
    with pytest.raises(SystemExit):
        tool(["shard", str(tree), str(shards)])
    assert f"{shards} exists" in capsys.readouterr().err


def test_the_same_config_trains_on_shards(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool(["shard", str(tree), "shards"])
    crop = ["--data.item_transforms+", "project.datamodules.RandomResizedCrop", "--data.num_workers", "2"]
    main([*fit(here / "shards"), "--trainer.max_epochs", "6", *crop])
    assert "60 images, 3 classes; train 42  val 9  test 9" in capsys.readouterr().out
    main(["test", "--ckpt_path", "best", *QUICK[:4]])
    assert "accuracy 100.00%" in capsys.readouterr().out


def test_what_is_no_address_of_shards(here: Path, failing: Callable[[list[str]], str]) -> None:
    assert "cannot read the shards at nowhere://bucket" in failing(fit(Path("x"), "--data.root", "nowhere://bucket"))
    (here / INDEX).write_bytes(b"broken")
    assert f"cannot read the shards at {here}" in failing(fit(here))


@pytest.mark.slow
def test_packed_plain_and_shards_train_alike(here: Path) -> None:
    root = Digits().prepare(here)
    tool(["shard", str(root), "shards", "--quality", "95"])
    common = ["fit", "--config", str(REPOSITORY / "configs" / "convnet.yaml"), "--trainer.max_epochs", "4"]
    forms = {"packed": [], "plain": ["--data.pack_limit", "0"], "shards": ["--data.root", "shards"]}
    results = {}
    for name, options in forms.items():
        where = ["--data.root", str(root), "--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
        main([*common, *where, *options, "--run_name", name])
        with (here / "logs" / name / "version_0" / "metrics.csv").open() as stream:
            results[name] = [float(row["val/loss"]) for row in csv.DictReader(stream) if row["val/loss"]]
    assert results["packed"] == results["plain"], "the same pixels, order and draws"
    assert results["shards"] == pytest.approx(results["packed"], abs=0.05) and results["shards"][-1] < 0.2


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 server on this machine."""
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
        bucket.upload_file(str(file), "images", f"colours/{file.name}")
    monkeypatch.setenv("DATA_OPTIMIZER_CACHE_FOLDER", str(here / "cache"))
    main([*fit(tree), "--data.root", "s3://images/colours", "--trainer.max_epochs", "6"])
    shown = capsys.readouterr().out
    assert "60 images, 3 classes; train 42  val 9  test 9" in shown and "accuracy 100.00%" in shown
