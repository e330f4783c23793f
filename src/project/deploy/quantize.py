"""Post-training quantization to int8: a quarter of the size, and faster on processors with int8 instructions."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch

from project.datamodules.dataset import IndexedDataset
from project.datamodules.indexed import IndexedDataModule
from project.datamodules.sampler import Request
from project.deploy.load import METADATA, load_exported
from project.deploy.parity import agreement
from project.modules import Classifier
from project.output import pluralize

BATCH_SIZE = 64
QUANTIZED_OPS = ["Add", "AveragePool", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool", "ReduceMean"]
"""Operators that are quantized; not Softmax, whose small probabilities would be rounded to zero."""
PRODUCTS = ["Conv", "Gemm", "MatMul"]


def quantize(file: Path, data: IndexedDataModule, metadata: dict[str, Any]) -> None:
    """Quantize an ONNX file in place.

    Static: weights per channel, activations per tensor, by their ranges on training samples. Networks with a table of
    embeddings, whose sums have other ranges for every text, are quantized dynamically: the table and the weights of
    matrix products per tensor, activations by their range in each batch.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic, quantize_static

    inputs, rows = data.description.input, list[int]()
    with TemporaryDirectory() as scratch:
        fused = Path(scratch) / "fused.onnx"
        has_embeddings = _has_embeddings(onnx.load(file).graph)
        # The inference of symbolic shapes fails on graphs that compute with the lengths of texts.
        quant_pre_process(file, fused, skip_symbolic_shape=has_embeddings)
        graph = onnx.load(fused).graph
        if has_embeddings:
            quantize_dynamic(
                fused, file, op_types_to_quantize=["Gather", "Gemm", "MatMul"], weight_type=QuantType.QInt8
            )
        else:
            # Of other data, all samples are in test.
            samples = data.dataset("train" if data.split_sizes()["train"] else data.test_split)
            rows = samples.rows[samples.even(256)].tolist()
            feeds = ({inputs.graph.name: inputs.stack([samples.raw(row)])} for row in rows)
            reader = SimpleNamespace(get_next=partial(next, feeds, None))
            options = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
            if data.description.target.scores_name == "values":  # 256 levels between the extremes of training samples
                options["nodes_to_exclude"] = _last_layer(graph.node)
            quantize_static(fused, file, reader, op_types_to_quantize=QUANTIZED_OPS, **options)
    model = onnx.load(file)
    calibrated = {f"int8_calibration_{inputs.kind}s": len(rows)}
    onnx.helper.set_model_props(model, {METADATA: json.dumps(metadata | calibrated)})
    onnx.save(model, file)


def _has_embeddings(graph: Any) -> bool:
    """Return True if rows of a constant matrix are looked up."""
    matrices = {each.name for each in graph.initializer if len(each.dims) == 2}
    return any(node.op_type == "Gather" and node.input[0] in matrices for node in graph.node)


def _last_layer(nodes: Sequence[Any]) -> list[str]:
    """Return the names of the nodes from the last matrix product or convolution on."""
    products = [position for position, node in enumerate(nodes) if node.op_type in PRODUCTS]
    return [node.name for node in nodes[products[-1] :]] if products else []


def compare_int8(file: Path, model: Classifier, samples: IndexedDataset) -> str:
    """Return a summary of the scores of a model and of its int8 file on labeled samples, and of their agreement."""
    exported, task, inputs = load_exported(file), model.task, model.data_description.input
    before, after, targets = [], [], []
    for start in range(0, len(samples), BATCH_SIZE):
        batch = samples[Request(0, [*range(start, min(start + BATCH_SIZE, len(samples)))])]
        with torch.inference_mode():
            before.append(model.predictions(batch.inputs))
        raw = inputs.stack([samples.raw(row) for row in batch.index.tolist()])
        after.append(torch.from_numpy(exported.scores(raw)))
        targets.append(batch.target)
    float32, int8, target = torch.cat(before), torch.cat(after), torch.cat(targets)
    scores = ""
    if task.score_name and task.headline:
        first, second = (format(task.score(found, target), task.headline[1]) for found in (float32, int8))
        scores = f"{task.score_name} {first} in float32, {second} in int8; "
    if task.target.scores_name == "probabilities":
        agreed = f"{agreement(task.target, float32.numpy(), int8.numpy()):.2%} of predictions agree"
    else:
        difference = (int8 - float32).abs() / torch.tensor(task.target.scale)
        agreed = f"values differ by {difference.mean():.1e} on average (relative)"
    return f"{pluralize(len(target), inputs.kind)}: {scores}{agreed}"
