"""Tests of whitening, Muon, ResNet and learning-rate schedules."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from project.cli import main
from project.modules import Classifier, Muon, ResNet, SpeedrunNet, WarmupDecay, WhiteningConv
from project.modules.layers import head
from project.modules.optimizers.groups import parameter_groups
from project.modules.optimizers.muon import orthogonalize
from project.runs.resume import resolve_checkpoint
from tests.conftest import QUICK, fit, square


def test_whitened_patches_are_uncorrelated_with_unit_variance() -> None:
    torch.manual_seed(0)
    image = F.avg_pool2d(torch.randn(200, 3, 18, 18), 3, stride=1)  # correlated neighbors, as in natural images
    layer = WhiteningConv(kernel_size=2, eps=0)
    layer.init_from_images(image)
    output = F.conv2d(image, layer.weight).transpose(0, 1).flatten(1)
    assert torch.allclose(output[:12].cov(), torch.eye(12), atol=0.02)
    assert torch.allclose(output[:12], -output[12:], atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (16, 16)])
def test_muon_update_is_nearly_orthogonal(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(*shape)
    values = torch.linalg.svdvals(orthogonalize(matrix, 5))
    assert float(values.min()) > 0.3 and float(values.max()) < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert F.cosine_similarity(orthogonalize(matrix, 5).flatten(), (u @ v).flatten(), dim=0) > 0.95


def test_muon_matches_torch_muon_and_sgd() -> None:
    def nets() -> tuple[nn.Sequential, nn.Sequential]:
        torch.manual_seed(0)
        one = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        two = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        two.load_state_dict(one.state_dict())
        return one, two

    one, two = nets()
    ours = Muon(parameter_groups(one), lr=0.1, momentum=0.9, head_lr=0.2, vector_lr=0.2, sgd_momentum=0.8)
    rest = [two[0].bias, *two[2].parameters()]
    theirs = torch.optim.SGD(rest, lr=0.2, momentum=0.8, nesterov=True)
    image, label = torch.randn(32, 6), torch.randint(0, 3, (32,))
    for _ in range(5):
        for net in (one, two):
            net.zero_grad()
            F.cross_entropy(net(image), label).backward()
        ours.step()
        theirs.step()
        with torch.no_grad():  # hidden weights are compared by direction below
            two[0].weight.copy_(one[0].weight)
    for ours_p, theirs_p in zip([one[0].bias, *one[2].parameters()], rest, strict=True):
        assert torch.allclose(ours_p, theirs_p, atol=1e-6)

    one, two = nets()
    ours = Muon(parameter_groups(one), lr=0.1, momentum=0.9)
    theirs_muon = torch.optim.Muon([two[0].weight], lr=0.1, momentum=0.9, weight_decay=0.0)
    gradient = torch.randn(8, 6)
    one[0].weight.grad, two[0].weight.grad = gradient.clone(), gradient.clone()
    before = one[0].weight.detach().clone()
    ours.step()
    theirs_muon.step()
    mine, reference = one[0].weight.detach() - before, two[0].weight.detach() - before
    assert F.cosine_similarity(mine.flatten(), reference.flatten(), dim=0) > 0.99


def test_parameter_roles() -> None:
    net = SpeedrunNet(7, square(32))
    roles = {group["role"]: group["params"] for group in parameter_groups(net)}
    assert head(net) is net.head and [tuple(p.shape) for p in roles["head"]] == [(7, 256)]
    assert all(p.ndim == 4 for p in roles["hidden"]) and len(roles["hidden"]) == 6
    assert all(p is not net.whiten.weight for group in roles.values() for p in group), "whitening is not trained"
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 7)


def test_resnet_matches_the_paper() -> None:
    counts = {depth: sum(p.numel() for p in ResNet(10, square(32), depth).parameters()) for depth in (20, 56)}
    assert round(counts[20] / 1e6, 2) == 0.27 and round(counts[56] / 1e6, 2) == 0.85  # table 6 of the paper
    assert ResNet(5, square(40))(torch.rand(2, 3, 40, 40)).shape == (2, 5)
    with pytest.raises(ValueError, match="6n"):
        ResNet(10, square(32), 18)


def rates(scheduler: WarmupDecay, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def schedule(**options: Any) -> WarmupDecay:
    return WarmupDecay(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), **options)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_warmup_and_decay_over_the_run(decay: Any) -> None:
    found = rates(schedule(total_steps=100, warmup=0.2, decay=decay), 100)
    assert 0 < found[0] < 0.06 and max(found) == pytest.approx(1, abs=0.03) and 15 <= int(np.argmax(found)) <= 21
    assert 0 < found[-1] < 0.02 and bool((np.diff(found[21:]) < 0).all())


def test_new_length_without_a_jump() -> None:
    scheduler = schedule(total_steps=1000, warmup=0)
    first = rates(scheduler, 50)
    scheduler.plan(100)
    second = rates(scheduler, 50)
    steps = np.abs(np.diff(first + second))
    assert second[0] == pytest.approx(first[-1], abs=0.002) and second[-1] < 0.03 and steps.max() < 0.02


def test_schedule_resumes_exactly() -> None:
    whole, cut = schedule(total_steps=60), schedule(total_steps=60)
    rates(whole, 30), rates(cut, 30)
    whole.plan(50), cut.plan(50)
    again = schedule(total_steps=60)
    again.load_state_dict(cut.state_dict())
    assert rates(whole, 20) == rates(again, 20)


def test_longer_time_limit_gives_the_schedule_of_a_longer_run() -> None:
    spent, longer = schedule(warmup=0.2), schedule(warmup=0.2)
    rates(spent, 1)
    spent.plan(100, 60)
    assert rates(spent, 99)[-1] < 0.02
    longer.load_state_dict(spent.state_dict())
    longer.plan(150, 60)
    assert rates(longer, 1)[0] < 0.02, "a new estimate for the same time limit"
    longer.plan(200, 120)
    assert rates(longer, 2)[1] == pytest.approx(0.99 / 1.6, abs=0.01)


@pytest.mark.slow
def test_schedule_ends_at_the_time_limit(tmp_path: Path, here: Path) -> None:
    root = tmp_path / "images"
    noise = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(200):
            Image.fromarray(noise.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(root / name / f"{number}.png")
    arguments = ["fit", "--data.root", str(root), *QUICK, "--data.batch_size", "8", "--trainer.max_epochs", "-1"]
    arguments += ["--trainer.max_time", "00:00:00:06", "--trainer.log_every_n_steps", "1", "--test_after_fit", "false"]
    main([*arguments, "--model.scheduler", "WarmupDecay"])
    with (here / "logs" / "run" / "version_0" / "metrics.csv").open(newline="") as stream:
        found = [float(value) for row in csv.DictReader(stream) if (value := row["train/learning_rate"])]
    assert len(found) > 50 and max(found) > 0.8e-3 and found[-1] < 0.1e-3, "warmup, decay, and close to zero at the end"


@pytest.mark.slow
def test_network_is_initialized_from_training_images(tree: Path, here: Path) -> None:
    quick = [argument if argument != "8" else "24" for argument in QUICK]
    recipe = ["--model.net", "SpeedrunNet", "--model.optimizer", "project.modules.Muon", "--test_after_fit", "false"]
    main(["fit", "--data.root", str(tree), "--trainer.max_epochs", "1", "--data.batch_size", "16", *quick, *recipe])
    model = Classifier.load_from_checkpoint(resolve_checkpoint("last", Path("logs"), None), weights_only=True)
    assert model.net is not None
    torch.manual_seed(0)
    untouched = SpeedrunNet(3, square(24)).whiten.weight
    weight = model.net.whiten.weight  # type: ignore[union-attr]
    half = len(weight) // 2
    assert torch.equal(weight[:half], -weight[half:]) and not torch.equal(untouched[:half], -untouched[half:])


def test_run_that_stops_within_an_epoch_is_validated_and_tested(tree: Path, here: Path, capsys: Any) -> None:
    stopping = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"]
    main(["fit", "--data.root", str(tree), "--trainer.max_steps", "2", "--data.batch_size", "8", *QUICK, *stopping])
    assert "test: 9 images" in capsys.readouterr().out
    assert resolve_checkpoint("best", Path("logs"), None).is_file()


def test_gradient_clipping_with_mixed_precision_and_fused_optimizer(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(fit(tree, "--trainer.precision", "bf16-mixed", "--trainer.gradient_clip_val", "1e-12"))
    shown = capsys.readouterr().out
    assert "fused Adam" in shown
    rows = list(csv.DictReader((here / "logs" / "run" / "version_0" / "metrics.csv").open()))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert losses[0] == pytest.approx(losses[1], abs=0.1), "clipped gradients hardly change the loss"
