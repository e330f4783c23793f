"""Tests of pretrained networks and fine-tuning."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from project.cli import main
from project.interface import ImageInput
from project.modules import ConvNet, Timm, TorchVision
from project.modules.feature_cache import FeatureCache
from project.modules.layers import Freezing, head, layers
from project.modules.optimizers.groups import parameter_groups
from tests.conftest import QUICK, fit, square
from tests.runs import RUN, finish, load, same, start

pytestmark = pytest.mark.slow

Failing = Callable[[list[str]], str]
SIZE = ["--data.image_size", "32"]
ONCE = ["--trainer.max_epochs", "1", "--test_after_fit", "false"]
TIMM = ["--model.net", "Timm", "--model.net.name", "test_resnet", *SIZE]
HALF = [0.5, 0.5, 0.5]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A weights file of timm's test_resnet with 1,000 classes."""
    import timm

    torch.manual_seed(1)
    file = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet", num_classes=1000).state_dict(), file)
    return file


def tensors(file: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(file, weights_only=True)
    return loaded


def test_weights_file_sets_all_but_the_head_and_the_normalization(weights: Path, tree: Path, here: Path) -> None:
    no_training = ["--model.optimizer", "SGD", "--model.optimizer.lr", "0", "--trainer.limit_train_batches", "1"]
    with pytest.warns(UserWarning, match="images of 160 pixels, but data.image_size is 32"):
        main(fit(tree, *ONCE, *TIMM, "--model.net.weights", str(weights), *no_training))
    saved, given = load(RUN), tensors(weights)
    net = {name.removeprefix("net.net."): value for name, value in saved["state_dict"].items() if "net.net" in name}
    assert net.keys() == given.keys()
    for name, value in given.items():
        if name.startswith("fc"):
            assert len(net[name]) == 3
        elif "running" not in name and "tracked" not in name:
            assert torch.equal(net[name], value), name
    images = saved["data_description"]["input"]["init_args"]
    assert images["mean"] == images["std"] == HALF
    assert saved["state_dict"]["preprocess.mean"].flatten().tolist() == HALF
    # Neither the file nor internet access is needed afterwards.
    weights.unlink()
    main(["predict", "--ckpt_path", "best", "--data.root", str(tree), *QUICK[:4]])
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "2"])
    assert load(RUN)["state_dict"]["preprocess.mean"].flatten().tolist() == HALF


def test_init_from_keeps_the_normalization_of_the_earlier_run(weights: Path, tree: Path, here: Path) -> None:
    main(fit(tree, *ONCE, *TIMM, "--model.net.weights", str(weights)))
    first = str(RUN / "checkpoints" / "last.ckpt")
    for child in (tree / "red").iterdir():
        child.unlink()
    (tree / "red").rmdir()
    weights.unlink()
    main(fit(tree, *ONCE, *TIMM, "--model.net.weights", str(weights), "--model.init_from", first))
    description = load(RUN.with_name("version_1"))["data_description"]
    assert description["input"]["init_args"]["mean"] == HALF
    assert len(description["target"]["init_args"]["class_names"]) == 2


def test_normalization_from_scratch_is_that_of_the_data(tree: Path, here: Path) -> None:
    main(fit(tree, *ONCE, *TIMM, "--model.net.weights", "null"))
    assert load(RUN)["data_description"]["input"]["init_args"]["mean"] != HALF


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_timm_loads_a_weights_file(name: str, tmp_path: Path) -> None:
    """With the head of the safetensors file, the logits equal those of the saved network."""
    import timm
    from safetensors.torch import save_file

    source = timm.create_model(name, num_classes=3, **({"img_size": 64} if name == "test_vit" else {})).eval()
    file = tmp_path / "weights.safetensors"
    save_file(source.state_dict(), file)
    net = Timm(3, square(64), name, str(file)).eval()
    net.load_pretrained()
    image = torch.randn(2, 3, 64, 64)
    assert not any(parameter.any() for parameter in head(net).parameters()), "the head is initialized to zero"
    assert not torch.allclose(net(image), source(image))
    head(net).load_state_dict(head(source).state_dict())
    assert torch.allclose(net(image), source(image), atol=1e-5) or name == "test_convnext"  # its norm is in the head
    assert Timm(5, square(96), name, str(file)).load_pretrained() is None, "another size and other classes"


def test_torchvision_loads_a_weights_file(tmp_path: Path) -> None:
    from torchvision import models

    source = models.get_model("shufflenet_v2_x0_5", weights=None, num_classes=7).eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "w.pth")
    net = TorchVision(7, square(32), "shufflenet_v2_x0_5", str(tmp_path / "w.pth")).eval()
    net.load_pretrained()
    image = torch.randn(2, 3, 32, 32)
    assert not torch.equal(net(image), source(image)), "the head is new"
    head(net).load_state_dict(head(source).state_dict())
    assert torch.equal(net(image), source(image))
    assert net.pretrained_mean == [0.485, 0.456, 0.406] and net.pretrained_size == 224


def test_errors(weights: Path, tree: Path, here: Path, failing: Failing) -> None:
    assert "timm has no model test_resnt; did you mean test_resnet?" in failing(
        fit(tree, *TIMM, "--model.net.name", "test_resnt")
    )
    assert "resnet18" in failing(fit(tree, "--model.net", "TorchVision", "--model.net.name", "resnet1"))
    assert "--model.net project.modules.TorchVision" in failing(fit(tree, "--model.net", "torchvision.models.resnet18"))
    assert "no such file: gone.pth" in failing(fit(tree, *TIMM, "--model.net.weights", "gone.pth"))
    (here / "text.pth").write_text("not weights")
    assert "is not a weights file" in failing(fit(tree, *TIMM, "--model.net.weights", "text.pth"))
    broken = tensors(weights)
    broken["unknown.weight"] = broken.pop("layer1.0.conv1.weight")
    torch.save(broken, here / "broken.pth")
    message = failing(fit(tree, *TIMM, "--model.net.weights", "broken.pth"))
    assert "does not match test_resnet" in message and "layer1.0.conv1.weight, unknown.weight" in message
    other = ["--model.net", "TorchVision", "--model.net.name", "resnet18", "--model.net.weights", str(weights)]
    assert "does not match resnet18" in failing(fit(tree, *other)) and "more" in failing(fit(tree, *other))
    main(fit(tree, *ONCE))
    run = sorted(here.glob("logs/run/version_*/checkpoints/last.ckpt"))[-1]
    assert "--model.init_from" in failing(fit(tree, *TIMM, "--model.net.weights", str(run)))


@pytest.mark.parametrize("net", ["Timm", "TorchVision"])
def test_without_internet_it_fails_with_instructions(
    net: str, tree: Path, here: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a proxy that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_HOME", str(here))
        monkeypatch.setenv("TORCH_HOME", str(here))
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        name = {"Timm": "test_resnet", "TorchVision": "resnet18"}[net]
        message = failing(fit(tree, "--model.net", net, "--model.net.name", name))
    assert (
        "not cached and cannot be downloaded" in message
        and "--model.net.weights FILE" in message
        and "download http" in message
    )


def test_without_timm_the_error_names_the_extra(
    tree: Path, here: Path, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("timm.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install -e '.[transfer]'" in failing(fit(tree, *TIMM))


# -- fine-tuning ------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """Two convolutions with batch norm, dropout and a head."""

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        )
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(4, num_classes)
        Small.seen = 0

    seen = 0
    """Number of images in all forward passes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Small.seen += len(x)
        logits: torch.Tensor = self.head(self.drop(self.body(x).mean((2, 3))))
        return logits


SMALL = ["--model.net", "tests.modules.test_pretrained.Small"]


@pytest.mark.parametrize(
    ("net", "count", "first", "last"),
    [
        (ConvNet(3, square(32)), 4, nn.Conv2d, nn.Linear),
        (Small(3, 32), 3, nn.Conv2d, nn.Linear),
        (TorchVision(3, square(32), "squeezenet1_1", None), 10, nn.Conv2d, nn.Conv2d),
        (TorchVision(3, square(32), "vit_b_32", None), 14, nn.Conv2d, nn.Linear),
        (Timm(3, square(32), "test_resnet", None), 10, nn.Conv2d, nn.Linear),
        (Timm(3, square(32), "test_vit", None), 8, nn.Module, nn.Linear),
    ],
)
def test_layers(net: nn.Module, count: int, first: type, last: type) -> None:
    parts = layers(net)
    assert len(parts) == count and isinstance(parts[0].modules[0], first) and isinstance(parts[-1].modules[-1], last)
    assert parts[-1].modules[-1] is head(net)
    names = [id(parameter) for layer in parts for parameter in layer.parameters]
    assert sorted(names) == sorted(map(id, net.parameters())), "each parameter in one layer"


def test_layer_decay_scales_learning_rates() -> None:
    net = Small(3, 32)
    groups = parameter_groups(net, 0.5)
    rate = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    expected = {"body.0": 0.25, "body.1": 0.25, "body.3": 0.5, "body.4": 0.5, "head": 1.0}
    for name, parameter in net.named_parameters():
        assert rate[id(parameter)] == expected[name.rpartition(".")[0]], name
    assert all(group["weight_decay"] == 0 for group in groups if group["role"] == "vector")


def test_layer_decay_in_a_run(tree: Path, here: Path, failing: Failing) -> None:
    options = [*ONCE, *SMALL, "--model.layer_decay", "0.5", "--model.scheduler"]
    main(fit(tree, *options, "WarmupDecay", "--model.optimizer.lr", "0.01"))
    full = {group["lr_scale"]: group["initial_lr"] for group in load(RUN)["optimizer_states"][0]["param_groups"]}
    assert full == pytest.approx({1.0: 0.01, 0.5: 0.005, 0.25: 0.0025})
    assert "one learning rate for all layers" in failing(
        fit(tree, *options, "OneCycleLR", "--model.scheduler.max_lr", "0.1")
    )
    assert "model.layer_decay in (0, 1]" in failing(fit(tree, "--model.layer_decay", "0"))


def state(run: Path) -> dict[str, Any]:
    return {name: value for name, value in load(run)["state_dict"].items() if name.startswith("net.")}


class Keep(L.Callback):
    """Saves the state dict before each epoch."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        torch.save(pl_module.state_dict(), f"epoch{trainer.current_epoch}.pt")


KEEP = ["--trainer.callbacks", "tests.modules.test_pretrained.Keep"]


def changed(one: Path, other: Path) -> set[str]:
    """Return the modules of Small that differ between two state dicts."""
    before, after = tensors(one), tensors(other)
    return {
        name.rpartition(".")[0].removeprefix("net.")
        for name in before
        if name.startswith("net.") and not torch.equal(before[name], after[name])
    }


class Deterministic(Small):
    """Without dropout."""

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        super().__init__(num_classes, inputs)
        self.drop.p = 0


def test_features_of_frozen_layers_are_computed_once(tree: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head_only = ["--model.freeze_epochs", "-1", "--trainer.max_epochs", "5", "--test_after_fit", "false"]
    deterministic = [*fit(tree, "--model.net", "tests.modules.test_pretrained.Deterministic"), *head_only]
    unaugmented = ["--data.batch_transforms", "[]"]
    main([*deterministic, *unaugmented])
    once = Small.seen
    assert once < 2 * 51 + 16 + 9, "train and val, the first batch twice, and the sanity check"
    for stochastic in (deterministic, [*fit(tree, *SMALL), *head_only, *unaugmented]):
        main(stochastic)
        assert Small.seen > 5 * 51, "no caching with augmentation or dropout"
    monkeypatch.setattr(FeatureCache, "__call__", lambda self, index, images: self._net(images()))
    main([*deterministic, *unaugmented])
    cached, uncached = load(RUN)["state_dict"], load(RUN.with_name("version_3"))["state_dict"]
    assert all(torch.allclose(cached[name], uncached[name], atol=1e-6) for name in uncached)


def test_frozen_for_the_whole_run(tree: Path, here: Path) -> None:
    """Weights and statistics do not change, not even by weight decay; the optimizer has only the head."""
    decay = ["--model.optimizer", "AdamW", "--model.optimizer.weight_decay", "0.5"]
    main(fit(tree, *SMALL, *KEEP, "--model.freeze_epochs", "-1", *decay, "--test_after_fit", "false"))
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "4"])
    assert changed(Path("epoch0.pt"), Path("epoch3.pt")) == {"head"}
    assert sum(len(group["params"]) for group in load(RUN)["optimizer_states"][0]["param_groups"]) == 2


def test_gradual_unfreezing(tree: Path, here: Path) -> None:
    schedule = ["--model.freeze_epochs", "1", "--model.unfreeze_epochs", "2", "--trainer.max_epochs", "4"]
    main(fit(tree, *SMALL, *KEEP, *schedule, "--test_after_fit", "false"))
    ends = [Path(f"epoch{epoch}.pt") for epoch in range(4)]
    assert changed(*ends[:2]) == {"head"}
    assert changed(*ends[1:3]) == {"head", "body.3", "body.4"}
    assert changed(*ends[2:]) == {"head", "body.3", "body.4", "body.0", "body.1"}


def test_parameters_that_require_no_grad_stay_frozen() -> None:
    net = Small(3, 32)
    net.body[0].weight.requires_grad_(False)
    freezing = Freezing(1, 1)
    for epoch in (0, 1):
        freezing(net, epoch)
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["body.0.weight"]
    assert net.body[1].training


@pytest.mark.slow
@pytest.mark.parametrize("steps", [2, 5, 8], ids=["frozen", "partly", "unfrozen"])
def test_exact_resume_in_any_phase(steps: int, tree: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Also within an epoch of three steps; with weight averaging, layer decay and dropout."""
    options = [
        *(*SMALL, "--model.freeze_epochs", "1", "--model.unfreeze_epochs", "2", "--trainer.max_epochs", "4"),
        *("--model.layer_decay", "0.7", "--model.scheduler", "WarmupDecay", "--test_after_fit", "false"),
        *("--trainer.callbacks", "EMAWeightAveraging", "--trainer.callbacks.decay", "0.9"),
    ]
    for name, stop in (("whole", []), ("cut", ["--trainer.callbacks", f"{__name__}.Stop"])):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        if stop:
            with pytest.raises(InterruptedError):
                main(fit(tree, *options, "--last.every_n_steps", "1", *stop, "--trainer.callbacks.step", str(steps)))
            assert load(RUN)["global_step"] == steps
            main(["fit", "--ckpt_path", "last"])
        else:
            main(fit(tree, *options, "--last.every_n_steps", "1"))
    ends = [load(tmp_path / name / RUN) for name in ("whole", "cut")]
    for part in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
        same(*(end[part] for end in ends), part)


class Stop(L.Callback):
    """Interrupts a run once, at a step."""

    def __init__(self, step: int) -> None:
        self.step, self.mark = step, Path("stopped")

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and not self.mark.exists():
            self.mark.touch()
            raise InterruptedError


@pytest.mark.slow
@pytest.mark.ddp
def test_frozen_layers_on_two_processes(tree: Path, tmp_path: Path) -> None:
    """Layers that are unfrozen later stay in sync on both processes; plain ddp raises."""
    common = [*fit(tree, *SMALL, "--trainer.devices", "2"), "--model.freeze_epochs", "1", "--test_after_fit", "false"]
    refused = start([*common, "--trainer.strategy", "ddp"], tmp_path)
    shown, _ = refused.communicate(timeout=300)
    assert refused.returncode == 2 and "ddp_find_unused_parameters_true" in shown, shown
    same_on_both = ["--trainer.callbacks", f"{__name__}.SameOnBoth"]
    finish([*common, "--trainer.strategy", "ddp_find_unused_parameters_true", *same_on_both], tmp_path)
    assert (tmp_path / "compared").read_text() == "2"


class SameOnBoth(L.Callback):
    """Asserts that all processes have the same weights after each epoch, and which epochs train them."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.before = pl_module.get_parameter("net.body.0.weight").clone()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trained = not torch.equal(self.before, pl_module.get_parameter("net.body.0.weight"))
        assert trained == (trainer.current_epoch == 1)
        for parameter in pl_module.parameters():
            first, second = pl_module.all_gather(parameter.detach())
            assert torch.equal(first, second)
        Path("compared").write_text(str(trainer.current_epoch + 1))
