"""Labels, splits, groups and folds from a table."""

from pathlib import Path

import numpy as np
import pytest

from project.datamodules import ImageDataModule
from project.datamodules.images.index import index_image_table
from project.datamodules.sampler import EpochBatchSampler
from project.datamodules.split import assign_splits, complete_splits, hold_out_fold
from project.errors import UserError
from project.tables import PathColumns
from tests.conftest import COLORS, write_images

PATIENTS = PathColumns(group="patient")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """36 images of 12 patients in one folder, and a CSV."""
    lines = ["path,label,patient"]
    for number, (name, color) in enumerate(COLORS.items()):
        write_images(tmp_path / "scans" / name, 12, color)
        lines += [f"scans/{name}/{i:03d}.png,{name.upper()},p{i // 3 + 4 * number}" for i in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    return tmp_path / "labels.csv"


def test_labels_and_groups_come_from_the_table(table: Path) -> None:
    index = index_image_table(table, table.parent, PATIENTS)
    assert index.names == ["BLUE", "GREEN", "RED"] and len(index.keys) == 36
    split = complete_splits(index, 0.25, 0.25, seed=0)
    assert index.groups is not None
    splits_of = {group: set(split.splits[index.groups == group]) for group in set(index.groups.tolist())}
    assert all(len(splits) == 1 for splits in splits_of.values()), "a patient is in one split only"
    assert {name: len(split.rows(name)) for name in ("train", "val", "test")} == {"train": 18, "val": 9, "test": 9}  # type: ignore[arg-type]


def test_folds_hold_out_every_image_once(table: Path) -> None:
    index = index_image_table(table, table.parent, PATIENTS)
    held_out = [hold_out_fold(index, fold, 4, 0.34, 0).rows("test").tolist() for fold in range(4)]
    assert sorted(row for fold in held_out for row in fold) == list(range(36)) and {len(fold) for fold in held_out} == {
        9
    }
    assert index.groups is not None
    for fold in held_out:
        inside = set(index.groups[fold])
        assert inside.isdisjoint(index.groups[[i for i in range(36) if i not in fold]])


def test_splits_in_the_csv_are_kept(table: Path) -> None:
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join(
            [lines[0] + ",split", *(f"{line},{'test' if n % 4 == 0 else ''}" for n, line in enumerate(lines[1:]))]
        )
    )
    drawn = complete_splits(index_image_table(table, table.parent), 0.3, 0.3, 0)
    assert [len(drawn.rows(split)) for split in ("test", "val")] == [9, 9], "empty splits are drawn"
    given = table.read_text() + "\n"
    table.write_text(given.replace(",\n", ",val\n"))
    with pytest.raises(UserError, match="no image in the train split"):
        index_image_table(table, table.parent)
    table.write_text(given.replace(",\n", ",Training\n"))
    index = index_image_table(table, table.parent)
    assert len(index.rows("test")) == 9
    fold = hold_out_fold(index, 0, 3, 0.2, 0)
    assert fold.rows("test").tolist() == index.rows("test").tolist() and len(fold.rows("val")) == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("patient", "person"), "no column 'patient'; .* with --data.columns.group"),
        (lambda text: text.replace("blue/003", "blue/999"), "line 5: no such image"),
        (lambda text: text.replace("blue/003", "blue/002"), "line 5: scans/blue/002.png is listed twice"),
        (lambda text: text.replace("scans/blue/003", "./scans//blue/002"), "line 5: .* is listed twice"),
        (lambda text: text.replace(",BLUE,p0", ",,p0"), "line 2: scans/blue/000.png has no label"),
        (lambda text: text.replace("scans/blue/000.png,BLUE", ",BLUE"), "line 2: no path"),
        (lambda text: text.replace("scans/blue/000.png,BLUE,p0", "scans/blue/000.png"), "line 2: 1 cell, but"),
        (lambda text: text.splitlines()[0], "has a header but no rows"),
        (lambda text: "PK\x03\x04" + text, "is an Excel workbook"),
        (lambda text: text.replace("GREEN", "BLUE").replace("RED", "BLUE"), "only one class, 'BLUE'"),
    ],
)
def test_invalid_tables(table: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    table.write_text(change(table.read_text()))
    with pytest.raises(UserError, match=message):
        index_image_table(table, table.parent, PATIENTS)


def test_val_and_test_fractions_of_groups_may_exceed_half(table: Path) -> None:
    split = complete_splits(index_image_table(table, table.parent, PATIENTS), 0.1, 0.6, 0)
    assert 0.5 < np.mean(split.splits == "test") < 0.75 and len(split.rows("val"))


def test_an_empty_group_is_one_image_and_small_fractions_take_one_group(table: Path) -> None:
    table.write_text(table.read_text().replace(",p0", ","))
    index = index_image_table(table, table.parent, PATIENTS)
    assert index.groups is not None and len(np.unique(index.groups)) == 11 + 3
    split = complete_splits(index, 0.02, 0.02, 0)
    assert len(split.rows("val")) >= 1 and len(split.rows("test")) >= 1 and len(split.rows("train")) > 24


def test_a_class_of_one_group_cannot_be_split(table: Path) -> None:
    text = table.read_text()
    for patient in ("p1", "p2", "p3"):
        text = text.replace(f"BLUE,{patient}\n", "BLUE,p0\n")
    table.write_text(text)
    with pytest.raises(UserError, match="class 'BLUE' .* no images in the train split"):
        for seed in range(20):
            options = {"val_fraction": 0.3, "test_fraction": 0.3, "split_seed": seed, "pack_limit": 0}
            ImageDataModule(table=str(table), columns=PATIENTS, **options).setup("fit")  # type: ignore[arg-type]


def test_group_leakage_is_an_error(table: Path) -> None:
    lines = table.read_text().splitlines()
    rows = [f"{line},{('train', 'test')[n % 2]}" for n, line in enumerate(lines[1:])]
    table.write_text("\n".join([f"{lines[0]},split", *rows]))
    index = index_image_table(table, table.parent, PATIENTS)
    for folds in (0, 3):
        with pytest.raises(UserError, match=r"group 'p\d+' is in test and (train|val)"):
            assign_splits(index, 0.2, 0.0, 0, folds)
    assign_splits(index_image_table(table, table.parent), 0.2, 0.0, 0)


def test_a_class_without_training_images_is_an_error(table: Path) -> None:
    lines = table.read_text().splitlines()
    rows = [f"{line},{'test' if 'BLUE' in line else ('train', 'val')[n % 2]}" for n, line in enumerate(lines[1:])]
    table.write_text("\n".join([f"{lines[0]},split", *rows]))
    with pytest.raises(UserError, match="class 'BLUE' .* has no images in the train split"):
        ImageDataModule(table=str(table), pack_limit=0).setup("fit")


def test_too_few_groups(table: Path) -> None:
    index = index_image_table(table, table.parent, PATIENTS)
    with pytest.raises(UserError, match="12 groups, too few to split into 13 folds"):
        hold_out_fold(index, 0, 13, 0.2, 0)


def test_a_balanced_column_is_sampled_equally_often_per_class(table: Path) -> None:
    index = index_image_table(table, table.parent, PathColumns(balance="patient"))
    strata = index.strata(np.arange(36))
    assert len(np.unique(strata)) == 12, "each patient has one class"
    rare = np.concatenate([np.arange(12), [12, 24]])  # all images of one class, one of each other
    strata = index.strata(rare)
    order = np.concatenate([r.positions for r in EpochBatchSampler(14, 4, "reshuffled each epoch", strata=strata)])
    assert len(order) == 14 and np.bincount(np.unique(strata[order], return_inverse=True)[1]).max() <= 3
    with pytest.raises(UserError, match="no column 'camera'"):
        index_image_table(table, table.parent, PathColumns(balance="camera"))
    for options, message in (
        ({"table": str(table)}, "add --data.sampling balanced"),
        ({"sampling": "balanced"}, "a table: add --data.table"),
    ):
        with pytest.raises(UserError, match=message):
            ImageDataModule(columns=PathColumns(balance="patient"), **options)  # type: ignore[arg-type]
