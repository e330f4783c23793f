"""Loading of exported models; ONNX files are loaded without torch."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from project.errors import UserError
from project.interface import FORMAT_VERSION, DataDescription
from project.runs.predictor import Scores

METADATA = "project"  # key of the metadata within an exported file, a JSON string
PredictFunction = Callable[[NDArray[Any]], Scores]


@dataclass(frozen=True)
class Exported:
    """An exported model.

    Attributes:
        metadata: The file's metadata: format_version, data_description, tta, temperature, checkpoint.
        description: Description of the training data, e.g. image size and class names.
        scores: Function from a batch of raw inputs, see `Input.graph`, to probabilities or values, float32 (N,
            outputs).
    """

    metadata: dict[str, Any]
    description: DataDescription
    scores: PredictFunction


def load_exported(file: Path, threads: int = 0, require_signature: Path | None = None) -> Exported:
    """Load a model exported by `train.py export` for inference on the CPU.

    Args:
        file: The exported file.
        threads: Number of threads, which do not spin between batches; 0 for the default of the library.
        require_signature: Load the model only if this public key signed it.

    Raises:
        UserError: The file does not exist, is damaged, is not an exported model, or is not signed by the key.
    """
    if require_signature is not None:
        from project.secure.sign import check_signature

        check_signature(file, require_signature)
    loaders = {".onnx": _load_onnx, ".pt2": _load_torch, ".safetensors": _load_torch}
    if file.suffix not in loaders:
        raise UserError(f"{file} is not an exported model: the file name must end in one of {', '.join(loaders)}")
    if not file.is_file():
        raise UserError(f"no such file: {file}")
    try:
        metadata, scores = loaders[file.suffix](file, threads)
        if metadata.get("format_version") != FORMAT_VERSION:
            raise UserError(f"{file} was exported by an incompatible version of this project: export the model again")
        return Exported(metadata, DataDescription.from_dict(metadata["data_description"]), scores)
    except (ModuleNotFoundError, UserError):
        raise
    except Exception as error:  # each library raises its own exceptions
        raise UserError(f"{file} was not written by `train.py export`, or is corrupted ({error!r})") from error


def _load_onnx(file: Path, threads: int) -> tuple[dict[str, Any], PredictFunction]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning threads starve the others
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    (graph_input,) = (each.name for each in session.get_inputs())
    return metadata, lambda raw: np.asarray(session.run(None, {graph_input: raw})[0])


def _load_torch(file: Path, threads: int) -> tuple[dict[str, Any], PredictFunction]:
    import torch

    if threads:
        torch.set_num_threads(threads)
    if file.suffix == ".pt2":
        extra_files = {METADATA: ""}
        module: torch.nn.Module = torch.export.load(file, extra_files=extra_files).module()
        metadata = json.loads(extra_files[METADATA])
    else:
        from safetensors import safe_open
        from safetensors.torch import load_file

        from project.deploy.raw import RawClassifier
        from project.modules import Classifier

        with safe_open(file, "pt") as stream:
            metadata = json.loads(stream.metadata()[METADATA])
        checkpoint, version = io.BytesIO(), metadata["lightning_version"]
        torch.save({**metadata, "pytorch-lightning_version": version, "state_dict": load_file(file)}, checkpoint)
        checkpoint.seek(0)
        model = Classifier.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval()
        module = RawClassifier(model)

    def scores(raw: NDArray[Any]) -> Scores:
        with torch.inference_mode():
            output: Scores = module(torch.from_numpy(raw)).numpy()
        return output

    return metadata, scores
