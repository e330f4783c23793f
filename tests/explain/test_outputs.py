"""Attribution, ablation and error analysis of models of labels and of values."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from project.cli import main
from project.explain.attribution import attribution, faithfulness, random_attribution
from project.interface import ClassTarget, MultilabelTarget, Target, ValueTarget
from project.modules.tasks import Multiclass, Multilabel, Regression, Task
from tests.conftest import QUICK
from tests.explain.planted import COLORS, NETS, PATCH, SIZE, classifier
from tests.runs import RUN

LABELS = MultilabelTarget(["blue", "green", "red"], [1] * 3, [2] * 3)
VALUES = ValueTarget(["brightness"], [0.5], [0.3])


def patches(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return gray images with a patch of each of some colors, which of them, the place of each, and its brightness."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(60, 190, (count, 1, SIZE, SIZE), generator=generator).expand(-1, 3, -1, -1).clone()
    present = torch.randint(2, (count, 3), generator=generator)
    brightness = torch.rand(count, 1, generator=generator)
    places = torch.zeros(count, 3, SIZE, SIZE, dtype=torch.bool)
    for number in range(count):
        for color, cell in enumerate(torch.randperm(16, generator=generator)[:3].tolist()):
            top, left = cell // 4 * PATCH, cell % 4 * PATCH
            places[number, color, top : top + PATCH, left : left + PATCH] = True
            if present[number, color]:
                image[number, :, top : top + PATCH, left : left + PATCH] = COLORS[color][:, None, None]
    return image.to(torch.uint8), present.float(), places, brightness


@pytest.mark.slow
@pytest.mark.parametrize("target", [LABELS, VALUES], ids=["labels", "values"])
def test_map_of_an_output_localizes_its_patch(target: Target) -> None:
    """The label is the color of a patch, the value the brightness of a gray one; all other pixels are noise."""
    model = classifier(NETS["ResNet"], target=target).train()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)

    def batch(seed: int) -> tuple[Tensor, Tensor, Tensor]:
        image, present, places, brightness = patches(32, seed)
        if target is LABELS:
            return image, present, places
        shown = places[:, :1]
        return (
            torch.where(shown, (brightness * 255)[..., None, None].to(torch.uint8), image // 8 + 110),
            brightness,
            shown,
        )

    for step in range(80):
        image, truth, _ = batch(step + 1)
        optimizer.zero_grad()
        model.loss(model(image), truth).backward()
        optimizer.step()
    model.eval()
    image, truth, places = batch(0)
    for output in range(target.outputs):
        shown = truth[:, output] == 1 if target is LABELS else (truth[:, 0] - 0.5).abs() > 0.25
        wanted = torch.full((int(shown.sum()),), output)
        maps = attribution(model, image[shown], wanted)
        inside = (maps.abs() * places[shown, output]).sum((1, 2)) / maps.abs().sum((1, 2))
        assert inside.mean() > 3 * PATCH**2 / SIZE**2, "the patch is a sixteenth of the image"
        areas = [
            torch.stack(faithfulness(model, image[shown], heat, wanted)).mean(1)
            for heat in (maps, random_attribution(image[shown]))
        ]
        assert areas[0][0] < areas[1][0] and areas[0][1] > areas[1][1], "more faithful than a random order"


@pytest.mark.parametrize(
    ("task", "predictions", "target", "explained", "texts", "mistake"),
    [
        (
            Multiclass(ClassTarget(["cat", "dog"], [1, 1])),
            [0.75, 0.25],
            torch.tensor(1),
            [0],
            ("dog", "cat"),
            (0, "predicted cat: 75%", "label dog: 25%, loss 1.39"),
        ),
        (
            Multilabel(MultilabelTarget(["a", "b", "c"], [1] * 3, [2] * 3, thresholds=[0.6, 0.5, 0.1])),
            [0.55, 0.7, 0.2],
            torch.tensor([1.0, 1.0, torch.nan]),
            [1, 2],
            ("a|b", "b|c"),
            (0, "labels a|b, predicted b|c", "map of a: 55%"),
        ),
        (
            Multilabel(MultilabelTarget(["a", "b"], [1] * 2, [2] * 2)),
            [0.1, 0.4],
            torch.tensor([0.0, 0.0]),
            [1],
            ("", ""),
            (1, "labels none, predicted none", "map of b: 40%"),
        ),
        (
            Regression(ValueTarget(["mm", "kg"], [0.0, 0.0], [100.0, 1.0])),
            [150.0, 5.0],
            torch.tensor([100.0, 3.5]),
            [0, 1],
            ("mm 100, kg 3.5", "mm 150, kg 5"),
            (1, "true kg 3.5", "predicted kg 5"),
        ),
    ],
)
def test_what_is_explained_of_a_sample(
    task: Task,
    predictions: list[float],
    target: Tensor,
    explained: list[int],
    texts: tuple[str, str],
    mistake: tuple[int, str, str],
) -> None:
    scores = torch.tensor(predictions)
    assert task.explained(scores[None]) == [explained]
    assert (task.target_text(target), task.predicted_text(scores)) == texts
    assert task.describe_mistake(scores, target) == mistake
    assert task.rank_mistakes(scores[None], target[None]).isfinite() == (texts[0] != texts[1])


@pytest.fixture(params=["labels", "values"])
def table(request: pytest.FixtureRequest, here: Path) -> tuple[str, list[str]]:
    """A table of 48 images whose left and right half are red or not, and the options that read it."""
    rows, noise = [], np.random.default_rng(0)
    for number in range(48):
        pixels, halves = noise.integers(0, 90, (8, 8, 3), dtype=np.uint8), (number % 2, number // 2 % 2)
        for side, shown in enumerate(halves):
            pixels[:, 4 * side : 4 * side + 4, 0] += 150 * shown
        Image.fromarray(pixels).save(here / f"{number:02d}.png")
        values = [halves[0] * 40.5 + 20, "" if number % 8 == 0 else halves[1] * 1e-7]
        rows.append([f"{number:02d}.png", *(halves if request.param == "labels" else values)])
    with (here / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "left", "right"], *rows])
    return request.param, ["--data.table", "table.csv", "--data.columns.label", "[left, right]", *QUICK]


class Plain(Task):
    """A task with nothing but a loss."""

    def default_loss(self) -> nn.Module:
        return nn.MSELoss()


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_labels_and_values_are_explained_and_their_errors_analyzed(
    table: tuple[str, list[str]], here: Path, failing: Callable[[list[str]], str]
) -> None:
    kind, options = table
    watch = ["--trainer.callbacks", "project.explain.ErrorAnalysis", "--trainer.callbacks.every_n_epochs", "6"]
    short = ["--trainer.max_epochs", "6", "--data.batch_size", "16", "--data.batch_transforms", "[]"]
    main(["fit", *options, *watch, *short])
    tags = set(EventAccumulator(str(RUN)).Reload().Tags()["images"])
    assert {"val/precision_recall"} < tags if kind == "labels" else {"val/predictions", "val/worst_mistakes"} < tags
    samples = json.loads((RUN / "test.json").read_text())["samples"]
    shown = [sample for name in ("mistakes", "uncertain") for sample in samples.get(name, [])]
    assert shown and all(each["attribution"] and each["attribution_of"] in ("left", "right") for each in shown)

    explain = ["explain", "--ckpt_path", "best", *QUICK[:4], "--images", "5"]
    main([*explain, "--ablation", "true", "--class_name", "right"])
    folder = here / "logs/explain/version_0"
    rows = read(folder / "explanations.csv")
    tested = {row["path"]: row for row in read(RUN / "test_predictions.csv")}
    assert len({row["path"] for row in rows}) == 5
    for path in {row["path"] for row in rows}:
        names = [row[kind[:-1]] for row in rows if row["path"] == path]
        predicted = tested[path]["predicted"].split("|") if kind == "labels" else ["left", "right"]
        assert sorted(names) == sorted({*filter(None, predicted), "right"}) or not predicted[0]
    scores = {"labels": ("probability", "p({})"), "values": ("prediction", "predicted {}")}[kind]
    for row in rows:
        expected = float(tested[row["path"]][scores[1].format(row[kind[:-1]])])
        assert float(row[scores[0]]) == pytest.approx(expected, rel=1e-4, abs=1e-5 if kind == "labels" else 0)
    ablated = read(folder / "ablation.csv")
    effect = "f1_lost" if kind == "labels" else "mae_added"
    assert float(ablated[0][effect]) > 0.1 and ablated[0]["channel"] == ""
    assert (folder / "00000/features/metadata.tsv").read_text().startswith("labels" if kind == "labels" else "true")

    if kind == "values":
        plain = ["--model.task", "tests.explain.test_outputs.Plain"]
        assert "give Plain a method rank_samples" in failing(["fit", *options, *watch, *plain])
    single = ["--data.root", "00.png"]
    assert "leave out --data.root" in failing([*explain, *single, "--ablation", "true"])
    assert f"the {kind} are left, right" in failing([*explain, *single, "--class_name", "top"])
    main([*explain, *single])
    assert {row[list(row)[1]] for row in read(here / "logs/explain/version_1/explanations.csv")} == {""}, "no truth"
