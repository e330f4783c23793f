"""Opening an exported file; one in ONNX without torch."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from project.errors import UserError
from project.images import Pixels
from project.interface import FORMAT_VERSION, DataDescription

METADATA = "project"  # the key under which a file says of itself what it is, as JSON
Probabilities = NDArray[np.float32]
Answers = Callable[[Pixels], Probabilities]


@dataclass(frozen=True)
class Exported:
    """An exported model.

    Attributes:
        metadata: The file's metadata: format_version, data_description, tta, temperature, confidence_threshold,
            checkpoint.
        description: What it says of the data that it was trained on.
        probabilities: Decoded pictures, uint8 RGB (N, 3, H, W) of any H and W, to float32 (N, classes).
    """

    metadata: dict[str, Any]
    description: DataDescription
    probabilities: Answers


def load_exported(file: Path, threads: int = 0, require_signature: Path | None = None) -> Exported:
    """Open what `train.py export` wrote; it runs on the CPU.

    Args:
        file: The file.
        threads: How many it may use, which then sleep between batches; 0 leaves that to the library.
        require_signature: The public key that must have signed it, if any.

    Raises:
        UserError: there is no such file, or it is something else, or it is damaged, or not signed so.
    """
    if require_signature is not None:
        from project.secure.sign import check_signature

        check_signature(file, require_signature)
    loaders = {".onnx": _load_onnx, ".pt2": _load_torch, ".safetensors": _load_torch}
    if file.suffix not in loaders:
        raise UserError(f"{file} is no exported model: its name ends in none of {', '.join(loaders)}")
    if not file.is_file():
        raise UserError(f"no such file: {file}")
    try:
        metadata, probabilities = loaders[file.suffix](file, threads)
        if metadata.get("format_version") != FORMAT_VERSION:
            raise UserError(f"{file} was written by another version of this project: export the model again")
        return Exported(metadata, DataDescription.from_dict(metadata["data_description"]), probabilities)
    except (ModuleNotFoundError, UserError):
        raise
    except Exception as error:  # every library has exceptions of its own
        raise UserError(f"{file} was not written by `train.py export`, or it is damaged ({error!r})") from error


def _load_onnx(file: Path, threads: int) -> tuple[dict[str, Any], Answers]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # which would keep all others waiting
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    return metadata, lambda image: np.asarray(session.run(None, {"image": image})[0])


def _load_torch(file: Path, threads: int) -> tuple[dict[str, Any], Answers]:
    import torch

    if threads:
        torch.set_num_threads(threads)
    if file.suffix == ".pt2":
        held = {METADATA: ""}
        module: torch.nn.Module = torch.export.load(file, extra_files=held).module()
        metadata = json.loads(held[METADATA])
    else:
        from safetensors import safe_open
        from safetensors.torch import load_file

        from project.deploy.raw import RawClassifier
        from project.modules import Classifier

        with safe_open(file, "pt") as stream:
            metadata = json.loads(stream.metadata()[METADATA])
        saved, version = io.BytesIO(), metadata["lightning_version"]
        torch.save({**metadata, "pytorch-lightning_version": version, "state_dict": load_file(file)}, saved)
        saved.seek(0)
        model = Classifier.load_from_checkpoint(saved, map_location="cpu", weights_only=True).eval()
        module = RawClassifier(model, DataDescription.from_dict(metadata["data_description"]).image.height)

    def probabilities(image: Pixels) -> Probabilities:
        with torch.inference_mode():
            found: Probabilities = module(torch.from_numpy(image)).numpy()
        return found

    return metadata, probabilities
