"""The command `explain`: pictures and figures in a folder of their own."""

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

CHUNK = 16  # images that are explained together
EMBEDDED, ABLATED = 500, 256  # most images that are shown by their features, and that lost accuracy is measured on
AREAS = ("deletion", "insertion", "random_deletion", "random_insertion")


def explain(
    trained: Trained,
    images: int = 16,
    methods: Method | list[Method] = "gradcam",
    class_name: str | None = None,
    ablation: bool = False,
) -> None:
    """Show where in images the evidence for a class lies, and what in the net matters.

    Args:
        trained: The classifier and the images.
        images: Explain at most this many, evenly spread over those found.
        methods: One, or several as a list: [gradcam, occlusion]. Those but gradcam need the extra `explain`.
        class_name: Also show the evidence for this class, whatever was predicted.
        ablation: Also measure what accuracy is lost without each layer, and without the most telling channels;
            needs images in folders named as their classes.

    Raises:
        UserError: no such class, several processes, or see `evidence` and `ablate`.
    """
    methods = [methods] if isinstance(methods, str) else methods
    if images < 1 or not methods:
        raise UserError("give at least one image (--images) and one method (--methods)")
    batch = prepare(trained, max(images, EMBEDDED))
    model, data, names = trained.module, trained.data, _names(trained.module)
    if class_name is not None and class_name not in names:
        raise UserError(f"no class named {class_name}: the model knows {', '.join(names)}")
    known = batch.target >= 0
    if ablation and not known.any():
        raise UserError(f"ablation needs labels: put the images of {data.folder} into folders named as their classes")
    root, folder = Path(trained.trainer.default_root_dir), None
    chosen = _spread(batch, images)
    paths = [data.path(row) for row in chosen.index.tolist()]
    rows: list[dict[str, Any]] = []
    for start in range(0, len(paths), CHUNK):
        part = _rows(chosen, slice(start, start + CHUNK))
        found, pages = _explain_part(model, part, paths[start : start + CHUNK], start, methods, class_name)
        folder = (
            folder or root / "explain" / f"version_{reserve_version(root, 'explain')}"
        )  # of what fails none is left
        rows += found
        for name, picture in pages.items():
            picture.save(folder / name)
    assert folder is not None
    write_table(folder / "explanations.csv", rows)
    _print_areas([row for row in rows if row["class"] == row["predicted"]])
    print(f"\n{len(paths)} images of {data.folder}: {folder / 'explanations.csv'}, with a picture each beside it")
    _show_features(trained, _spread(batch, EMBEDDED), chosen.inputs[0], folder)
    if ablation:
        some = _spread(_rows(batch, known), ABLATED)
        lost = ablate(model, some.inputs, some.target)
        write_table(folder / "ablation.csv", lost)
        ablation_figure(lost).savefig(folder / "ablation.png")
        files = f"{folder / 'ablation.csv'}, ablation.png"
        print(f"lost without a layer or a channel, of {len(some.index)} images: {files}")


def _names(model: Classifier) -> list[str]:
    return model.data_description.classes.class_names


def _rows(batch: Batch, which: Any) -> Batch:
    return Batch(*(values[which.cpu() if isinstance(which, Tensor) else which] for values in batch))


def _spread(batch: Batch, count: int) -> Batch:
    """Return at most so many images, evenly spread."""
    return _rows(batch, torch.linspace(0, len(batch.index) - 1, min(count, len(batch.index))).round().long())


def _show_features(trained: Trained, batch: Batch, first: Tensor, folder: Path) -> None:
    """Write the pictures of filters and feature maps, and the features for TensorBoard."""
    model, net = trained.module, trained.module.net
    names = [*_names(model), ""]  # the last one for -1
    made = {"filters.png": filters_image(net), "feature_maps.png": feature_maps_image(model, first)}
    pictures = {name: picture for name, picture in made.items() if picture is not None}
    for name, picture in pictures.items():
        picture.save(folder / name)
    with torch.no_grad():
        predicted = torch.cat([model(part).argmax(1) for part in batch.inputs.split(64)])
    columns = {
        "label": [names[i] for i in batch.target.tolist()],
        "predicted": [names[i] for i in predicted.tolist()],
        "path": [trained.data.path(row) for row in batch.index.tolist()],
    }
    write_embeddings(folder, embed(model, batch.inputs), batch.inputs, columns)
    shown = f"{len(batch.index)} images by their features: TensorBoard's projector"
    print(f"what the net sees: {', '.join(pictures)}; {shown}")


def prepare(trained: Trained, count: int) -> Batch:
    """Put a trained model where the trainer computes; return up to `count` images there, evenly spread.

    The model's own data give their test split; of any other folder labels are names of folders, -1 where no class.
    """
    own, model, data = trained.load(labeled=False), trained.module, trained.data
    model.tta = "none"
    device = trained.trainer.strategy.root_device
    split: Split | Literal[""] = ("test" if data.split_sizes()["test"] else "val") if own else ""
    image, label, index = data.sample(count, split)
    if not own:
        known = {name: number for number, name in enumerate(_names(model))}
        folders = [Path(data.path(row)).parent.parts for row in index.tolist()]
        label = torch.tensor([next((known[p] for p in reversed(parts) if p in known), -1) for parts in folders])
    return Batch(image.to(device), label.to(device), index)


def _explain_part(
    model: Classifier, batch: Batch, paths: list[str], first: int, methods: Sequence[Method], class_name: str | None
) -> tuple[list[dict[str, Any]], dict[str, Image.Image]]:
    """Explain some images: return their rows of the table, and their pictures by the name of the file."""
    names, image = [*_names(model), ""], batch.inputs  # the last one for -1
    with torch.no_grad():
        probabilities = model.predictions(image)
    predicted = probabilities.argmax(1)
    targets = [predicted]
    if class_name is not None:
        targets.append(torch.full_like(predicted, names.index(class_name)))
    by_chance = [faithfulness(model, image, random_attribution(image, first), target) for target in targets]
    explained = []
    for method, (target, chance) in product(methods, zip(targets, by_chance, strict=True)):
        maps = attribution(model, image, target, method)
        areas = torch.stack([*faithfulness(model, image, maps, target), *chance], 1).tolist()
        explained.append((method, target, maps, areas))
    rows, pages = [], {}
    for number, path in enumerate(paths):
        file = f"{first + number:04d}_{re.sub(r'[^A-Za-z0-9_-]', '_', Path(path).stem)}.png"
        label, best = int(batch.target[number]), int(predicted[number])
        title = f"labeled {names[label]}" if label >= 0 else Path(path).name
        tiles = {method: [(title, enlarge(image[number]))] for method in methods}
        for method, target, maps, areas in explained:
            wanted = int(target[number])
            if target is not predicted and wanted == best:
                continue
            probability = float(probabilities[number, wanted])
            tiles[method].append((f"{method}: {names[wanted]} {probability:.1%}", overlay(image[number], maps[number])))
            of_image = {"path": path, "label": names[label], "predicted": names[best]}
            of_map = {"method": method, "class": names[wanted], "probability": probability}
            rows.append({**of_image, **of_map, **dict(zip(AREAS, areas[number], strict=True)), "file": file})
        pages[file] = image_grid(list(tiles.values()))
    return rows, pages


def _print_areas(rows: list[dict[str, Any]]) -> None:
    """Print each method's mean areas, beside those of a random order."""
    print(f"{'predicted class, mean area':<28}{'deletion':>9}{'random':>8}{'insertion':>11}{'random':>8}")
    for method in dict.fromkeys(row["method"] for row in rows):
        areas = np.array([[row[name] for name in AREAS] for row in rows if row["method"] == method])
        deletion, insertion, random_deletion, random_insertion = areas.mean(0)
        print(f"{method:<28}{deletion:>9.3f}{random_deletion:>8.3f}{insertion:>11.3f}{random_insertion:>8.3f}")
    print("the further deletion is below a random order's, and insertion above it, the truer the maps")
