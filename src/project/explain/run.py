"""The command `explain`: pictures and figures in a run's folder."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from project.errors import UserError
from project.explain.ablation import ablate, ablation_figure
from project.explain.deletion import faithfulness, random_evidence
from project.explain.features import embed, feature_maps_picture, filters_picture, write_embeddings
from project.explain.maps import Method, evidence
from project.explain.pictures import enlarge, overlay, page
from project.files import write_table
from project.interface import Batch, ImageData, Split
from project.modules import Classifier
from project.trained import bring_up

CHUNK = 16
"""Images that are explained together."""
EMBEDDED, ABLATED = 500, 256
"""Images, at most, that are shown by their features, and that accuracy without a layer is measured on."""


def explain(
    trainer: L.Trainer,
    model: Classifier,
    data: ImageData,
    checkpoint: Path,
    images: int,
    methods: Method | Sequence[Method],
    class_name: str | None,
    ablation: bool,
) -> None:
    """Explain images of a folder in the trainer's run folder; see `project.trainer.Trainer.explain`.

    Raises:
        UserError: no such class, several processes, or see `evidence` and `ablate`.
    """
    methods = [methods] if isinstance(methods, str) else methods
    if images < 1 or not methods:
        raise UserError("give at least one image (--images) and one method (--methods)")
    batch = prepare(trainer, model, data, checkpoint, max(images, EMBEDDED))
    assert model.data_description is not None
    names = model.data_description.class_names
    if class_name is not None and class_name not in names:
        raise UserError(f"no class named {class_name}: the model knows {', '.join(names)}")
    known = batch.label >= 0
    if ablation and not known.any():
        raise UserError(f"ablation needs labels: put the images of {data.folder} into folders named as their classes")
    folder = Path(trainer.log_dir or ".")
    chosen = _spread(batch, images)
    paths = [data.path(row) for row in chosen.index.tolist()]
    rows: list[dict[str, Any]] = []
    for start in range(0, len(paths), CHUNK):
        part = _rows(chosen, slice(start, start + CHUNK))
        rows += _explain_part(model, part, paths[start : start + CHUNK], start, methods, class_name, folder)
    write_table(folder / "explanations.csv", rows)
    print(*summary(rows), sep="\n")
    print(f"\n{len(paths)} images of {data.folder}: {folder / 'explanations.csv'}, with a picture each beside it")
    _show_features(model, _spread(batch, EMBEDDED), chosen.image[0], data, folder)
    if ablation:
        _show_ablation(model, _spread(_rows(batch, known), ABLATED), folder)


def _rows(batch: Batch, which: Any) -> Batch:
    return Batch(*(values[which.cpu() if isinstance(which, Tensor) else which] for values in batch))


def _spread(batch: Batch, count: int) -> Batch:
    """At most so many images, evenly spread."""
    return _rows(batch, torch.linspace(0, len(batch.index) - 1, min(count, len(batch.index))).round().long())


def _show_features(model: Classifier, batch: Batch, first: Tensor, data: ImageData, folder: Path) -> None:
    """Write the pictures of filters and feature maps, and the features for TensorBoard."""
    assert model.data_description is not None and model.net is not None
    names = [*model.data_description.class_names, ""]  # the last one for -1
    pictures = {"filters.png": filters_picture(model.net), "feature_maps.png": feature_maps_picture(model, first)}
    for name, picture in pictures.items():
        if picture is not None:
            picture.save(folder / name)
    with torch.no_grad():
        predicted = torch.cat([model(part).argmax(1) for part in batch.image.split(64)])
    columns = {
        "label": [names[i] for i in batch.label.tolist()],
        "predicted": [names[i] for i in predicted.tolist()],
        "path": [data.path(row) for row in batch.index.tolist()],
    }
    write_embeddings(folder, embed(model, batch.image), batch.image, columns)
    there = [name for name, picture in pictures.items() if picture is not None]
    print(
        f"what the net sees: {', '.join(there)}; {len(batch.index)} images by their features: TensorBoard's projector"
    )


def _show_ablation(model: Classifier, batch: Batch, folder: Path) -> None:
    """Write what is lost without layers and channels, as a table and as bars."""
    rows = ablate(model, batch.image, batch.label)
    write_table(folder / "ablation.csv", rows)
    ablation_figure(rows).savefig(folder / "ablation.png")
    print(f"lost without a layer or a channel, of {len(batch.index)} images: {folder / 'ablation.csv'}, ablation.png")


def prepare(trainer: L.Trainer, model: Classifier, data: ImageData, checkpoint: Path, count: int) -> Batch:
    """Put a trained model and up to `count` images, evenly spread, where the trainer computes.

    The data that the model was trained on give images of their test split; any other folder gives all of its images,
    whose labels are the names of their folders, as far as these are classes (-1 elsewhere).
    """
    own = bring_up(trainer, model, data, checkpoint, labelled=False)
    model.views = "one"
    device = trainer.strategy.root_device
    split: Split | Literal[""] = ("test" if data.split_sizes()["test"] else "val") if own else ""
    image, label, index = data.sample(count, split)
    if not own:
        assert model.data_description is not None
        known = {name: number for number, name in enumerate(model.data_description.class_names)}
        folders = [Path(data.path(row)).parent.parts for row in index.tolist()]
        label = torch.tensor([next((known[p] for p in reversed(parts) if p in known), -1) for parts in folders])
    return Batch(image.to(device), label.to(device), index)


def _explain_part(
    model: Classifier,
    batch: Batch,
    paths: list[str],
    first: int,
    methods: Sequence[Method],
    class_name: str | None,
    folder: Path,
) -> list[dict[str, Any]]:
    """Explain some images; write their pictures, return their rows of the table."""
    assert model.data_description is not None
    names = model.data_description.class_names
    image = batch.image
    with torch.no_grad():
        probabilities = model.probabilities(image)
    predicted = probabilities.argmax(1)
    targets = [predicted]
    if class_name is not None:
        targets.append(torch.full_like(predicted, names.index(class_name)))
    rows: list[dict[str, Any]] = []
    tiles: list[list[list[tuple[str, Any]]]] = [[] for _ in paths]
    by_chance = [_areas(model, image, random_evidence(image, first), target) for target in targets]
    for method in methods:
        for number, path in enumerate(paths):
            label = int(batch.label[number])
            title = f"labelled {names[label]}" if label >= 0 else Path(path).name
            tiles[number].append([(title, enlarge(image[number]))])
        for target, chance in zip(targets, by_chance, strict=True):
            maps = evidence(model, image, target, method)
            areas = _areas(model, image, maps, target)
            for number, path in enumerate(paths):
                wanted, label = int(target[number]), int(batch.label[number])
                if target is not predicted and wanted == int(predicted[number]):
                    continue
                probability = float(probabilities[number, wanted])
                title = f"{method}: {names[wanted]} {probability:.1%}"
                tiles[number][-1].append((title, overlay(image[number], maps[number])))
                rows.append(
                    {
                        "path": path,
                        "label": names[label] if label >= 0 else "",
                        "predicted": names[int(predicted[number])],
                        "method": method,
                        "class": names[wanted],
                        "probability": probability,
                        **{name: values[number] for name, values in areas.items()},
                        **{f"random_{name}": values[number] for name, values in chance.items()},
                        "file": _picture_name(first + number, path),
                    }
                )
    for number, path in enumerate(paths):
        page(tiles[number]).save(folder / _picture_name(first + number, path))
    return sorted(rows, key=lambda row: row["file"])


def _areas(model: Classifier, image: Tensor, maps: Tensor, target: Tensor) -> dict[str, list[float]]:
    deletion, insertion = faithfulness(model, image, maps, target)
    return {"deletion": deletion.tolist(), "insertion": insertion.tolist()}


def _picture_name(number: int, path: str) -> str:
    return f"{number:04d}_{re.sub(r'[^A-Za-z0-9_-]', '_', Path(path).stem)}.png"


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Mean areas of each method over the predicted classes, beside those of a random order."""
    rows = [row for row in rows if row["class"] == row["predicted"]]
    lines = [f"{'predicted class, mean area':<28}{'deletion':>9}{'random':>8}{'insertion':>11}{'random':>8}"]
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        names = ("deletion", "random_deletion", "insertion", "random_insertion")
        mean = [sum(row[name] for row in mine) / len(mine) for name in names]
        lines.append(f"{method:<28}{mean[0]:>9.3f}{mean[1]:>8.3f}{mean[2]:>11.3f}{mean[3]:>8.3f}")
    return [
        *lines,
        "the further deletion is below a random order's, and insertion above it, the truer the maps",
    ]
