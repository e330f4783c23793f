"""Eight bits in place of thirty-two: a quarter of the size, and faster where the processor has instructions for it."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from project.datamodules import ImageDataModule
from project.deploy.load import METADATA, load_exported
from project.images import Pixels
from project.interface import Batch
from project.modules import Classifier

CALIBRATION = 256
"""Training images, at most, whose activations give the ranges."""
QUANTISED = ["Add", "AveragePool", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool", "ReduceMean"]
"""What is counted in eight bits; not the softmax, whose small probabilities would all become zero."""


def quantise(file: Path, data: ImageDataModule, output: Path) -> None:
    """Write an ONNX file anew with weights (one scale a channel) and activations in eight bits.

    Static quantisation: the ranges of activations are those of training images, found once.

    Args:
        file: What `project.deploy.export.write` wrote; `output` may be the same.
        data: Set up with a train split.
        output: Where to.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quant_pre_process, quantize_static

    about = load_exported(file).metadata
    image = data.sample(CALIBRATION)[0].contiguous().numpy()
    with TemporaryDirectory() as scratch:
        fused = Path(scratch) / "fused.onnx"
        quant_pre_process(file, fused)
        quantize_static(
            fused,
            output,
            _Ranges(image),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    written = onnx.load(output)
    onnx.helper.set_model_props(written, {METADATA: json.dumps(about | {"int8_calibration_images": len(image)})})
    onnx.save(written, output)


class _Ranges:
    """What onnxruntime asks for training images, one at a time."""

    def __init__(self, image: Pixels) -> None:
        self._images: Iterator[dict[str, Any]] = ({"image": one[None]} for one in image)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._images, None)


def compare_int8(file: Path, model: Classifier, batches: Iterable[Batch]) -> str:
    """In words: the accuracy of a model and of its file on labelled images, and how often they answer alike."""
    exported = load_exported(file)
    answers: list[np.ndarray[Any, Any]] = []
    with torch.inference_mode():
        for batch in batches:
            float32 = model.probabilities(batch.image).argmax(1).numpy()
            int8 = exported.probabilities(batch.image.contiguous().numpy()).argmax(1)
            label = batch.label.numpy()
            answers.append(np.stack([float32 == label, int8 == label, float32 == int8]))
    found = np.concatenate(answers, axis=1)
    before, after, same = found.mean(1)
    return (
        f"{found.shape[1]:,} images: accuracy {before:.2%} in float32, {after:.2%} in int8;"
        f" {same:.2%} of answers are the same"
    )
