"""Tests of differentially private training: accounting, gradients, runs and validation."""

import copy
import math
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from project.cli import main
from project.cli.commands import commands
from project.datamodules import ImageDataModule
from project.datamodules.images.transforms import RandomCrop
from project.privacy import DifferentialPrivacy, PoissonBatchSampler
from project.privacy.budget import add_steps, epsilon_of, noise_for, steps_within
from tests.conftest import QUICK, fit
from tests.runs import RUN, kill, load, rows, start

POISSON = ["--data.sampler", "project.privacy.PoissonBatchSampler"]
PRIVATE = [*POISSON, "--data.channel_statistics", "fixed", "--data.batch_transforms", "[]"]
CALLBACK = ["--trainer.callbacks", "project.privacy.DifferentialPrivacy"]
DELTA = ["--trainer.callbacks.delta", "0.001"]


def private(root: Path, *more: str, callback: tuple[str, ...] = ()) -> list[str]:
    """Return the arguments of a short private `fit`."""
    return fit(root, *PRIVATE, *CALLBACK, *DELTA, *callback, *more)


# -- accounting -------------------------------------------------------------------------------------------------------


def exact_without_sampling(noise: float, steps: int, delta: float) -> float:
    """Epsilon of the Gaussian mechanism composed over the steps: Balle and Wang 2018, theorem 8."""
    m = math.sqrt(steps) / noise

    def excess(epsilon: float) -> float:
        return float(norm.cdf(m / 2 - epsilon / m) - math.exp(epsilon) * norm.cdf(-m / 2 - epsilon / m)) - delta

    low, high = 0.0, 100.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high


def renyi_bound(noise: float, rate: float, steps: int, delta: float) -> float:
    """Mironov, Talwar, Zhang 2019, section 3.3, at integer orders; converted to epsilon as in Canonne et al. 2020."""
    best = math.inf
    for order in range(2, 200):
        terms = [
            math.lgamma(order + 1) - math.lgamma(k + 1) - math.lgamma(order - k + 1)
            + k * math.log(rate) + (order - k) * math.log1p(-rate) + k * (k - 1) / (2 * noise**2)
            for k in range(order + 1)
        ]  # fmt: skip
        renyi = steps * float(np.logaddexp.reduce(terms)) / (order - 1)
        best = min(best, renyi + math.log1p(-1 / order) - math.log(delta * order) / (order - 1))
    return best


@pytest.mark.parametrize(("noise", "steps"), [(4.0, 10), (10.0, 300)])
def test_epsilon_is_exact_without_subsampling(noise: float, steps: int) -> None:
    found, truth = epsilon_of([[noise, 1.0, steps]], 1e-5), exact_without_sampling(noise, steps, 1e-5)
    assert truth <= found <= truth + 0.05


@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.0, 0.01, 1000), (1.7, 0.2, 150), (0.8, 0.05, 200)])
def test_epsilon_with_subsampling_is_slightly_below_the_renyi_bound(noise: float, rate: float, steps: int) -> None:
    found, bound = epsilon_of([[noise, rate, steps]], 1e-5), renyi_bound(noise, rate, steps, 1e-5)
    assert 0.75 * bound < found < bound


@pytest.mark.slow
def test_computed_noise_and_steps_spend_the_budget() -> None:
    noise = noise_for(3.0, 1e-5, 0.1, 200)
    assert 2.9 < epsilon_of([[noise, 0.1, 200]], 1e-5) <= 3.0
    steps = steps_within(3.0, 1e-5, [], noise, 0.1, math.inf)
    assert 200 <= steps <= 215 and epsilon_of([[noise, 0.1, steps + 1]], 1e-5) > 3.0
    # Earlier steps with other noise count, too.
    before = [[3.0, 0.1, 30]]
    left = steps_within(3.0, 1e-5, before, noise, 0.1, 1000)
    assert 0 < left < steps
    assert epsilon_of(add_steps(before, noise, 0.1, left), 1e-5) <= 3.0
    assert epsilon_of(add_steps(before, noise, 0.1, left + 1), 1e-5) > 3.0


def test_images_are_sampled_independently_and_once_per_step() -> None:
    batches = PoissonBatchSampler(500, 25, accumulate=4)
    assert batches.rate == 0.2 and len(batches) == 20 and batches.num_samples(0, 4) == 100
    counts, sizes = np.zeros(500), []
    for _ in range(40):
        parts = [request.positions for request in batches]
        assert len(parts) == 20
        for first in range(0, 20, 4):
            step = np.concatenate(parts[first : first + 4]).astype(int)
            assert len(set(step.tolist())) == len(step)
            counts[step] += 1
            sizes.append(len(step))
    assert abs(counts.mean() - 40) < 1 and abs(counts.var() / 32 - 1) < 0.3  # 200 steps: binomial
    assert abs(np.var(sizes) / 80 - 1) < 0.4  # variance of a binomial: 500 * 0.2 * 0.8
    assert [r.positions for r in PoissonBatchSampler(500, 25)] != [r.positions for r in PoissonBatchSampler(500, 25)]


# -- gradients --------------------------------------------------------------------------------------------------------


class Probe(L.Callback):
    """Callback that records the number of images and the norm of the clipped sum of each step."""

    def __init__(self) -> None:
        self.drawn = 0
        seen.clear()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.drawn = len(batch.index)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        summed = torch.cat([p.summed_grad.flatten() for p in pl_module.net.parameters()])
        seen.append((self.drawn, float(summed.norm())))


seen: list[tuple[int, float]] = []


@pytest.mark.slow
def test_in_a_run_each_gradient_is_clipped_and_divided_by_the_expected_batch_size(tree: Path, here: Path) -> None:
    limit = ("--trainer.callbacks.max_grad_norm", "0.01")  # far below the norm of any gradient
    probe = ["--trainer.callbacks", "tests.privacy.test_differential.Probe"]
    args = fit(tree, *PRIVATE, *probe, *CALLBACK, *DELTA, *limit, "--data.batch_size", "8", "--test_after_fit", "false")
    main(args)
    for drawn, length in seen:
        assert 0.2 * drawn * 0.01 / 8 < length <= 1.001 * drawn * 0.01 / 8
    assert len(seen) == 10 and len({drawn for drawn, _ in seen}) > 1


class Compare(L.Callback):
    """Callback that compares the sum of unclipped per-sample gradients with the gradient of the batch."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if len(batch.index):
            net = copy.deepcopy(pl_module.net)
            for module in net.modules():
                module._forward_hooks.clear()
                module._forward_pre_hooks.clear()
                module._backward_hooks.clear()
            loss = nn.functional.cross_entropy(net(pl_module._normalize(batch.inputs)), batch.target, reduction="sum")
            self.plain = torch.autograd.grad(loss / trainer.datamodule.batch_size, list(net.parameters()))  # type: ignore[attr-defined]

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        for (name, parameter), plain in zip(pl_module.net.named_parameters(), self.plain, strict=True):
            difference = float((parameter.summed_grad - plain).norm() / plain.norm().clamp(min=1e-6))
            compared.setdefault(name, []).append(difference)


compared: dict[str, list[float]] = {}


NETS = {
    "ConvNet": ["ConvNet", "--model.net.dropout", "0"],
    "ResNet": ["project.modules.ResNet", "--model.net.depth", "8", "--model.net.norm", "group"],
    "ChannelsLast": ["tests.privacy.nets.ChannelsLast"],
}


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_in_a_run_per_sample_gradients_sum_to_the_batch_gradient(tree: Path, here: Path, net: str) -> None:
    compared.clear()
    limit = ("--trainer.callbacks.max_grad_norm", "1e6", "--trainer.callbacks.epsilon", "1e6")
    probe = ["--trainer.callbacks", "tests.privacy.test_differential.Compare"]
    small = ["--data.batch_size", "8", "--trainer.max_epochs", "1", "--test_after_fit", "false"]
    still = ["--model.net", *NETS[net], "--model.optimizer.lr", "0"]
    main(fit(tree, *PRIVATE, *probe, *CALLBACK, *DELTA, *limit, *small, *still))
    assert compared and all(max(found) < 1e-3 for found in compared.values()), compared


def clipped_sum(images: torch.Tensor, labels: torch.Tensor, net: nn.Module, parts: int) -> torch.Tensor:
    """Return the gradient that the callback computes for a step, without noise."""
    from opacus.grad_sample import GradSampleHooks
    from opacus.optimizers import DPOptimizer

    private, count = DifferentialPrivacy(), len(labels)
    private._hooks = GradSampleHooks(net, loss_reduction="sum")
    optimizer = torch.optim.SGD(net.parameters())
    private._optimizer = DPOptimizer(
        optimizer, noise_multiplier=0.0, max_grad_norm=1 / count, expected_batch_size=None, loss_reduction="sum"
    )
    private._remaining, private._noise, private._rate = 1, 1.0, 0.5
    for x, y in zip(images.chunk(parts), labels.chunk(parts), strict=True):
        (nn.functional.cross_entropy(net(x), y, reduction="sum") / count).backward()
        private.on_after_backward(None, None)  # type: ignore[arg-type]
    private.on_before_optimizer_step(None, None, None)  # type: ignore[arg-type]
    found = torch.cat([p.grad.flatten() for p in net.parameters()])  # type: ignore[union-attr]
    private._hooks.cleanup()
    optimizer.zero_grad()
    return found * count


def small_net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def test_replacing_an_image_changes_the_sum_by_at_most_twice_the_clipping_norm() -> None:
    draw = torch.Generator().manual_seed(0)
    images, labels = torch.randn(12, 3, 8, 8, generator=draw), torch.arange(12) % 3
    net = small_net()
    before = clipped_sum(images, labels, net, 1)
    other, label = images.clone(), labels.clone()
    other[5], label[5] = 1e4, 2
    moved = float((clipped_sum(other, label, net, 1) - before).norm())
    assert 0.1 < moved <= 2 * 1.0001
    without = clipped_sum(torch.cat([images[:5], images[6:]]), torch.cat([labels[:5], labels[6:]]), net, 1)
    assert float((without - before).norm()) <= 1.0001

    def plain(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        gradients = torch.autograd.grad(nn.functional.cross_entropy(net(x), y, reduction="sum"), list(net.parameters()))
        return torch.cat([g.flatten() for g in gradients])

    assert float((plain(other, label) - plain(images, labels)).norm()) > 5  # without clipping
    one_by_one = sum(
        (g := plain(images[i : i + 1], labels[i : i + 1])) * min(1.0, 1 / float(g.norm())) for i in range(12)
    )
    assert torch.allclose(before, torch.as_tensor(one_by_one), atol=2e-4)


def test_accumulated_batches_make_the_same_step() -> None:
    draw = torch.Generator().manual_seed(0)
    images, labels = torch.randn(12, 3, 8, 8, generator=draw), torch.arange(12) % 3
    net = small_net()
    assert torch.allclose(clipped_sum(images, labels, net, 1), clipped_sum(images, labels, net, 4), atol=1e-5)


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_private_run_logs_epsilon_and_saves_a_regular_checkpoint(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(private(tree, "--data.batch_size", "8"))
    shown = capsys.readouterr().out
    saved = load(RUN)
    spent = saved["notes"]["privacy"]["epsilon"]
    noise, rate, steps = saved["notes"]["privacy"]["history"][0]
    assert [rate, steps] == [pytest.approx(8 / 42), 10] and saved["notes"]["privacy"]["delta"] == 0.001
    assert spent == pytest.approx(epsilon_of([[noise, rate, 10]], 0.001)) and 7.5 < spent <= 8
    assert f"epsilon {spent:.2f} of 8 at delta 0.001" in shown
    assert float([row for row in rows(RUN) if row.get("privacy/epsilon")][-1]["privacy/epsilon"]) == pytest.approx(
        spent
    )
    assert saved["data_description"]["input"]["init_args"]["mean"] == [0.5, 0.5, 0.5]

    main(fit(tree, "--run_name", "plain", "--test_after_fit", "false"))
    assert saved["state_dict"].keys() == load(Path("logs/plain/version_0"))["state_dict"].keys()
    best = str(RUN / "checkpoints/best.ckpt")
    main(["test", "--ckpt_path", best, *QUICK])
    main(["predict", "--ckpt_path", best, "--data.root", str(tree), *QUICK])
    for name, *more in (["export", "--format", "pt2"], ["explain", "--images", "2"]):
        if name in commands():
            main([name, "--ckpt_path", best, *more, *QUICK])
    if "report" in commands():
        page = (RUN / "report.html").read_text()
        assert "at delta 0.001" in page and "ε" in page
    if "model_card" in commands():
        main(["model_card", "logs/test/version_0"])
        assert "Trained with differential privacy: epsilon" in Path("logs/test/version_0/model_card.md").read_text()


@pytest.mark.slow
def test_a_run_stops_at_its_budget_and_cannot_be_resumed(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str], failing: Callable[[list[str]], str]
) -> None:
    noise = ("--trainer.callbacks.noise_multiplier", "1.5", "--trainer.callbacks.epsilon", "4")
    main(private(tree, "--data.batch_size", "8", "--trainer.max_epochs", "50", callback=noise))
    assert "the budget does not allow another step" in capsys.readouterr().out
    saved = load(RUN)
    (entry,) = saved["notes"]["privacy"]["history"]
    assert 0 < entry[2] < 250 and saved["global_step"] == entry[2]
    assert epsilon_of([entry], 0.001) <= 4 < epsilon_of([[1.5, entry[1], entry[2] + 1]], 0.001)
    assert "the privacy budget is spent" in failing(["fit", "--ckpt_path", "last"])


@pytest.mark.slow
def test_accumulation_spends_the_same_budget(tree: Path, here: Path) -> None:
    found = []
    for number, (size, accumulated) in enumerate([("16", "1"), ("4", "4")]):
        more = [
            "--data.batch_size",
            size,
            "--trainer.accumulate_grad_batches",
            accumulated,
            "--test_after_fit",
            "false",
        ]
        main(private(tree, *more, callback=("--trainer.callbacks.noise_multiplier", "2")))
        saved = load(Path(f"logs/run/version_{number}"))
        found.append((saved["global_step"], saved["notes"]["privacy"]))
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_killed_run_resumes_from_the_privacy_spent(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = ("--trainer.callbacks.noise_multiplier", "2", "--trainer.callbacks.epsilon", "30")
    args = private(tree, "--trainer.max_epochs", "400", "--last.every_n_steps", "1", callback=noise)
    last = RUN / "checkpoints/last.ckpt"
    process = start([*args, "--test_after_fit", "false"], here)
    assert kill(process, lambda: last.exists() and load(RUN)["global_step"] >= 5, signal.SIGKILL) is not None
    before = load(RUN)["notes"]["privacy"]
    assert before["history"][0][2] == load(RUN)["global_step"]

    changed = ["--trainer.max_steps", str(load(RUN)["global_step"] + 4), "--trainer.max_epochs", "-1"]
    again = [*CALLBACK, *DELTA, "--trainer.callbacks.noise_multiplier", "3"]
    text = (RUN / "config.yaml").read_text()
    (RUN / "config.yaml").write_text(text.replace("noise_multiplier: 2.0", "noise_multiplier: 3.0"))
    main(["fit", "--ckpt_path", "last", *changed, "--test_after_fit", "false"])
    after, rate = load(RUN)["notes"]["privacy"], before["history"][0][1]
    assert after["history"] == [*before["history"], [3.0, rate, 4]]
    assert (
        after["epsilon"] == pytest.approx(epsilon_of(after["history"], 0.001)) and after["epsilon"] > before["epsilon"]
    )
    assert again  # the callback comes from the config of the run


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--data.sampler", "project.datamodules.sampler.EpochBatchSampler"], " ".join(POISSON)),
        (["--data.sampler", "null"], " ".join(POISSON)),
        (["--model.loss", "tests.privacy.nets.Relative"], "Relative makes the gradient of an image depend on others"),
        (["--data.channel_statistics", "train"], "--data.channel_statistics fixed"),
        (["--data.batch_transforms", "[project.datamodules.MixUp]"], "MixUp mixes images"),
        (["--data.batch_transforms", "[project.datamodules.CutMix]"], "CutMix mixes images"),
        (["--trainer.gradient_clip_val", "1"], "gradient_clip_val"),
        (["--trainer.precision", "bf16-mixed"], "--trainer.precision 32-true"),
        (["--model.net", "project.modules.ResNet", "--model.net.depth", "8"], "--model.net.norm group"),
        (["--model.net", "tests.privacy.nets.Centered"], "depend on the rest of the batch"),
        (["--model.net", "tests.privacy.nets.Remembering"], "stores image statistics in its buffer seen"),
        (
            ["--trainer.callbacks", "GradientAccumulationScheduler", "--trainer.callbacks.scheduling", "{0: 5}"],
            "must not change",
        ),
        ([*CALLBACK, *DELTA], "DifferentialPrivacy is configured twice"),
        (["--trainer.callbacks.delta", "1e-16"], "epsilon cannot be computed at delta 1e-16"),
        (["--trainer.callbacks.epsilon", "0.01"], "epsilon must be at least 0.02"),
        (["--model.class_weights", "balanced"], "class weights"),
        (["--model.freeze_epochs", "1"], "--model.freeze_epochs -1 or 0"),
        (["--guard.nonfinite", "skip"], "skipping a step"),
        (["--checkpoint.monitor", "train/loss", "--checkpoint.mode", "min"], "use a val metric"),
        (["--trainer.callbacks.delta", "0.1"], "delta 0.1 must be above 0 and below 1 / 42 images"),
        (["--trainer.callbacks.epsilon", "0"], "above 0"),
        (["--trainer.max_epochs", "-1", "--trainer.max_time", "00:00:01:00"], "length of the run"),
    ],
)
def test_configurations_without_a_guarantee_are_rejected(
    more: list[str], reason: str, tree: Path, here: Path, failing: Callable[[list[str]], str]
) -> None:
    assert reason in failing(private(tree, *more, "--trainer.logger", "false"))


@pytest.mark.parametrize(("sampler", "same"), [(None, True), (PoissonBatchSampler, False)])
def test_the_augmentation_of_a_private_batch_is_not_seeded(sampler: Any, same: bool, tree: Path, here: Path) -> None:
    data = ImageDataModule(str(tree), image_size=8, sampler=sampler, batch_transforms=[RandomCrop()])
    data.setup("fit")
    current = SimpleNamespace(current=SimpleNamespace(ready=0))
    epochs = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=3, batch_progress=current))
    data.trainer = trainer = SimpleNamespace(  # type: ignore[assignment]
        **{"training": True, "overfit_batches": 0, "accumulate_grad_batches": 1, "fit_loop": epochs},
        **{"global_rank": 0, "world_size": 1, "num_devices": 1, "current_epoch": 0},
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    trainer.train_dataloader = data.train_dataloader()
    one, other = (data.on_after_batch_transfer(data.sample(30), 0).inputs for _ in "ab")
    assert torch.equal(one, other) is same


@pytest.mark.ddp
@pytest.mark.slow
def test_several_devices_are_rejected(tree: Path, here: Path) -> None:
    refused = start(private(tree, "--trainer.devices", "2", "--trainer.strategy", "ddp"), here)
    shown, _ = refused.communicate(timeout=300)
    assert refused.returncode == 2 and "--trainer.devices 1" in shown, shown


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["--data.batch_transforms", "[kornia.augmentation.RandomHorizontalFlip,project.datamodules.RandomCrop]"],
        ["--data.batch_transforms", "[project.datamodules.TrivialAugment,project.datamodules.AlternatingFlip]"],
        ["--model.net", "project.modules.ResNet", "--model.net.depth", "8", "--model.net.norm", "group"],
        ["--model.freeze_epochs", "-1", "--model.net", "project.modules.ResNet", "--model.net.depth", "8"],
        ["--data.batch_size", "1"],  # most batches then have one image or none
    ],
)
def test_valid_configurations_are_accepted(more: list[str], tree: Path, here: Path) -> None:
    main(private(tree, *more, "--trainer.max_steps", "12", "--test_after_fit", "false"))
    assert load(RUN)["notes"]["privacy"]["epsilon"] > 0


def test_a_run_without_privacy_cannot_be_resumed_with_it(
    tree: Path, here: Path, failing: Callable[[list[str]], str]
) -> None:
    main(fit(tree, *PRIVATE, "--test_after_fit", "false"))
    assert "start a new run" in failing(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "4", *CALLBACK, *DELTA])
