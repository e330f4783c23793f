"""The command `export`: a trained model as one file."""

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from project.datamodules import ImageDataModule
from project.deploy.load import METADATA
from project.deploy.parity import checked_images, require_parity
from project.deploy.quantise import compare_int8, quantise
from project.deploy.raw import RawClassifier
from project.errors import UserError
from project.files import whole
from project.modules import Classifier
from project.run import home_of
from project.trained import bring_up

Format = Literal["onnx", "pt2", "safetensors"]


def export(
    trainer: L.Trainer,
    model: Classifier,
    data: ImageDataModule,
    checkpoint: Path,
    format: Format,
    int8: bool,
    output: Path | None,
) -> Path:
    """Write a trained model as one file, then see that it answers as the checkpoint does; returns the file.

    A file that was there stays until the new one is whole and right. See `project.trainer.Trainer.export`.

    Raises:
        UserError: it cannot be exported, or answers otherwise.
    """
    if int8 and format != "onnx":
        raise UserError(f"--int8 true goes with --format onnx, not {format}")
    bring_up(trainer, model, data, checkpoint, labelled=int8)
    model.cpu().float()
    images = checked_images(data)
    file = output or home_of(checkpoint) / f"model{'_int8' if int8 else ''}.{format}"
    if file.suffix != f".{format}":
        raise UserError(f"--output {file}: the name of a file of --format {format} ends in .{format}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole(file) as partial:
        write(partial, model, metadata(model, checkpoint), format)
        print(f"parity    {require_parity(partial, model, images)}")
        if int8:
            quantise(partial, data, partial)
            print(f"{data.test_split:<10}{compare_int8(partial, model, data.test_dataloader())}")
    print(f"exported  {file} ({file.stat().st_size / 1e6:,.1f} MB)")
    return file


def metadata(model: Classifier, checkpoint: Path) -> dict[str, Any]:
    """What an exported file says of itself; plain types."""
    assert model.data_description is not None
    return {
        "data_description": asdict(model.data_description),
        "views": model.views,
        "temperature": float(model.temperature),
        "sure_above": model.sure_above,
        "checkpoint": str(checkpoint),
        "input": "image: uint8 (N, 3, H, W), RGB as decoded, any H and W",
        "output": "probabilities: float32 (N, classes)",
    }


def write(file: Path, model: Classifier, about: dict[str, Any], format: Format) -> None:
    """Write a classifier that is in evaluation mode.

    Args:
        file: Where to.
        model: The classifier.
        about: What the file is to say of itself; plain types.
        format: onnx and pt2 hold the computation; safetensors holds the weights, and what builds the net around them.

    Raises:
        UserError: the net does something that the format cannot express.
    """
    if format == "safetensors":
        from safetensors.torch import save_file

        about = about | {"hyper_parameters": dict(model.hparams), "lightning_version": L.__version__}
        tensors = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
        save_file(tensors, file, {METADATA: json.dumps(about)})
        return
    size = about["data_description"]["image_size"]
    whole = RawClassifier(model, size).eval()
    # Two images, neither square nor of the net's size: a dimension of an example that is special becomes a constant.
    example = (torch.zeros(2, 3, size + 5, size + 11, dtype=torch.uint8),)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torch does within itself
            _trace(file, whole, example, json.dumps(about), format)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"the net cannot be written as {format} ({reason}): try another --format") from error


def _trace(file: Path, whole: RawClassifier, example: tuple[Tensor], about: str, format: Format) -> None:
    if format == "pt2":
        dynamic = {"image": dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)}
        program = torch.export.export(whole, example, dynamic_shapes=dynamic)
        torch.export.save(program, file, extra_files={METADATA: about})
        return
    import onnxscript  # noqa: F401 - torch's own message would not say where it comes from

    written = torch.onnx.export(
        whole,
        example,
        dynamo=True,
        dynamic_shapes={"image": {0: "images", 2: "height", 3: "width"}},
        input_names=["image"],
        output_names=["probabilities"],
        verbose=False,
    )
    assert written is not None
    written.model.metadata_props[METADATA] = about
    written.save(file)
