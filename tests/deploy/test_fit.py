"""Fitting images by crop, pad or stretch: the same in NumPy, in torch and in an exported graph."""

import numpy as np
import pytest
import torch

from project.datamodules.images.resize import fit_image
from project.deploy.raw import exportable_fit
from project.images import content_box, fit_pixels, visible_part
from project.interface import Fit, PixelType

SHAPES = [(1, 1), (1, 9), (7, 3), (16, 16), (33, 32), (65, 640), (400, 299), (200, 3)]
SIZES = [(1, 1), (16, 16), (24, 40), (224, 160)]


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_training_inference_and_export_fit_images_alike(fit: Fit, dtype: PixelType, channels: int) -> None:
    random = np.random.default_rng(0)
    for height, width in SHAPES:
        pixels = (random.random((height, width, channels)) * (250 if dtype == "uint8" else 60_000)).astype(dtype)
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)
        for size in SIZES:
            expected = fit_pixels(pixels, size, fit)
            np.testing.assert_array_equal(fit_image(tensor, size, fit), expected)
            exported = exportable_fit(tensor[None], size, fit)[0].numpy()
            if dtype == "float32":
                np.testing.assert_allclose(exported, expected, rtol=1e-6)
            else:
                np.testing.assert_array_equal(exported, expected)


def test_crop_pad_and_stretch_of_a_banner() -> None:
    pixels = np.zeros((4, 12, 1), np.uint8)
    pixels[:, 4:8], pixels[:, 11] = 255, 100
    assert (fit_pixels(pixels, (4, 4), "crop") == 255).all(), "the center"
    padded = fit_pixels(pixels, (12, 12), "pad")[0]
    assert np.array_equal(padded[4:8], pixels[..., 0]) and not padded[:4].any() and not padded[8:].any()
    stretched = fit_pixels(pixels, (12, 12), "stretch")[0]
    assert np.array_equal(stretched[0], pixels[0, :, 0]) and (stretched == stretched[0]).all()
    assert np.array_equal(fit_pixels(pixels, (4, 12), "crop")[0], pixels[..., 0]), "the same size is kept"
    assert visible_part(4, 12, (4, 4), "crop") == (0, 4, 4, 4) and content_box(4, 12, (12, 12), "pad") == (4, 0, 4, 12)
