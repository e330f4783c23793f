"""check_data finds planted problems."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from project.__main__ import main
from project.datamodules.images.check import near_pairs


def write_noise(file: Path, seed: int, size: int = 48) -> None:
    """Write an image of smooth noise, different for each seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC).save(file)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A dataset of 72 images with three splits."""
    root = tmp_path / "images"
    for split_number, split in enumerate(("train", "val", "test")):
        for label, name in enumerate(("cat", "dog")):
            for number in range(12):
                seed = 1000 * split_number + 100 * label + number
                write_noise(root / split / name / f"{number:02d}.png", seed)
    return root


def check(root: Path, out: Path, *more: str) -> dict[tuple[str, str], dict[str, str]]:
    main(["check_data", str(root), "--out", str(out), *more])
    return findings(out)


def findings(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (out / "findings.csv").open() as stream:
        return {(row["kind"], row["path"]): row for row in csv.DictReader(stream)}


def test_a_valid_dataset_passes(planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(planted.rglob("*"))
    assert check(planted, tmp_path / "out") == {}
    shown = capsys.readouterr().out
    assert "0 errors, 0 warnings" in shown and "72 images" in shown
    assert sorted(planted.rglob("*")) == before


def test_errors_and_warnings_are_found(planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cat = Image.open(planted / "train" / "cat" / "03.png")
    cat.save(planted / "test" / "cat" / "leak.png", optimize=True)  # the same pixels, another encoding
    cat.resize((40, 40)).save(planted / "val" / "cat" / "near.jpg", quality=60)
    Image.open(planted / "test" / "dog" / "05.png").save(planted / "test" / "cat" / "wrong.png")
    (planted / "train" / "dog" / "broken.png").write_bytes((planted / "train" / "dog" / "00.png").read_bytes()[:300])
    (planted / "train" / "dog" / "text.jpg").write_text("hello")
    Image.new("RGB", (20, 20), "white").save(planted / "train" / "dog" / "blank.png")
    with pytest.raises(SystemExit) as stopped:
        check(planted, tmp_path / "out")
    assert stopped.value.code == 1
    found = findings(tmp_path / "out")
    assert set(found) == {
        ("exact duplicate across splits", "test/cat/leak.png"),
        ("near duplicate across splits", "test/cat/leak.png"),
        ("exact duplicate with conflicting labels", "test/cat/wrong.png"),
        ("unreadable", "train/dog/broken.png"),
        ("unreadable", "train/dog/text.jpg"),
        ("blank", "train/dog/blank.png"),
        ("uncommon format", "val/cat/near.jpg"),
    }
    assert found["exact duplicate across splits", "test/cat/leak.png"]["other"] == "train/cat/03.png"
    assert found["near duplicate across splits", "test/cat/leak.png"]["other"] == "val/cat/near.jpg"
    shown = capsys.readouterr().out
    assert "error: unreadable (2)" in shown and "error: blank (1)" in shown and "6 errors, 1 warning" in shown
    severities = {row["kind"]: row["severity"] for row in found.values()}
    assert [kind for kind, severity in severities.items() if severity == "warning"] == ["uncommon format"]
    assert Image.open(tmp_path / "out" / "findings.png").width > 500


def test_small_classes_in_a_labels_csv(planted: Path, tmp_path: Path) -> None:
    paths = [f"train/{name}/{number:02d}.png" for name in ("cat", "dog") for number in range(12)]
    rows = [f"{path},{path.split('/')[1]}" for path in paths]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(SystemExit) as stopped:
        check(planted, tmp_path / "out", "--table", str(tmp_path / "labels.csv"))
    assert stopped.value.code == 1
    assert set(findings(tmp_path / "out")) == {("too few images", "cat"), ("too few images", "dog")}


def test_a_class_too_small_to_split_or_all_unreadable_is_a_finding(tmp_path: Path) -> None:
    for number in range(12):
        write_noise(tmp_path / "images" / "cat" / f"{number}.png", number)
    write_noise(tmp_path / "images" / "dog" / "0.png", 99)
    (tmp_path / "images" / "rat").mkdir()
    (tmp_path / "images" / "rat" / "0.png").write_text("no image")
    with pytest.raises(SystemExit) as stopped:
        check(tmp_path / "images", tmp_path / "out")
    assert stopped.value.code == 1
    assert {("too few images", "dog"), ("too few images", "rat")} <= set(findings(tmp_path / "out"))


def test_a_missing_optional_package_is_named(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "litdata.streaming.writer", None)
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(SystemExit):
        main(["shard", str(planted), str(tmp_path / "shards")])
    assert "needs the package litdata: pip install -e '.[data]'" in capsys.readouterr().err


def test_near_pairs_match_brute_force() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 60, dtype=np.uint64)
    flips = np.array([sum(1 << int(bit) for bit in rng.choice(64, count, replace=False)) for count in range(12)] * 5)
    hashes = np.concatenate([hashes, hashes ^ flips.astype(np.uint64)])
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None])
    expected = {(i, j) for i in range(120) for j in range(i + 1, 120) if distances[i, j] <= 6}
    assert near_pairs(hashes, 6) == expected and len(expected) >= 35


def test_commands_are_listed_and_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert "check_data" in capsys.readouterr().out
    for args, message in (
        (["chek"], "error: unknown command 'chek': choose from "),
        (["check_data", str(tmp_path / "none")], f"error: no such folder: {tmp_path / 'none'}"),
        (["check_data", "x", "--min_image", "3"], "did you mean --min_images?"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(args)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_fit_warns_about_duplicates(planted: Path, tmp_path: Path, here: Path) -> None:
    from project.cli import main as train
    from tests.conftest import fit

    (planted / "test" / "dog" / "leak.png").write_bytes((planted / "train" / "cat" / "03.png").read_bytes())
    with pytest.warns(UserWarning) as caught:
        train(fit(planted, "--test_after_fit", "false"))
    shown = " ".join(str(warning.message) for warning in caught)
    assert "1 exact duplicate across splits" in shown and "1 exact duplicate with conflicting labels" in shown
    assert "test/dog/leak.png" in shown and "check_data" in shown
