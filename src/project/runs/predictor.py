"""Inference in Python: `project.load` returns a `Predictor` for a checkpoint or an exported file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from project.errors import UserError
from project.interface import ClassTarget, DataDescription, ImageInput, Target, import_object

Scores = NDArray[np.float32]
BATCH = 64
"""Batch size."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one sample.

    Attributes:
        scores: Probabilities or values, float32 (outputs,).
        target: Description of the target, e.g. the class names.
        path: Path of the file; None for texts, images, arrays and tensors.
    """

    scores: Scores
    target: Target
    path: str | None = None

    def _require(self, attribute: str, *kinds: str) -> None:
        if self.target.kind not in kinds:
            instead = {"classes": "label and probabilities", "labels": "labels and probabilities", "values": "values"}
            advice = instead.get(self.target.kind, "scores and to_dict()")
            raise AttributeError(f"a prediction of {self.target.kind} has no {attribute}: use {advice}")

    @property
    def label(self) -> str:
        """Name of the class with the highest probability."""
        self._require("label", "classes")
        return self.target.predicted(self.scores)[0]

    @property
    def labels(self) -> list[str]:
        """Names of the predicted labels of a multi-label model, those whose probability reaches their threshold."""
        self._require("labels", "labels")
        return self.target.predicted(self.scores)

    @property
    def probability(self) -> float:
        """Probability of the predicted class, in [0, 1]."""
        self._require("probability", "classes")
        return self.probabilities[self.label]

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability of each class or label, by its name."""
        self._require("probabilities", "classes", "labels")
        return dict(zip(self.target.names, self.scores.tolist(), strict=True))

    @property
    def values(self) -> dict[str, float]:
        """Values of a regression model by their names, in the units of the data."""
        self._require("values", "values")
        return dict(zip(self.target.names, self.scores.tolist(), strict=True))

    @property
    def confident(self) -> bool | None:
        """True if the probability reaches the confidence threshold; None if the model has none."""
        return self.target.is_confident(self.scores) if isinstance(self.target, ClassTarget) else None

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as plain types, in the format of the server."""
        return self.target.to_json(self.scores)

    def __str__(self) -> str:
        return self.target.describe(self.scores)


class Predictor:
    """A trained model that takes files, folders, images, arrays and tensors, or texts.

    Attributes:
        description: Input, target and fingerprint of the data that the model was trained on.
    """

    def __init__(self, compute: Callable[[NDArray[Any]], Scores], description: DataDescription) -> None:
        self._compute, self.description = compute, description

    @overload
    def predict(self, sample: list[Any] | tuple[Any, ...]) -> list[Prediction]: ...
    @overload
    def predict(self, sample: Any) -> Any: ...
    def predict(self, sample: Any) -> Any:
        """Predict one sample, or several.

        Args:
            sample: An image as a file, a PIL image, an array (H, W, C) or (H, W), or a tensor (C, H, W), with the
                model's channels; uint8, float in [0, 1], or in the dtype of the training images. Or several: a folder,
                whose images are found recursively, a list, or an array or tensor with a leading batch dimension. For a
                model of texts: a text, or a list of texts.

        Returns:
            A `Prediction`; for several samples a list of them, those of a folder in the order of their paths.

        Raises:
            UserError: A file cannot be read, or a folder has no images.
            ValueError: An array or tensor has an unsupported shape, dtype or range.
        """
        several = self.description.input.several(sample)
        return next(self._predict([sample])) if several is None else list(self._predict(several))

    def _predict(self, samples: Sequence[Any]) -> Iterator[Prediction]:
        for start in range(0, len(samples), BATCH):
            batch = samples[start : start + BATCH]
            inputs = self.description.input
            scores = self._compute(inputs.stack([inputs.read(sample) for sample in batch]))
            for sample, row in zip(batch, scores, strict=True):
                yield Prediction(row, self.description.target, inputs.path(sample))


def load(file: str | Path, device: str = "cpu") -> Predictor:
    """Load a trained model for inference in float32.

    Args:
        file: Checkpoint, exported file, or `best` or `last` for the newest run in logs/. ONNX files need no torch.
        device: Device for checkpoints, e.g. `cuda`; exported files run on the CPU.

    Raises:
        UserError: The file is missing or is not a model of this project.
    """
    if Path(file).suffix in (".onnx", ".pt2", ".safetensors"):
        exported = import_object("project.deploy.load.load_exported")(Path(file))
        return Predictor(exported.scores, exported.description)
    return _load_checkpoint(str(file), device)


def _load_checkpoint(file: str, device: str) -> Predictor:
    import torch

    from project.runs.checkpoints import load_checkpoint
    from project.runs.resume import MODULE, resolve_checkpoint
    from project.runs.spec import builder, init_args

    path = resolve_checkpoint(file, Path("logs"), None)
    saved = load_checkpoint(path)
    is_image = isinstance(DataDescription.from_dict(saved["data_description"]).input, ImageInput)
    # Those of other inputs are applied in training only.
    for spec in (saved.get("datamodule_hyper_parameters", {}).get("item_transforms") if is_image else None) or []:
        transform = builder(spec)
        if not (isinstance(transform, type) and issubclass(transform, torch.nn.Module)):
            raise UserError(f"{path}: data.item_transforms names {transform!r}, which is no nn.Module")
        if import_object("project.datamodules.images.augment.is_fixed")(transform(**init_args(spec))):
            name = transform.__name__
            raise UserError(f"{path} was trained with data.item_transforms {name}: use `train.py predict`")
    module = import_object(saved["hyper_parameters"].get("_class_path", MODULE))
    model = module.load_from_checkpoint(path, map_location=device, weights_only=True).eval()

    prepare = model.data_description.input.prepare

    def compute(inputs: NDArray[Any]) -> Scores:
        with torch.inference_mode():
            scores: Scores = model.predictions(prepare(torch.from_numpy(inputs).to(device))).cpu().numpy()
        return scores

    return Predictor(compute, model.data_description)
