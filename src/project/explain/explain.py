"""The command `train.py explain`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from project.errors import UserError
from project.explain.ablation import ablate, ablation_figure
from project.explain.attribution import Method, attribution, faithfulness, random_attribution
from project.explain.features import embed, feature_maps_image, filters_image, write_embeddings
from project.explain.render import enlarge, image_grid, overlay
from project.explain.samples import (
    AREAS,
    MAX_EMBEDDED,
    MAX_OUTPUTS,
    cells,
    describe,
    evenly_spaced,
    is_known,
    prepare,
    print_areas,
    select,
)
from project.files import write_table
from project.interface import Batch, import_part
from project.modules import Classifier
from project.output import pluralize
from project.runs.folder import reserve_version
from project.runs.job import Trained

BATCH_SIZE = 16
MAX_ABLATION = 256  # maximum number of images for ablation


def explain(
    trained: Trained,
    images: int = 16,
    methods: Method | list[Method] | None = None,
    class_name: str | None = None,
    ablation: bool = False,
) -> None:
    """Compute attributions and their faithfulness; of images, also visualize learned features and ablate layers.

    Args:
        trained: The trained model and the datamodule.
        images: Maximum number of images or texts to explain, evenly spaced over the dataset.
        methods: Attribution method or list of methods: [gradcam, occlusion]; by default gradcam for images, occlusion
            for texts, which have no gradcam. For images, all but gradcam require the extra `explain`.
        class_name: Also explain this class, label or value for each sample, besides the predicted ones.
        ablation: Whether to also compute the accuracy lost (for labels: F1; for values: error added) by ablating each
            layer and its most important channels; for images with labels: the training dataset, or images in folders
            named after their classes.

    Raises:
        UserError: There is no such class, there are several processes, or see `attribution`.
    """
    if images < 1 or methods == []:
        raise UserError("explain needs at least one sample (--images) and one method (--methods)")
    chosen = [methods] if isinstance(methods, str) else methods
    batch = prepare(trained, max(images, MAX_EMBEDDED))
    model, task = trained.module, trained.module.task
    if class_name is not None and class_name not in task.target.names:
        kind, output = task.target.kind, task.explained_columns[1]
        raise UserError(f"no {output} named {class_name}: the {kind} are {', '.join(task.target.names)}")
    if explain_part := import_part(__package__, model.data_description.input, "command.explain"):
        explain_part(trained, batch, images, chosen, class_name, ablation)
    else:
        _explain_images(trained, batch, images, chosen or ["gradcam"], class_name, ablation)


def _explain_images(
    trained: Trained,
    batch: Batch,
    images: int,
    methods: Sequence[Method],
    class_name: str | None,
    ablation: bool,
) -> None:
    """Write the results of `explain` for images; the arguments are its own, with the images to choose from."""
    model, data, task = trained.module, trained.data, trained.module.task
    labeled = is_known(batch.target)
    if ablation and not labeled.any():
        in_folders = f"put the images of {data.folder} into folders named after their classes"
        mend = in_folders if task.target.kind == "classes" else "leave out --data.root to use the training dataset"
        raise UserError(f"ablation needs labels: {mend}")
    root, folder = Path(trained.trainer.default_root_dir), None
    selected = evenly_spaced(batch, images)
    paths = [data.path(row) for row in selected.index.tolist()]
    parts: list[_Explained] = []
    masks = data.content(selected.index.tolist())
    for start in range(0, len(paths), BATCH_SIZE):
        chosen = slice(start, start + BATCH_SIZE)
        part, mask = select(selected, chosen), None if masks is None else masks[chosen].to(model.device)
        parts.append(_explain_batch(model, part, mask, paths[chosen], start, methods, class_name))
        # Created after the first batch, so that a failure leaves no empty folder.
        folder = folder or root / "explain" / f"version_{reserve_version(root, 'explain')}"
        for name, figure in parts[-1].figures.items():
            figure.save(folder / name)
    assert folder is not None
    write_table(folder / "explanations.csv", [cells(row, task) for part in parts for row in part.rows])
    print_areas([row for part in parts for row in part.predicted_rows], task)
    print(f"\n{len(paths)} images of {data.folder}: {folder / 'explanations.csv'}, with one figure per image")
    if bands := model.data_description.image.shown_bands:
        print(f"the figures show {bands}")
    if cut := sum(part.cut for part in parts):
        limit = f"{MAX_OUTPUTS} {task.target.kind} each of {pluralize(cut, 'image')} are explained"
        print(f"{limit}: --class_name NAME adds one")
    _write_features(trained, evenly_spaced(batch, MAX_EMBEDDED), selected.inputs[0], folder)
    if ablation:
        sample = evenly_spaced(select(batch, labeled), MAX_ABLATION)
        ablation_rows = ablate(model, sample.inputs, sample.target)
        write_table(folder / "ablation.csv", [cells(row, task) for row in ablation_rows])
        ablation_figure(ablation_rows, task).savefig(folder / "ablation.png")
        print(f"ablation of layers and channels on {len(sample.index)} images: {folder / 'ablation.csv'}, ablation.png")


def _write_features(trained: Trained, batch: Batch, first: Tensor, folder: Path) -> None:
    """Write images of filters and feature maps, and embeddings for TensorBoard."""
    model, net = trained.module, trained.module.net
    optional = {"filters.png": filters_image(net, len(first)), "feature_maps.png": feature_maps_image(model, first)}
    figures = {name: figure for name, figure in optional.items() if figure is not None}
    for name, figure in figures.items():
        figure.save(folder / name)
    write_embeddings(folder, embed(model, batch.inputs), batch.inputs, describe(trained, batch))
    embeddings = f"embeddings of {len(batch.index)} images in TensorBoard's projector"
    print(f"learned features: {', '.join([*figures, embeddings])}")


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
        title = f"{true_column} {truth or '-'}" if is_known(batch.target)[number] else Path(path).name
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
