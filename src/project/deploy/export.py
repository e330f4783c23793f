"""The command `export`: write a trained model to a single file."""

import json
import warnings
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch

from project.datamodules.indexed import IndexedDataModule
from project.deploy.load import METADATA
from project.deploy.parity import check_parity, parity_samples
from project.deploy.quantize import compare_int8, quantize
from project.deploy.raw import RawClassifier
from project.errors import UserError
from project.files import atomic_write
from project.interface import FORMAT_VERSION
from project.modules import Classifier
from project.runs.folder import output_folder
from project.runs.job import Trained

Format = Literal["onnx", "pt2", "safetensors"]


def export(trained: Trained, format: Format = "onnx", int8: bool = False, output: Path | None = None) -> None:
    """Export a trained model to one file that maps decoded images, or texts, to probabilities or values.

    The predictions of the file are compared with those of the checkpoint. An existing file is replaced only by a
    complete file that passed this check.

    Args:
        trained: The model, and the samples of the comparison; by default the test split it was trained with.
        format: onnx runs with ONNX Runtime, without torch; pt2 is a `torch.export` program; safetensors holds the
            weights and is loaded by this project.
        int8: Quantize to int8, calibrated on training samples; onnx only, at a small loss of quality.
        output: The file to write; by default model.FORMAT, or model_int8.onnx, in the run folder.

    Raises:
        UserError: If the model cannot be exported, or the predictions of the file differ.
    """
    model, data, checkpoint = trained.module, trained.data, trained.checkpoint
    name = model.data_description.input.graph.name  # raises an error if there is none
    if not isinstance(data, IndexedDataModule):
        raise UserError(
            f"export compares the file on {name}s of an IndexedDataModule, and {type(data).__name__} is none"
        )
    if int8 and format != "onnx":
        raise UserError(f"--int8 true requires --format onnx, got --format {format}")
    trained.load("test" if int8 else "predict")
    model.cpu().float()
    samples = parity_samples(data)
    file = output or output_folder(checkpoint) / f"model{'_int8' if int8 else ''}.{format}"
    if file.suffix != f".{format}":
        raise UserError(f"--output {file}: the file name must end in .{format} with --format {format}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as partial:
        model_metadata = metadata(model, checkpoint)
        write(partial, model, model_metadata, format)
        print(f"parity    {check_parity(partial, model, samples)}")
        if int8:
            quantize(partial, data, model_metadata)
            print(f"{data.test_split:<10}{compare_int8(partial, model, data.dataset(data.test_split))}")
    print(f"exported  {file} ({file.stat().st_size / 1e6:,.1f} MB)")


def metadata(model: Classifier, checkpoint: Path) -> dict[str, Any]:
    """Return the metadata of an exported file, as plain types."""
    temperature, target = getattr(model.task, "temperature", None), model.data_description.target
    return {
        "format_version": FORMAT_VERSION,
        "data_description": model.data_description.to_dict(),
        "tta": model.tta,
        **({} if temperature is None else {"temperature": float(temperature)}),
        "checkpoint": str(checkpoint),
        "input": model.data_description.input.graph.layout,
        "output": f"{target.scores_name}: float32 (N, {target.kind})",
    }


def write(file: Path, model: Classifier, metadata: dict[str, Any], format: Format) -> None:
    """Write a classifier in evaluation mode: its graph, or for safetensors its weights and hyperparameters."""
    if format == "safetensors":
        from safetensors.torch import save_file

        metadata = metadata | {"hyper_parameters": dict(model.hparams), "lightning_version": L.__version__}
        tensors = {name: value.clone().contiguous() for name, value in model.state_dict().items()}
        save_file(tensors, file, {METADATA: json.dumps(metadata)})
        return
    raw, graph = RawClassifier(model).eval(), model.data_description.input.graph
    example = (torch.from_numpy(graph.example),)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the internals of torch
            if format == "pt2":
                dynamic = (dict.fromkeys(graph.axes, torch.export.Dim.DYNAMIC),)
                program = torch.export.export(raw, example, dynamic_shapes=dynamic)
                torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata)})
                return
            import onnxscript  # noqa: F401 - a missing package is then reported with the extra that installs it

            onnx_program = torch.onnx.export(
                raw,
                example,
                dynamo=True,
                dynamic_shapes=(dict(graph.axes),),
                input_names=[graph.name],
                output_names=[model.data_description.target.scores_name],
                verbose=False,
            )
            assert onnx_program is not None
            onnx_program.model.metadata_props[METADATA] = json.dumps(metadata)
            onnx_program.save(file)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"the network cannot be exported to {format} ({reason}): try another --format") from error
