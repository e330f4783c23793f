"""What all packages speak: a batch, and what the data says of itself. Nothing here imports torch.

The data description goes from the datamodule to the module, into the checkpoint and into exported files; nobody types
it. It is made of the input, the target and a fingerprint. An input or target of your own is a subclass in any file.
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
FORMAT_VERSION = 2
"""Version of what checkpoints and exported files hold; raised when files written before can no longer be read."""


class Batch(NamedTuple):
    """What flows from the loader to the callbacks.

    Attributes:
        inputs: What the network sees, before the module normalizes it. Of images: uint8 NCHW in [0, 255]; after batch
            transforms float NCHW in [0, 1].
        target: int64 (N,) of classes, -1 where unknown; or class probabilities, float (N, classes), after mixing.
        index: int64 (N,), the sample's row in the datamodule's index.
    """

    inputs: "Tensor"
    target: "Tensor"
    index: "Tensor"  # type: ignore[assignment]


class StageResult(NamedTuple):
    """What was measured over one epoch of one stage.

    Attributes:
        scalars: Logged as STAGE/NAME; the loss is among them.
        samples: How many there were.
        confusion: int64 (classes, classes), labels in rows; None where the task has none or it was not counted.
    """

    scalars: "dict[str, Tensor]"
    samples: int
    confusion: "Tensor | None" = None


@dataclass(frozen=True)
class Input:
    """What the network sees of a sample: a dataclass of plain values, such as `ImageInput`."""

    kind: ClassVar[str] = "sample"
    """The noun of messages; commands name the inputs that they serve by it."""
    preprocess: ClassVar[str] = "torch.nn.Identity"
    """Class path of the module before the network, built with the input; it is saved with the weights."""

    def __str__(self) -> str:
        return ""

    def render(self, sample: "NDArray[Any]") -> Any:
        """Return one raw or augmented input for a person to see: a PIL image, or text."""
        return str(sample.tolist())


@dataclass(frozen=True)
class ImageInput(Input):
    """RGB images of one size.

    Args:
        height: In pixels.
        width: In pixels.
        mean: Mean of each channel in [0, 1], by which images are normalized: that of the training images, or of those
            that the network was pretrained on.
        std: Standard deviation of each channel, alike.
    """

    kind: ClassVar[str] = "image"
    preprocess: ClassVar[str] = "project.modules.inputs.Normalize"
    height: int
    width: int
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    std: Sequence[float] = (0.5, 0.5, 0.5)

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    def render(self, sample: "NDArray[Any]") -> Any:
        """Return a PIL image of uint8 (3, H, W), or float in [0, 1]."""
        from PIL import Image

        pixels = sample if sample.dtype.kind == "u" else (sample * 255).round().astype("uint8")
        return Image.fromarray(pixels.transpose(1, 2, 0))


@dataclass(frozen=True)
class Target:
    """What is to be predicted, and how answers are written: a dataclass of plain values that needs NumPy only.

    Scores are what the task predicts for one sample, float32 (outputs,), such as probabilities.
    """

    kind: ClassVar[str] = "answers"
    """The plural noun of messages; commands name the targets that they serve by it."""
    task: ClassVar[str]
    """Class path of the task that trains it, unless `model.task` names another."""
    test_columns: ClassVar[Sequence[str]] = ("target", "predicted")
    """Of test_predictions.csv, after the path."""

    @property
    def outputs(self) -> int:
        """Number of the network's outputs."""
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{self.outputs:,} {'output' if self.outputs == 1 else 'outputs'}"

    def columns(self, threshold: float | None = None) -> list[str]:
        """Return the columns of a table of predictions, after the path."""
        return [f"output_{number}" for number in range(self.outputs)]

    def row(self, scores: "NDArray[np.float32]", threshold: float | None = None) -> list[str]:
        """Return the cells of one sample under `columns`."""
        return [f"{score:.6f}" for score in scores.tolist()]

    def to_json(self, scores: "NDArray[np.float32]", threshold: float | None = None) -> dict[str, Any]:
        """Return one answer as JSON can hold it."""
        return dict(zip(self.columns(), [round(score, 6) for score in scores.tolist()], strict=True))

    def describe(self, scores: "NDArray[np.float32]") -> str:
        """Return one answer in a few words."""
        return ", ".join(f"{score:.4g}" for score in scores.tolist())

    def test_row(self, scores: "NDArray[np.float32]", target: Any) -> list[str]:
        """Return the cells of one tested sample under `test_columns`."""
        return [f"{target:.6f}", f"{float(scores[0]):.6f}"]


@dataclass(frozen=True)
class ClassTarget(Target):
    """One class out of several; scores are probabilities, and one of at least the threshold counts as sure.

    Args:
        class_names: The position is the class index.
        train_counts: Number of training samples of each class.
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
        best, shares = int(scores.argmax()), [round(share, 6) for share in scores.tolist()]  # as in predictions.csv
        found: dict[str, Any] = {"class": self.class_names[best], "probability": shares[best]}
        if threshold is not None:
            found["confident"] = float(scores[best]) >= threshold
        return found | {"probabilities": dict(zip(self.class_names, shares, strict=True))}

    @override
    def describe(self, scores: "NDArray[np.float32]") -> str:
        return f"{self.class_names[int(scores.argmax())]} {scores.max():.1%}"

    @override
    def test_row(self, scores: "NDArray[np.float32]", target: Any) -> list[str]:
        best, label = int(scores.argmax()), int(target)
        return [self.class_names[label], self.class_names[best], f"{scores[best]:.6f}", f"{scores[label]:.6f}"]


@dataclass(frozen=True)
class DataDescription:
    """What the data says of itself; found on `fit`, then carried by the checkpoint and by exported files.

    Args:
        input: What the network sees.
        target: What is predicted.
        fingerprint: Stands for the samples, their targets and splits; another one means other data.
    """

    input: Input
    target: Target
    fingerprint: str = ""

    @property
    def image(self) -> ImageInput:
        """The input, of images."""
        assert isinstance(self.input, ImageInput)
        return self.input

    @property
    def classes(self) -> ClassTarget:
        """The target, of classes."""
        assert isinstance(self.target, ClassTarget)
        return self.target

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain types, for checkpoints and files."""
        parts = {name: getattr(self, name) for name in ("input", "target")}
        found: dict[str, Any] = {
            name: {"class_path": f"{type(part).__module__}.{type(part).__qualname__}", "init_args": asdict(part)}
            for name, part in parts.items()
        }
        return {**found, "fingerprint": self.fingerprint}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "DataDescription":
        """Return what `plain` was made of.

        Raises:
            UserError: it names a class that is not there, or is no Input or Target.
        """
        return cls(_built(plain["input"], Input), _built(plain["target"], Target), plain["fingerprint"])


def import_object(path: str) -> Any:
    """Return the function or class of a dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _built(spec: dict[str, Any], base: type[Any]) -> Any:
    try:
        found = import_object(spec["class_path"])
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"the model's data description names {spec['class_path']}, which is not there") from error
    if not (isinstance(found, type) and issubclass(found, base)):  # a file from elsewhere may name anything
        raise UserError(f"the model's data description names {spec['class_path']}, which is no {base.__name__}")
    return found(**spec["init_args"])


def module_of(trainer: "L.Trainer") -> "Classifier":
    """Return the trainer's LightningModule."""
    return cast("Classifier", trainer.lightning_module)


def data_of(trainer: "L.Trainer") -> "DataModule":
    """Return the trainer's datamodule."""
    return cast("DataModule", trainer.datamodule)  # type: ignore[attr-defined]


def time_limit(trainer: "L.Trainer") -> "Timer | None":
    """Return the clock of `--trainer.max_time`."""
    from lightning.pytorch.callbacks import Timer

    return next((callback for callback in trainer.callbacks if isinstance(callback, Timer)), None)  # type: ignore[attr-defined]


def test_folder(trainer: "L.Trainer") -> Path | None:
    """Return the folder that a test writes into; None where it must leave nothing. All processes must ask."""
    folder = trainer.log_dir
    if folder is None or trainer.logger is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)
