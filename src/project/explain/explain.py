"""The command `train.py explain`."""

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from project.errors import UserError
from project.explain.ablation import ablate, ablation_figure
from project.explain.attribution import Method, attribution, faithfulness, random_attribution
from project.explain.features import embed, feature_maps_image, filters_image, write_embeddings
from project.explain.render import enlarge, image_grid, overlay
from project.files import write_table
from project.interface import Batch, Split
from project.modules import Classifier
from project.runs.folder import reserve_version
from project.runs.job import Trained

BATCH_SIZE = 16
MAX_EMBEDDED, MAX_ABLATION = 500, 256  # maximum number of images for embeddings and for ablation
AREAS = ("deletion", "insertion", "random_deletion", "random_insertion")


def explain(
    trained: Trained,
    images: int = 16,
    methods: Method | list[Method] = "gradcam",
    class_name: str | None = None,
    ablation: bool = False,
) -> None:
    """Compute attribution maps and their faithfulness, visualize learned features and ablate layers.

    Args:
        trained: The trained classifier and the datamodule.
        images: Maximum number of images to explain, evenly spaced over the dataset.
        methods: Attribution method or list of methods: [gradcam, occlusion]. All but gradcam require the extra
            `explain`.
        class_name: Also explain this class for each image, besides the predicted one.
        ablation: Whether to also compute the accuracy lost by ablating each layer and its most important channels;
            requires labels: the training dataset, or images in folders named after their classes.

    Raises:
        UserError: there is no such class, there are several processes, or see `attribution`.
    """
    methods = [methods] if isinstance(methods, str) else methods
    if images < 1 or not methods:
        raise UserError("explain needs at least one image (--images) and one method (--methods)")
    batch = prepare(trained, max(images, MAX_EMBEDDED))
    model, data, names = trained.module, trained.data, _class_names(trained.module)
    if class_name is not None and class_name not in names:
        raise UserError(f"no class named {class_name}: the classes are {', '.join(names)}")
    labeled = batch.target >= 0
    if ablation and not labeled.any():
        raise UserError(
            f"ablation needs labels: put the images of {data.folder} into folders named after their classes"
        )
    root, folder = Path(trained.trainer.default_root_dir), None
    selected = _evenly_spaced(batch, images)
    paths = [data.path(row) for row in selected.index.tolist()]
    rows: list[dict[str, Any]] = []
    masks = data.content(selected.index.tolist())
    for start in range(0, len(paths), BATCH_SIZE):
        chosen = slice(start, start + BATCH_SIZE)
        part, mask = _select(selected, chosen), None if masks is None else masks[chosen].to(model.device)
        new_rows, figures = _explain_batch(model, part, mask, paths[chosen], start, methods, class_name)
        # Created after the first batch, so that a failure leaves no empty folder.
        folder = folder or root / "explain" / f"version_{reserve_version(root, 'explain')}"
        rows += new_rows
        for name, figure in figures.items():
            figure.save(folder / name)
    assert folder is not None
    write_table(folder / "explanations.csv", rows)
    _print_areas([row for row in rows if row["class"] == row["predicted"]])
    print(f"\n{len(paths)} images of {data.folder}: {folder / 'explanations.csv'}, with one figure per image")
    if bands := model.data_description.image.shown_bands:
        print(f"the figures show {bands}")
    _write_features(trained, _evenly_spaced(batch, MAX_EMBEDDED), selected.inputs[0], folder)
    if ablation:
        sample = _evenly_spaced(_select(batch, labeled), MAX_ABLATION)
        ablation_rows = ablate(model, sample.inputs, sample.target)
        write_table(folder / "ablation.csv", ablation_rows)
        ablation_figure(ablation_rows).savefig(folder / "ablation.png")
        print(f"ablation of layers and channels on {len(sample.index)} images: {folder / 'ablation.csv'}, ablation.png")


def _class_names(model: Classifier) -> list[str]:
    return model.data_description.classes.class_names


def _select(batch: Batch, rows: Any) -> Batch:
    return Batch(*(values[rows.cpu() if isinstance(rows, Tensor) else rows] for values in batch))


def _evenly_spaced(batch: Batch, count: int) -> Batch:
    """Return at most `count` evenly spaced images."""
    return _select(batch, torch.linspace(0, len(batch.index) - 1, min(count, len(batch.index))).round().long())


def _write_features(trained: Trained, batch: Batch, first: Tensor, folder: Path) -> None:
    """Write images of filters and feature maps, and embeddings for TensorBoard."""
    model, net = trained.module, trained.module.net
    names = [*_class_names(model), ""]  # the last one for -1
    optional = {"filters.png": filters_image(net, len(first)), "feature_maps.png": feature_maps_image(model, first)}
    figures = {name: figure for name, figure in optional.items() if figure is not None}
    for name, figure in figures.items():
        figure.save(folder / name)
    with torch.no_grad():
        predicted = torch.cat([model(part).argmax(1) for part in batch.inputs.split(64)])
    columns = {
        "label": [names[i] for i in batch.target.tolist()],
        "predicted": [names[i] for i in predicted.tolist()],
        "path": [trained.data.path(row) for row in batch.index.tolist()],
    }
    write_embeddings(folder, embed(model, batch.inputs), batch.inputs, columns)
    embeddings = f"embeddings of {len(batch.index)} images in TensorBoard's projector"
    print(f"learned features: {', '.join([*figures, embeddings])}")


def prepare(trained: Trained, count: int) -> Batch:
    """Load a trained model onto the trainer's device; return up to `count` evenly spaced images on it.

    With the training dataset, the images are from its test split (val if it has none). With any other folder, labels
    are the names of parent folders, -1 if none is a class.
    """
    own, model, data = trained.load("predict"), trained.module, trained.data
    model.tta = "none"
    device = trained.trainer.strategy.root_device
    split: Split | Literal[""] = ("test" if data.split_sizes()["test"] else "val") if own else ""
    image, label, index = data.sample(count, split)
    if not own:
        class_ids = {name: number for number, name in enumerate(_class_names(model))}
        folders = [Path(data.path(row)).parent.parts for row in index.tolist()]
        label = torch.tensor([next((class_ids[p] for p in reversed(parts) if p in class_ids), -1) for parts in folders])
    return Batch(image.to(device), label.to(device), index)


def _explain_batch(
    model: Classifier,
    batch: Batch,
    mask: Tensor | None,
    paths: list[str],
    first: int,
    methods: Sequence[Method],
    class_name: str | None,
) -> tuple[list[dict[str, Any]], dict[str, Image.Image]]:
    """Explain a batch of images; return their table rows, and their figures by file name.

    For `mask` see `attribution`.
    """
    names, image = [*_class_names(model), ""], batch.inputs  # the last one for -1
    with torch.no_grad():
        probabilities = model.predictions(image)
    predicted = probabilities.argmax(1)
    targets = [predicted]
    if class_name is not None:
        targets.append(torch.full_like(predicted, names.index(class_name)))
    baselines = [faithfulness(model, image, random_attribution(image, first), target, mask) for target in targets]
    explanations = []
    for method, (target, baseline) in product(methods, zip(targets, baselines, strict=True)):
        maps = attribution(model, image, target, method, mask)
        areas = torch.stack([*faithfulness(model, image, maps, target, mask), *baseline], 1).tolist()
        explanations.append((method, target, maps, areas))
    rows, figures = [], {}
    for number, path in enumerate(paths):
        file = f"{first + number:04d}_{re.sub(r'[^A-Za-z0-9_-]', '_', Path(path).stem)}.png"
        label, prediction = int(batch.target[number]), int(predicted[number])
        title = f"label {names[label]}" if label >= 0 else Path(path).name
        tiles = {method: [(title, enlarge(image[number]))] for method in methods}
        for method, target, maps, areas in explanations:
            class_id = int(target[number])
            if target is not predicted and class_id == prediction:
                continue
            probability = float(probabilities[number, class_id])
            content = None if mask is None else mask[number]
            overlaid = overlay(image[number], maps[number], mask=content)
            tiles[method].append((f"{method}: {names[class_id]} {probability:.1%}", overlaid))
            image_columns = {"path": path, "label": names[label], "predicted": names[prediction]}
            map_columns = {"method": method, "class": names[class_id], "probability": probability}
            rows.append({**image_columns, **map_columns, **dict(zip(AREAS, areas[number], strict=True)), "file": file})
        figures[file] = image_grid(list(tiles.values()))
    return rows, figures


def _print_areas(rows: list[dict[str, Any]]) -> None:
    """Print the mean areas of each method and of the random baseline."""
    print(f"{'predicted class, mean area':<28}{'deletion':>9}{'random':>8}{'insertion':>11}{'random':>8}")
    for method in dict.fromkeys(row["method"] for row in rows):
        areas = np.array([[row[name] for name in AREAS] for row in rows if row["method"] == method])
        deletion, insertion, random_deletion, random_insertion = areas.mean(0)
        print(f"{method:<28}{deletion:>9.3f}{random_deletion:>8.3f}{insertion:>11.3f}{random_insertion:>8.3f}")
    print("more faithful than a random baseline: deletion below random, insertion above random")
