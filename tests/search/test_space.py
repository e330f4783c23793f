"""Tests of search spaces."""

from pathlib import Path

import pytest
import yaml

from project.cli import main
from project.errors import UserError
from project.search.space import any_point, options, point_of, read_space
from tests.conftest import REPOSITORY

TEXT = """
model.optimizer.lr: {low: 1e-4, high: 0.01, log: true}
model.net.dropout: {low: 0, high: 0.5, step: 0.1}
trainer.max_epochs: {low: 2, high: 8}
model.optimizer: [torch.optim.Adam, torch.optim.AdamW]
model.scheduler: [null, {class_path: project.modules.WarmupDecay, init_args: {warmup: 0.1}}]
"""


def test_numbers_choices_and_objects(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(TEXT)
    space = read_space(tmp_path / "space.yaml")
    kinds = [type(values).__name__.removesuffix("Distribution") for values in space.values()]
    assert kinds == ["Float", "Float", "Int", "Categorical", "Categorical"]
    nested = space["model.scheduler"].choices[1]  # type: ignore[attr-defined]
    assert options({"a": 1e-05, "b": None, "c": True, "d": "x", "model.scheduler": nested}) == [
        "--a=1e-05",
        "--b=null",
        "--c=true",
        "--d=x",
        '--model.scheduler={"class_path": "project.modules.WarmupDecay", "init_args": {"warmup": 0.1}}',
    ]


def test_values_of_a_config_are_a_point_of_the_space(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(TEXT)
    space = read_space(tmp_path / "space.yaml")
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}}
    net = {"class_path": "project.modules.ConvNet", "init_args": {"dropout": 0.2}}
    model = {"optimizer": optimizer, "net": net, "scheduler": None}
    config = {"model": {"class_path": "Classifier", "init_args": model}}
    point = point_of({**config, "trainer": {"max_epochs": 3}}, space)
    assert point is not None and list(point.values()) == [0.001, 0.2, 3, "torch.optim.AdamW", None]
    assert point_of({**config, "trainer": {"max_epochs": 9}}, space) is None


@pytest.mark.parametrize("config", ["convnet", "cifar10"])
def test_space_of_the_repository_is_valid_for_its_configs(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    space = read_space(REPOSITORY / "configs" / "sweep" / "convnet.yaml")
    command = ["fit", "--config", str(REPOSITORY / "configs" / f"{config}.yaml"), "--print_config"]
    configs = []
    for more in ([], options(any_point(space))):
        with pytest.raises(SystemExit) as stopped:
            main([*command, *more])
        assert stopped.value.code == 0
        configs.append(yaml.safe_load(capsys.readouterr().out))
    assert point_of(configs[0], space) is not None, "the first trial of a sweep is the unchanged config"
    assert point_of(configs[1], space) == any_point(space)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a",
        "a: 1",
        "a: {low: 1}",
        "a: {low: 2, high: 1}",
        "a: {low: x, high: 1}",
        "a: []",
        "a: [",
        "b: {low: 0, high: 1, lag: 1}",
    ],
)
def test_invalid_space(tmp_path: Path, text: str) -> None:
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(UserError, match=r"space\.yaml"):
        read_space(tmp_path / "space.yaml")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_space(tmp_path / "space.yaml")
