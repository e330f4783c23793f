"""Types shared by all packages: batches, and the description of a dataset's inputs and targets.

The datamodule creates a `DataDescription` from the data. The module builds the network from it, and checkpoints and
exported models store it, so that they are self-contained. To support another kind of input or target, subclass `Input`
or `Target` in any file. This module does not import torch.
"""

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast, get_args

from typing_extensions import override

from project.errors import UserError

if TYPE_CHECKING:
    import lightning as L
    import numpy as np
    from lightning.pytorch.callbacks import Timer
    from numpy.typing import NDArray
    from torch import Tensor

    from project.datamodules.base import DataModule
    from project.modules import Classifier

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Fit = Literal["crop", "pad", "stretch"]
PixelType = Literal["uint8", "uint16", "float32"]
FORMAT_VERSION = 2
"""Version of the checkpoint and export format, incremented when older files can no longer be read."""


class Batch(NamedTuple):
    """A batch of N samples, as passed from the dataloader to the module and the callbacks.

    Attributes:
        inputs: Inputs before normalization. Images are uint8 (N, C, H, W) in [0, 255]; or float in [0, 1] after batch
            transforms, and if the files have another depth than 8 bits.
        target: Targets. Classes are int64 (N,), -1 if unknown, or class probabilities, float (N, classes), after MixUp
            or CutMix.
        index: Row of each sample in the datamodule's index, int64 (N,).
    """

    inputs: "Tensor"
    target: "Tensor"
    index: "Tensor"  # type: ignore[assignment]


class StageResult(NamedTuple):
    """Loss and metrics of one epoch of a stage.

    Attributes:
        scalars: Loss and metrics by name, logged as STAGE/NAME.
        samples: Number of samples.
        confusion: Confusion matrix, int64 (classes, classes), with labels in rows; None if it was not computed.
    """

    scalars: "dict[str, Tensor]"
    samples: int
    confusion: "Tensor | None" = None


@dataclass(frozen=True)
class Input:
    """Description of one input of the network; base class of `ImageInput`.

    Subclasses are frozen dataclasses whose fields are plain values, because checkpoints store them.
    """

    kind: ClassVar[str] = "sample"
    """Singular noun used in messages, and by commands to declare the inputs that they support."""
    preprocess: ClassVar[str] = "torch.nn.Identity"
    """Class path of the module applied before the network. It is created with the `Input` as its argument, and its
    buffers are saved with the weights."""

    def __str__(self) -> str:
        return ""

    def read(self, sample: Any) -> "NDArray[Any]":
        """Return one raw input as the model takes it, from what a user of `project.load` has."""
        import numpy as np

        return np.asarray(sample)

    def prepare(self, inputs: "Tensor") -> "Tensor":
        """Return a batch of raw inputs as in `Batch.inputs`: images as uint8, or scaled to float32 in [0, 1]."""
        return inputs

    def render(self, sample: "NDArray[Any]") -> Any:
        """Return one raw or augmented input as a PIL image or as text, for display."""
        return str(sample.tolist())


def to_size(image_size: int | Sequence[int], option: str) -> tuple[int, int]:
    """Return height and width for an option `image_size`: one number, or height and width.

    Raises:
        UserError: It is neither, or below 1.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"{option} must be a number or [height, width], got {image_size}")
    return size[0], size[1]


@dataclass(frozen=True)
class ImageInput(Input):
    """Images of a fixed size.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        mean: Mean of each channel for normalization, in [0, 1], of the training images or of the dataset that the
            network was pretrained on.
        std: Standard deviation of each channel, likewise.
        channels: Number of channels: 3 for RGB, 1 for grayscale, the number of bands for multispectral images.
        fit: How images are brought to this size: `crop` takes the largest centered part of the same aspect ratio, `pad`
            adds borders (letterbox), `stretch` changes the aspect ratio.
        dtype: Data type of the pixels in the files.
        value_range: Pixel values that are mapped to 0 and 1; values outside are clipped.
    """

    kind: ClassVar[str] = "image"
    preprocess: ClassVar[str] = "project.modules.inputs.Normalize"
    height: int
    width: int
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    std: Sequence[float] = (0.5, 0.5, 0.5)
    channels: int = 3
    fit: Fit = "crop"
    dtype: PixelType = "uint8"
    value_range: list[float] = field(default_factory=lambda: [0.0, 255.0])

    def __str__(self) -> str:
        channels = "" if self.channels == 3 else f", {self.channels} {'channel' if self.channels == 1 else 'channels'}"
        fit = "" if self.fit == "crop" else {"pad": ", padded", "stretch": ", stretched"}[self.fit]
        low, high = self.value_range
        depth = "" if self.is_8bit else f", {self.dtype} from {low:g} to {high:g}"
        return f"{self.height}x{self.width}{channels}{fit}{depth}"

    @property
    def is_8bit(self) -> bool:
        """True if the network takes pixels as uint8 in [0, 255], which is divided by 255 during normalization."""
        return self.dtype == "uint8" and self.value_range == [0, 255]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @override
    def read(self, sample: Any) -> "NDArray[Any]":
        """Return (channels, height, width) of `dtype` from any `sample` that `project.images.to_pixels` takes."""
        from project.images import fit_pixels, to_pixels

        return fit_pixels(to_pixels(sample, self.channels, self.dtype), self.size, self.fit)

    def scale(self, pixels: Any) -> Any:
        """Map float pixels, an array or a tensor, to [0, 1] by the value range."""
        low, high = self.value_range
        return ((pixels - low) / (high - low)).clip(0, 1)

    @override
    def prepare(self, inputs: "Tensor") -> "Tensor":
        return inputs if self.is_8bit else self.scale(inputs.float())

    @property
    def shown_bands(self) -> str:
        """Description of the channels that `render` shows, or an empty string if it shows all."""
        if self.channels in (1, 3):
            return ""
        return (
            "band 1 of 2 in gray" if self.channels == 2 else f"bands 1 to 3 of {self.channels} as red, green and blue"
        )

    @override
    def render(self, sample: "NDArray[Any]") -> Any:
        """Return a PIL image of (channels, H, W), uint8 or float in [0, 1]; see `shown_bands`."""
        from project.images.render import to_image

        return to_image(sample)


@dataclass(frozen=True)
class Target:
    """Description of the target, and formatting of predictions; base class of `ClassTarget`.

    Subclasses are frozen dataclasses whose fields are plain values, because checkpoints store them. Their methods
    require NumPy only, because exported models run without torch. Of their arguments, `scores` is the prediction for
    one sample, float32 (outputs,), e.g. class probabilities, and `threshold` is the confidence threshold, if set.
    """

    kind: ClassVar[str] = "values"
    """Plural noun used in messages, and by commands to declare the targets that they support."""
    task: ClassVar[str]
    """Class path of the default task (loss and metrics), which `model.task` overrides."""
    test_columns: ClassVar[Sequence[str]] = ("target", "predicted")
    """Columns of test_predictions.csv after the path."""

    @property
    def outputs(self) -> int:
        """Number of the network's outputs."""
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{self.outputs:,} {'output' if self.outputs == 1 else 'outputs'}"

    def columns(self, threshold: float | None = None) -> list[str]:
        """Return the columns of predictions.csv after the path."""
        return [f"output_{number}" for number in range(self.outputs)]

    def row(self, scores: "NDArray[np.float32]", threshold: float | None = None) -> list[str]:
        """Return the cells of one prediction in the order of `columns`."""
        return [f"{score:.6f}" for score in scores.tolist()]

    def to_json(self, scores: "NDArray[np.float32]", threshold: float | None = None) -> dict[str, Any]:
        """Return one prediction as a JSON-serializable dictionary."""
        return dict(zip(self.columns(), [round(score, 6) for score in scores.tolist()], strict=True))

    def describe(self, scores: "NDArray[np.float32]") -> str:
        """Return one prediction as a short text."""
        return ", ".join(f"{score:.4g}" for score in scores.tolist())

    def test_row(self, scores: "NDArray[np.float32]", target: Any) -> list[str]:
        """Return the cells of one test sample in the order of `test_columns`."""
        return [f"{target:.6f}", f"{float(scores[0]):.6f}"]


@dataclass(frozen=True)
class ClassTarget(Target):
    """Mutually exclusive classes.

    Scores are class probabilities. A prediction counts as confident if its probability is at least `threshold`.

    Args:
        class_names: Class names, in the order of the class indices.
        train_counts: Number of training samples per class.
    """

    kind: ClassVar[str] = "classes"
    task: ClassVar[str] = "project.modules.tasks.Multiclass"
    test_columns: ClassVar[Sequence[str]] = ("class", "predicted", "probability", "class_probability")
    class_names: list[str]
    train_counts: list[int] = field(compare=False)

    @property
    @override
    def outputs(self) -> int:
        return len(self.class_names)

    def __str__(self) -> str:
        return f"{self.outputs:,} classes"

    @override
    def columns(self, threshold: float | None = None) -> list[str]:
        return ["class", *([] if threshold is None else ["confident"]), *self.class_names]

    @override
    def row(self, scores: "NDArray[np.float32]", threshold: float | None = None) -> list[str]:
        confident = [] if threshold is None else ["yes" if float(scores.max()) >= threshold else "no"]
        return [self.class_names[int(scores.argmax())], *confident, *(f"{p:.6f}" for p in scores.tolist())]

    @override
    def to_json(self, scores: "NDArray[np.float32]", threshold: float | None = None) -> dict[str, Any]:
        best, probabilities = int(scores.argmax()), [round(p, 6) for p in scores.tolist()]  # as in predictions.csv
        prediction: dict[str, Any] = {"class": self.class_names[best], "probability": probabilities[best]}
        if threshold is not None:
            prediction["confident"] = float(scores[best]) >= threshold
        return prediction | {"probabilities": dict(zip(self.class_names, probabilities, strict=True))}

    @override
    def describe(self, scores: "NDArray[np.float32]") -> str:
        return f"{self.class_names[int(scores.argmax())]} {scores.max():.1%}"

    @override
    def test_row(self, scores: "NDArray[np.float32]", target: Any) -> list[str]:
        best, label = int(scores.argmax()), int(target)
        return [self.class_names[label], self.class_names[best], f"{scores[best]:.6f}", f"{scores[label]:.6f}"]


@dataclass(frozen=True)
class DataDescription:
    """Description of a dataset, created by `train.py fit` and stored in checkpoints and exported models.

    Args:
        input: Description of the network's input, e.g. the image size.
        target: Description of the target, e.g. the class names.
        fingerprint: Hash of the samples, their targets and splits, to detect that the data has changed.
    """

    input: Input
    target: Target
    fingerprint: str = ""

    @property
    def image(self) -> ImageInput:
        """The input, which must be an `ImageInput`."""
        assert isinstance(self.input, ImageInput)
        return self.input

    @property
    def classes(self) -> ClassTarget:
        """The target, which must be a `ClassTarget`."""
        assert isinstance(self.target, ClassTarget)
        return self.target

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain types, to be stored in checkpoints and exported models."""
        parts = {name: getattr(self, name) for name in ("input", "target")}
        plain: dict[str, Any] = {
            name: {"class_path": f"{type(part).__module__}.{type(part).__qualname__}", "init_args": asdict(part)}
            for name, part in parts.items()
        }
        return {**plain, "fingerprint": self.fingerprint}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "DataDescription":
        """Create a description from the output of `to_dict`.

        Raises:
            UserError: A class does not exist, or is not a subclass of `Input` or `Target`.
        """
        return cls(_instantiate(plain["input"], Input), _instantiate(plain["target"], Target), plain["fingerprint"])


def import_object(path: str) -> Any:
    """Import and return the object with this dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _instantiate(spec: dict[str, Any], base: type[Any]) -> Any:
    path = spec["class_path"]
    try:
        cls = import_object(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"the model's data description names {path}, which cannot be imported") from error
    if not (isinstance(cls, type) and issubclass(cls, base)):  # an untrusted file may name any object
        raise UserError(f"the model's data description names {path}, which is not a subclass of {base.__name__}")
    return cls(**spec["init_args"])


def module_of(trainer: "L.Trainer") -> "Classifier":
    """Return the trainer's LightningModule."""
    return cast("Classifier", trainer.lightning_module)


def data_of(trainer: "L.Trainer") -> "DataModule":
    """Return the trainer's datamodule."""
    return cast("DataModule", trainer.datamodule)  # type: ignore[attr-defined]


def time_limit(trainer: "L.Trainer") -> "Timer | None":
    """Return the Timer callback of `--trainer.max_time`, or None if there is no time limit."""
    from lightning.pytorch.callbacks import Timer

    return next((callback for callback in trainer.callbacks if isinstance(callback, Timer)), None)  # type: ignore[attr-defined]


def test_folder(trainer: "L.Trainer") -> Path | None:
    """Return the run folder for test results, created if missing, or None if nothing should be written.

    All processes must call this, as the log directory is broadcast.
    """
    folder = trainer.log_dir
    if folder is None or trainer.logger is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)
