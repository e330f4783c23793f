"""Targets of a table: what is guessed, what is unknown, what is refused, and how it is split."""

from pathlib import Path

import numpy as np
import pytest

from project.datamodules.index import Index, StringArray
from project.datamodules.labels import LabelOptions, Labels, read_labels
from project.datamodules.split import assign_splits, complete_splits
from project.errors import UserError
from project.interface import ClassTarget, MultilabelTarget, Target, ValueTarget
from project.tables import PathColumns, load_table

AUTO = LabelOptions()


def read(
    folder: Path, text: str, label: str | list[str], options: LabelOptions = AUTO, trained: Target | None = None
) -> tuple[Labels, str]:
    """Return the labels of a table and the notes about them."""
    (folder / "t.csv").write_text(text)
    columns = PathColumns(label=label)
    table = load_table(folder / "t.csv", dict.fromkeys([columns.path, *columns.labels], ""))
    return read_labels(table, columns, options, trained), "\n".join(table.notes)


@pytest.mark.parametrize(
    ("cells", "options", "kind", "names"),
    [
        (["a", "b"], AUTO, "classes", ["a", "b"]),
        (["10", "9"], AUTO, "classes", ["9", "10"]),
        (["0.5", "2"], AUTO, "values", ["label"]),
        (["10", "9"], LabelOptions("values"), "values", ["label"]),
        (["0.5", "2"], LabelOptions("classes"), "classes", ["0.5", "2"]),
        (["1", "0"], LabelOptions("multilabel"), "multilabel", ["label"]),
        (["a| b", ""], LabelOptions(separator="|"), "multilabel", ["a", "b"]),
    ],
)
def test_kind_of_one_column(
    cells: list[str], options: LabelOptions, kind: str, names: list[str], tmp_path: Path
) -> None:
    text = "\n".join(["path,label", *(f"{row}.png,{cell}" for row, cell in enumerate(cells))])
    labels, notes = read(tmp_path, text, "label", options)
    assert (labels.kind, labels.names) == (kind, names)
    assert ("holds decimal numbers" in notes) == (options == AUTO and kind == "values")
    assert ("1 row without a label" in notes) == ("" in cells)


def test_columns_of_findings_with_blanks_and_uncertain_ones(tmp_path: Path) -> None:
    """As in public tables of X-rays: 1.0, 0.0, -1.0 and empty."""
    text = "path,edema,mass\n0.png,1.0,\n1.png,-1.0,0.0\n2.png,0,1\n"
    labels, notes = read(tmp_path, text, ["edema", "mass"])
    assert labels.kind == "multilabel" and labels.names == ["edema", "mass"]
    assert np.array_equal(labels.values, [[1, np.nan], [np.nan, 0], [0, 1]], equal_nan=True)
    assert "1 of 6 labels are empty" in notes and "1 of 6 labels are -1 (uncertain)" in notes
    again, _ = read(tmp_path, text, ["edema", "mass"], trained=MultilabelTarget(["mass", "edema"], [], []))
    assert again.names == ["mass", "edema"] and again.values[2].tolist() == [1, 0], "the order of the model"


def test_several_columns_of_numbers_are_values(tmp_path: Path) -> None:
    labels, notes = read(tmp_path, "path,x,y\n0.png,1,-3.5\n1.png,,2\n", ["x", "y"])
    assert labels.kind == "values" and np.isnan(labels.values[1, 0]) and labels.values[0].tolist() == [1, -3.5]
    assert "1 of 4 values are empty" in notes


@pytest.mark.parametrize(
    ("text", "label", "options", "message"),
    [
        ("path,label\n0.png,a\n1.png,", "label", AUTO, "line 3: 1.png has no label"),
        ("path,label\n0.png,a\n1.png,b", "label", LabelOptions("values"), "line 2: label must be a number"),
        ("path,label\n0.png,1e999\n1.png,2", "label", LabelOptions("values"), "line 2: label must be a number"),
        ("path,a,b\n0.png,1,x\n1.png,0,y", ["a", "b"], AUTO, "must hold 0 and 1, or numbers; b has 'x'"),
        ("path,a,b\n0.png,1,2\n1.png,0,1", ["a", "b"], LabelOptions("multilabel"), "line 2: b must be 0, 1, or -1"),
        ("path,label\n0.png,a\n1.png,b", "label", LabelOptions("multilabel"), "needs their separator"),
        ("path,a,b\n0.png,1,0\n1.png,0,1", ["a", "b"], LabelOptions("classes"), "2 label columns, but data.target"),
        ("path,label\n0.png,a|b\n1.png,A", "label", LabelOptions(separator="|"), "'A' and 'a' differ only in case"),
    ],
)
def test_invalid_cells(text: str, label: str | list[str], options: LabelOptions, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message.replace("|", r"\|").replace("(", r"\(")):
        read(tmp_path, text, label, options)


def test_hints_for_cells_that_look_like_something_else(tmp_path: Path) -> None:
    rows = [f"{row}.png,{label}" for row, label in enumerate(["a|b", "a", "b", "c|a", "c"] * 3)]
    assert "use --data.label_separator '|'" in read(tmp_path, "\n".join(["path,label", *rows]), "label")[1]
    rows = [f"{row}.png,{row % 25}" for row in range(50)]
    assert "--data.target values" in read(tmp_path, "\n".join(["path,label", *rows]), "label")[1]
    rows = [f"{row}.png,{label}" for row, label in enumerate(["Saint-Denis, north", "Lyon, south"] * 3)]
    rows = [row.replace(",", ',"', 1) + '"' for row in rows]
    assert "separator" not in read(tmp_path, "\n".join(["path,label", *rows]), "label")[1]


def test_labels_that_the_model_does_not_have(tmp_path: Path) -> None:
    text = "path,label\n0.png,a|c\n1.png,b"
    model = MultilabelTarget(["b", "a"], [], [])
    with pytest.raises(UserError, match="has class 'c', which the trained model does not have"):
        read(tmp_path, text, "label", LabelOptions(separator="|"), model)
    with pytest.raises(UserError, match="differ from those of the trained model in x"):
        read(tmp_path, "path,y\n0.png,1\n1.png,2", "y", AUTO, ValueTarget(["y", "x"], [], []))
    assert read(tmp_path, "path,label\n0.png,a\n1.png,a", "label", AUTO, ClassTarget(["a", "b"], []))[0].names == [
        "a",
        "b",
    ]


def made(kind: str, labels: np.ndarray, groups: np.ndarray | None = None) -> Index:
    names = [f"n{column}" for column in range(labels.shape[1])]
    paths = StringArray(f"{row:05d}.png" for row in range(len(labels)))
    return Index(Path(), paths, labels, np.full(len(labels), ""), names, groups, kind=kind)  # type: ignore[arg-type]


def test_rare_labels_are_in_all_splits() -> None:
    draw = np.random.default_rng(0)
    labels = (draw.random((600, 14)) < np.geomspace(0.01, 0.5, 14)).astype(np.float32)
    labels[draw.random(labels.shape) < 0.2] = np.nan
    split = complete_splits(made("multilabel", labels), 0.15, 0.15, 0)
    known = np.nansum(labels == 1, 0)
    for name, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        rows = split.rows(name)  # type: ignore[arg-type]
        assert abs(len(rows) - share * 600) <= 3
        assert (np.abs(np.nansum(labels[rows] == 1, 0) - share * known) <= np.maximum(1, 0.1 * share * known)).all(), (
            name
        )
    again = complete_splits(made("multilabel", labels), 0.15, 0.15, 0)
    assert (again.splits == split.splits).all() and (complete_splits(again, 0.15, 0.15, 1).splits == split.splits).all()
    other = complete_splits(made("multilabel", labels), 0.15, 0.15, 1)
    assert (other.splits != split.splits).any(), "the seed decides"


def test_values_have_the_same_distribution_in_all_folds() -> None:
    values = np.random.default_rng(0).lognormal(size=(500, 2)).astype(np.float32)
    tested = np.zeros(500)
    for fold in range(5):
        split = assign_splits(made("values", values), 0.15, 0.0, 0, folds=5, fold=fold)
        rows = split.rows("test")
        tested[rows] += 1
        for column in values.T:
            low, high = np.quantile(column, (0.25, 0.75))
            inside = np.mean((column[rows] >= low) & (column[rows] <= high))
            assert abs(inside - 0.5) < 0.07
    assert (tested == 1).all()


def test_groups_of_labels_stay_together() -> None:
    draw = np.random.default_rng(0)
    labels = (draw.random((400, 5)) < 0.3).astype(np.float32)
    groups = np.array([f"g{number}" for number in draw.integers(0, 60, 400)])
    split = assign_splits(made("multilabel", labels, groups), 0.2, 0.2, 0)
    for group in np.unique(groups):
        assert len(set(split.splits[groups == group])) == 1
    assert abs(len(split.rows("test")) - 80) < 20 and abs(len(split.rows("val")) - 80) < 20


def test_target_says_what_it_cannot_learn() -> None:
    labels = np.zeros((40, 2), np.float32)
    labels[:20, 0] = 1
    with pytest.raises(UserError, match="label 'n1' .* has no image in the train split"):
        complete_splits(made("multilabel", labels), 0.2, 0.2, 0).target()
    with pytest.raises(UserError, match="value 'n1' .* is the same for all images"):
        complete_splits(made("values", labels), 0.2, 0.2, 0).target()
    labels[:, 1] = np.nan
    with pytest.raises(UserError, match="value 'n1' .* is empty for all images"):
        complete_splits(made("values", labels), 0.2, 0.2, 0).target()
