"""The command `export`: a trained model as one file."""

import json
import warnings
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch

from project.deploy.load import METADATA
from project.deploy.parity import check_parity, parity_images
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
    """Write a trained model as one file, from pixels to probabilities, and see that it answers as it did.

    A file that was there stays until the new one is whole and right.

    Args:
        trained: The model, and images to compare the answers on; by default the test split that it was trained with.
        format: onnx runs everywhere, without torch; pt2 runs in torch; safetensors holds weights, for this project.
        int8: Count in eight bits, by ranges of the training images; a little less exact, and onnx only.
        output: The file to write; by default model.FORMAT, or model_int8.onnx, in the run's folder.

    Raises:
        UserError: it cannot be exported, or answers otherwise.
    """
    model, data, checkpoint = trained.module, trained.data, trained.checkpoint
    if int8 and format != "onnx":
        raise UserError(f"--int8 true goes with --format onnx, not {format}")
    trained.load(labeled=int8)
    model.cpu().float()
    images = parity_images(data)
    file = output or output_folder(checkpoint) / f"model{'_int8' if int8 else ''}.{format}"
    if file.suffix != f".{format}":
        raise UserError(f"--output {file}: the name of a file of --format {format} ends in .{format}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as partial:
        about = metadata(model, checkpoint)
        write(partial, model, about, format)
        print(f"parity    {check_parity(partial, model, images)}")
        if int8:
            quantize(partial, data, about)
            print(f"{data.test_split:<10}{compare_int8(partial, model, data.test_dataloader())}")
    print(f"exported  {file} ({file.stat().st_size / 1e6:,.1f} MB)")


def metadata(model: Classifier, checkpoint: Path) -> dict[str, Any]:
    """Return what an exported file says of itself; plain types."""
    temperature = getattr(model.task, "temperature", None)
    return {
        "format_version": FORMAT_VERSION,
        "data_description": model.data_description.to_dict(),
        "tta": model.tta,
        **({} if temperature is None else {"temperature": float(temperature)}),
        "confidence_threshold": model.confidence_threshold,
        "checkpoint": str(checkpoint),
        "input": "image: uint8 (N, 3, H, W), RGB as decoded, any H and W",
        "output": "probabilities: float32 (N, classes)",
    }


def write(file: Path, model: Classifier, about: dict[str, Any], format: Format) -> None:
    """Write a classifier in evaluation mode: its computation; as safetensors its weights, and what builds its net."""
    if format == "safetensors":
        from safetensors.torch import save_file

        about = about | {"hyper_parameters": dict(model.hparams), "lightning_version": L.__version__}
        tensors = {name: value.clone().contiguous() for name, value in model.state_dict().items()}
        save_file(tensors, file, {METADATA: json.dumps(about)})
        return
    size = model.data_description.image.height
    raw = RawClassifier(model, size).eval()
    # Two images, neither square nor of the net's size: a dimension of an example that is special becomes a constant.
    example = (torch.zeros(2, 3, size + 5, size + 11, dtype=torch.uint8),)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torch does within itself
            if format == "pt2":
                dynamic = {"image": dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)}
                program = torch.export.export(raw, example, dynamic_shapes=dynamic)
                torch.export.save(program, file, extra_files={METADATA: json.dumps(about)})
                return
            import onnxscript  # noqa: F401 - torch's own message would not say where it comes from

            written = torch.onnx.export(
                raw,
                example,
                dynamo=True,
                dynamic_shapes={"image": {0: "images", 2: "height", 3: "width"}},
                input_names=["image"],
                output_names=["probabilities"],
                verbose=False,
            )
            assert written is not None
            written.model.metadata_props[METADATA] = json.dumps(about)
            written.save(file)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"the net cannot be written as {format} ({reason}): try another --format") from error
