"""Post-training static quantization to int8: a quarter of the size, and faster on processors with int8 instructions."""

import json
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from project.datamodules.images.dataset import Images
from project.datamodules.indexed import IndexedDataModule
from project.datamodules.sampler import Request
from project.deploy.load import METADATA, load_exported
from project.modules import Classifier

BATCH_SIZE = 64
QUANTIZED_OPS = ["Add", "AveragePool", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool", "ReduceMean"]
"""Operators that are quantized; not Softmax, whose small probabilities would be rounded to zero."""


def quantize(file: Path, data: IndexedDataModule, metadata: dict[str, Any]) -> None:
    """Quantize an ONNX file in place: weights per channel, activations per tensor, by the ranges on training images."""
    import onnx
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static

    images = data.images("train" if data.split_sizes()["train"] else data.test_split)  # of other data, all are in test
    image = np.stack([images.fitted(images.rows[position]).contiguous().numpy() for position in images.even(256)])
    reader = SimpleNamespace(get_next=partial(next, ({"image": one[None]} for one in image), None))
    with TemporaryDirectory() as scratch:
        fused = Path(scratch) / "fused.onnx"
        quant_pre_process(file, fused)
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(fused, file, reader, op_types_to_quantize=QUANTIZED_OPS, per_channel=True, **types)
    model = onnx.load(file)
    onnx.helper.set_model_props(model, {METADATA: json.dumps(metadata | {"int8_calibration_images": len(image)})})
    onnx.save(model, file)


def compare_int8(file: Path, model: Classifier, images: Images) -> str:
    """Return a summary of the accuracy of a model and of its int8 file on labeled images, and of their agreement."""
    exported = load_exported(file)
    results = []
    for start in range(0, len(images), BATCH_SIZE):
        batch = images[Request(0, [*range(start, min(start + BATCH_SIZE, len(images)))])]
        with torch.inference_mode():
            float32 = model.predictions(batch.inputs).argmax(1).numpy()
        pixels = np.stack([images.fitted(row).contiguous().numpy() for row in batch.index.tolist()])
        int8 = exported.probabilities(pixels).argmax(1)
        label = batch.target.numpy()
        results.append(np.stack([float32 == label, int8 == label, float32 == int8]))
    correct = np.concatenate(results, axis=1)
    before, after, agreement = correct.mean(1)
    return (
        f"{correct.shape[1]:,} images: accuracy {before:.2%} in float32, {after:.2%} in int8;"
        f" {agreement:.2%} of predictions agree"
    )
