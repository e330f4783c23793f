"""Multispectral images, padded to an input that is not square, in every command that shows or changes images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from project.cli import main
from project.datamodules import ImageDataModule
from project.interface import ImageInput
from tests.conftest import QUICK, fit


@pytest.mark.parametrize("depth", [np.uint8, np.float32])
@pytest.mark.parametrize(("channels", "mode", "band"), [(1, "L", 0), (2, "L", 0), (3, "RGB", 2), (5, "RGB", 2)])
def test_shown_bands(channels: int, mode: str, band: int, depth: type) -> None:
    inputs = ImageInput(4, 6, [0.5] * channels, [0.5] * channels, channels)
    pixels = np.arange(channels, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 6), np.uint8) * 10
    image = inputs.render(pixels if depth == np.uint8 else pixels / np.float32(255))
    assert image.mode == mode and image.size == (6, 4) and np.asarray(image).max() == 10 * band
    assert inputs.shown_bands.endswith({1: "", 2: "band 1 of 2 in gray", 3: ""}.get(channels, "red, green and blue"))


@pytest.mark.slow
def test_five_bands_of_sixteen_bits(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the last band tells the classes apart."""
    noise = np.random.default_rng(0)
    for name, level in {"dry": 900, "wet": 2600}.items():
        (here / "bands" / name).mkdir(parents=True)
        for number in range(30):
            pixels = noise.integers(300, 3900, (16, 10, 5))
            pixels[..., 4] = level + noise.integers(-300, 300, (16, 10))
            np.save(here / "bands" / name / f"{number}.npy", pixels.astype(np.uint16))
    options = [
        "--data.channels",
        "5",
        "--data.fit",
        "pad",
        "--data.image_size",
        "[16, 24]",
        "--trainer.max_epochs",
        "6",
    ]
    analysis = ["--trainer.callbacks", "project.explain.ErrorAnalysis", "--trainer.callbacks.every_n_epochs", "3"]
    main([*fit(here / "bands"), *options, *analysis])
    run, shown = Path("logs/run/version_0"), capsys.readouterr().out
    assert "accuracy 100" in shown and "figures show bands 1 to 3 of 5 as red, green and blue" in shown
    page = (run / "report.html").read_text()
    assert "16x24, 5 channels, padded" in page and "bands 1 to 3 of 5" in page
    model = ["--ckpt_path", "best", *QUICK[:4]]
    main(["explain", *model, "--methods", "[gradcam, integrated_gradients, occlusion]", "--ablation", "true"])
    assert "the figures show bands 1 to 3 of 5" in capsys.readouterr().out
    figures = Path("logs/explain/version_0")
    for name in ("filters.png", "feature_maps.png", "ablation.png", "00000/features/sprite.png"):
        Image.open(figures / name).verify()
    data = ImageDataModule(str(here / "bands"), channels=5, fit="pad", image_size=[16, 24])
    data.setup("test")
    content = data.content([3, 4])
    assert content is not None and content.shape == (2, 1, 16, 24)
    assert content.any(2)[0, 0].nonzero().flatten().tolist() == [*range(7, 17)], "ten columns in the middle"
    main(["robustness", *model])
    assert "skipped: not defined for 5 channels" in capsys.readouterr().out
    main(["model_card", str(run)])
    assert "images of 16x24, 5 channels, padded" in (run / "model_card.md").read_text()
    main(["prune", *model])
    main([*fit(here / "bands"), *options, "--config", str(run / "pruned.yaml"), "--trainer.max_epochs", "1"])
    weights = torch.load("logs/run/version_1/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert weights["net.net.features.0.weight"].shape[1] == 5
