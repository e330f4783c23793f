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

METADATA = "project"
"""The key under which a file says of itself what it is, as JSON."""
Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Exported:
    """An exported model.

    Attributes:
        metadata: What stands in the file: data_description (class names and so on), views, temperature, sure_above,
            checkpoint.
        probabilities: Decoded pictures, uint8 RGB (N, 3, H, W) of any H and W, to float32 (N, classes).
    """

    metadata: dict[str, Any]
    probabilities: Callable[[Pixels], Probabilities]

    @property
    def class_names(self) -> list[str]:
        """In the order of the probabilities."""
        names: list[str] = self.metadata["data_description"]["class_names"]
        return names


def load_exported(file: Path, threads: int = 0) -> Exported:
    """Open what `train.py export` wrote; it runs on the CPU.

    Args:
        file: The file.
        threads: How many it may use, which then sleep between batches; 0 leaves that to the library.

    Raises:
        UserError: there is no such file, or it is something else, or it is damaged.
    """
    loaders = {".onnx": _load_onnx, ".pt2": _load_pt2, ".safetensors": _load_safetensors}
    if file.suffix not in loaders:
        raise UserError(f"{file} is no exported model: its name ends in none of {', '.join(loaders)}")
    if not file.is_file():
        raise UserError(f"no such file: {file}")
    try:
        return loaders[file.suffix](file, threads)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # every library has exceptions of its own
        raise UserError(f"{file} was not written by `train.py export`, or it is damaged ({error!r})") from error


def _load_onnx(file: Path, threads: int) -> Exported:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # which would keep all others waiting
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])

    def probabilities(image: Pixels) -> Probabilities:
        (found,) = session.run(None, {"image": image})
        return np.asarray(found)

    return Exported(metadata, probabilities)


def _load_pt2(file: Path, threads: int) -> Exported:
    import torch

    held = {METADATA: ""}
    module = torch.export.load(file, extra_files=held).module()
    return Exported(json.loads(held[METADATA]), _through_torch(module, threads))


def _load_safetensors(file: Path, threads: int) -> Exported:
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    from project.deploy.raw import RawClassifier
    from project.modules import Classifier

    with safe_open(file, "pt") as stream:
        metadata = json.loads(stream.metadata()[METADATA])
    checkpoint = {
        "state_dict": load_file(file),
        "hyper_parameters": metadata["hyper_parameters"],
        "pytorch-lightning_version": metadata["lightning_version"],
    }
    saved = io.BytesIO()
    torch.save(checkpoint, saved)
    saved.seek(0)
    model = Classifier.load_from_checkpoint(saved, map_location="cpu", weights_only=True).eval()
    whole = RawClassifier(model, metadata["data_description"]["image_size"])
    return Exported(metadata, _through_torch(whole, threads))


def _through_torch(module: Any, threads: int) -> Callable[[Pixels], Probabilities]:
    import torch

    if threads:
        torch.set_num_threads(threads)

    def probabilities(image: Pixels) -> Probabilities:
        with torch.inference_mode():
            found: Probabilities = module(torch.from_numpy(image)).numpy()
        return found

    return probabilities
