"""The command `train.py explain`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

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
from project.modules.tasks import Task
from project.output import pluralize
from project.runs.folder import reserve_version
from project.runs.job import Trained

BATCH_SIZE = 16
MAX_EMBEDDED, MAX_ABLATION = 500, 256  # maximum number of images for embeddings and for ablation
MAX_OUTPUTS = 6  # maximum number of predicted labels, or of values, to explain for each image
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
        trained: The trained model and the datamodule.
        images: Maximum number of images to explain, evenly spaced over the dataset.
        methods: Attribution method or list of methods: [gradcam, occlusion]. All but gradcam require the extra
            `explain`.
        class_name: Also explain this class, label or value for each image, besides the predicted ones.
        ablation: Whether to also compute the accuracy lost (for labels: F1; for values: error added) by ablating each
            layer and its most important channels; requires labels: the training dataset, or images in folders named
            after their classes.

    Raises:
        UserError: There is no such class, there are several processes, or see `attribution`.
    """
    methods = [methods] if isinstance(methods, str) else methods
    if images < 1 or not methods:
        raise UserError("explain needs at least one image (--images) and one method (--methods)")
    batch = prepare(trained, max(images, MAX_EMBEDDED))
    model, data, task = trained.module, trained.data, trained.module.task
    if class_name is not None and class_name not in task.target.names:
        kind, output = task.target.kind, task.explained_columns[1]
        raise UserError(f"no {output} named {class_name}: the {kind} are {', '.join(task.target.names)}")
    labeled = _known(batch.target)
    if ablation and not labeled.any():
        in_folders = f"put the images of {data.folder} into folders named after their classes"
        mend = in_folders if task.target.kind == "classes" else "leave out --data.root to use the training dataset"
        raise UserError(f"ablation needs labels: {mend}")
    root, folder = Path(trained.trainer.default_root_dir), None
    selected = _evenly_spaced(batch, images)
    paths = [data.path(row) for row in selected.index.tolist()]
    parts: list[_Explained] = []
    masks = data.content(selected.index.tolist())
    for start in range(0, len(paths), BATCH_SIZE):
        chosen = slice(start, start + BATCH_SIZE)
        part, mask = _select(selected, chosen), None if masks is None else masks[chosen].to(model.device)
        parts.append(_explain_batch(model, part, mask, paths[chosen], start, methods, class_name))
        # Created after the first batch, so that a failure leaves no empty folder.
        folder = folder or root / "explain" / f"version_{reserve_version(root, 'explain')}"
        for name, figure in parts[-1].figures.items():
            figure.save(folder / name)
    assert folder is not None
    write_table(folder / "explanations.csv", [_cells(row, task) for part in parts for row in part.rows])
    _print_areas([row for part in parts for row in part.predicted_rows], task)
    print(f"\n{len(paths)} images of {data.folder}: {folder / 'explanations.csv'}, with one figure per image")
    if bands := model.data_description.image.shown_bands:
        print(f"the figures show {bands}")
    if cut := sum(part.cut for part in parts):
        limit = f"{MAX_OUTPUTS} {task.target.kind} each of {pluralize(cut, 'image')} are explained"
        print(f"{limit}: --class_name NAME adds one")
    _write_features(trained, _evenly_spaced(batch, MAX_EMBEDDED), selected.inputs[0], folder)
    if ablation:
        sample = _evenly_spaced(_select(batch, labeled), MAX_ABLATION)
        ablation_rows = ablate(model, sample.inputs, sample.target)
        write_table(folder / "ablation.csv", [_cells(row, task) for row in ablation_rows])
        ablation_figure(ablation_rows, task).savefig(folder / "ablation.png")
        print(f"ablation of layers and channels on {len(sample.index)} images: {folder / 'ablation.csv'}, ablation.png")


def _cells(row: dict[str, Any], task: Task) -> dict[str, Any]:
    """Return a row of a table; values, which have any unit, with significant digits instead of decimals."""
    if task.score_format.endswith("%"):
        return row
    return {name: f"{cell:.6g}" if isinstance(cell, float) else cell for name, cell in row.items()}


def _known(target: Tensor) -> Tensor:
    """Return whether anything is known about the target of each sample, bool (N,)."""
    return ~target.reshape(len(target), -1).isnan().all(1) if target.is_floating_point() else target >= 0


def _select(batch: Batch, rows: Any) -> Batch:
    return Batch(*(values[rows.cpu() if isinstance(rows, Tensor) else rows] for values in batch))


def _evenly_spaced(batch: Batch, count: int) -> Batch:
    """Return at most `count` evenly spaced images."""
    return _select(batch, torch.linspace(0, len(batch.index) - 1, min(count, len(batch.index))).round().long())


def _write_features(trained: Trained, batch: Batch, first: Tensor, folder: Path) -> None:
    """Write images of filters and feature maps, and embeddings for TensorBoard."""
    model, net, task = trained.module, trained.module.net, trained.module.task
    optional = {"filters.png": filters_image(net, len(first)), "feature_maps.png": feature_maps_image(model, first)}
    figures = {name: figure for name, figure in optional.items() if figure is not None}
    for name, figure in figures.items():
        figure.save(folder / name)
    with torch.no_grad():
        predictions = torch.cat([model.predictions(part) for part in batch.inputs.split(64)])
    columns = {
        task.explained_columns[0]: [task.target_text(target) for target in batch.target],
        "predicted": [task.predicted_text(each) for each in predictions],
        "path": [trained.data.path(row) for row in batch.index.tolist()],
    }
    write_embeddings(folder, embed(model, batch.inputs), batch.inputs, columns)
    embeddings = f"embeddings of {len(batch.index)} images in TensorBoard's projector"
    print(f"learned features: {', '.join([*figures, embeddings])}")


def prepare(trained: Trained, count: int) -> Batch:
    """Load a trained model onto the trainer's device; return up to `count` evenly spaced images on it.

    With the training dataset, the images are from its test split (val if it has none). With any other folder, classes
    are the names of parent folders, -1 if none is a class; labels and values are unknown.
    """
    own, model, data = trained.load("predict"), trained.module, trained.data
    model.tta = "none"
    device = trained.trainer.strategy.root_device
    split: Split | Literal[""] = ("test" if data.split_sizes()["test"] else "val") if own else ""
    image, target, index = data.on_after_batch_transfer(data.sample(count, split), 0)  # it may set the target
    names = model.task.target.names
    if not own and model.task.target.kind == "classes":
        class_ids = {name: number for number, name in enumerate(names)}
        folders = [Path(data.path(row)).parent.parts for row in index.tolist()]
        found = [next((class_ids[part] for part in reversed(parts) if part in class_ids), -1) for parts in folders]
        target = torch.tensor(found)
    elif not own:
        target = torch.full((len(target), len(names)), torch.nan)
    return Batch(image.to(device), target.to(device), index)


class _Explained(NamedTuple):
    """Rows of the table, those that explain a prediction, figures by file name, and images with further predictions."""

    rows: list[dict[str, Any]]
    predicted_rows: list[dict[str, Any]]
    figures: dict[str, Image.Image]
    cut: int


def _explain_batch(
    model: Classifier,
    batch: Batch,
    mask: Tensor | None,
    paths: list[str],
    first: int,
    methods: Sequence[Method],
    class_name: str | None,
) -> _Explained:
    """Explain a batch of images; for `mask` see `attribution`."""
    task, image = model.task, batch.inputs
    with torch.no_grad():
        predictions = model.predictions(image)
    counts = [len(each) for each in task.explained(predictions)]
    outputs = [each[:MAX_OUTPUTS] for each in task.explained(predictions)]
    if class_name is not None:
        added = task.target.names.index(class_name)
        outputs = [each if added in each else [*each, added] for each in outputs]
    explanations = []
    # One map per image and round; images with fewer outputs than others repeat their last one, which is not used.
    for place in range(max(map(len, outputs))):
        target = torch.tensor([each[min(place, len(each) - 1)] for each in outputs], device=image.device)
        baseline = faithfulness(model, image, random_attribution(image, first), target, mask)
        for method in methods:
            maps = attribution(model, image, target, method, mask)
            areas = torch.stack([*faithfulness(model, image, maps, target, mask), *baseline], 1).tolist()
            explanations.append((method, place, maps, areas))
    explanations.sort(key=lambda each: methods.index(each[0]))
    found = _Explained([], [], {}, sum(count > MAX_OUTPUTS for count in counts))
    true_column, output_column, score_column = task.explained_columns
    for number, path in enumerate(paths):
        file = f"{first + number:04d}_{re.sub(r'[^A-Za-z0-9_-]', '_', Path(path).stem)}.png"
        truth, predicted = task.target_text(batch.target[number]), task.predicted_text(predictions[number])
        title = f"{true_column} {truth or '-'}" if _known(batch.target)[number] else Path(path).name
        tiles = {method: [(title, enlarge(image[number]))] for method in methods}
        for method, place, maps, areas in explanations:
            if place >= len(outputs[number]):
                continue
            output = outputs[number][place]
            name, score = task.target.names[output], float(predictions[number, output])
            content = None if mask is None else mask[number]
            overlaid = overlay(image[number], maps[number], mask=content, signed=task.signed)
            tiles[method].append((f"{method}: {name} {score:{task.score_format}}", overlaid))
            image_columns = {"path": path, true_column: truth, "predicted": predicted}
            map_columns = {"method": method, output_column: name, score_column: score}
            row = {**image_columns, **map_columns, **dict(zip(AREAS, areas[number], strict=True)), "file": file}
            found.rows.append(row)
            if place < min(counts[number], MAX_OUTPUTS):
                found.predicted_rows.append(row)
        found.figures[file] = image_grid(list(tiles.values()))
    return found


def _print_areas(rows: list[dict[str, Any]], task: Task) -> None:
    """Print the mean areas of each method and of the random baseline."""
    heading = f"predicted {task.explained_columns[1]}, mean area"
    print(f"{heading:<28}{'deletion':>9}{'random':>8}{'insertion':>11}{'random':>8}")
    for method in dict.fromkeys(row["method"] for row in rows):
        areas = np.array([[row[name] for name in AREAS] for row in rows if row["method"] == method])
        deletion, insertion, random_deletion, random_insertion = areas.mean(0)
        print(f"{method:<28}{deletion:>9.3f}{random_deletion:>8.3f}{insertion:>11.3f}{random_insertion:>8.3f}")
    print("more faithful than a random baseline: deletion below random, insertion above random")
