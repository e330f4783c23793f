"""Descriptions of the input of a network."""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from typing_extensions import override

from project.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Fit = Literal["crop", "pad", "stretch"]
PixelType = Literal["uint8", "uint16", "float32"]


class GraphInput(NamedTuple):
    """The input of the graph in an exported file.

    Attributes:
        name: Name of the input.
        layout: Type and shape, for the metadata of the file.
        example: A batch of two to trace the graph with. No size may be one that the network treats specially, such as
            its own image size: the graph would be valid for this size only.
        axes: Dimensions of any size, with their names.
        front: Class path of the first module of the graph, e.g. one that resizes images. It is created with the
            `Input` as its argument.
    """

    name: str
    layout: str
    example: "NDArray[Any]"
    axes: Mapping[int, str]
    front: str = "torch.nn.Identity"


class Source(NamedTuple):
    """Samples to predict with an exported model, as given on the command line.

    Attributes:
        path: A folder or a file.
        table: A table with one row per sample.
        text: One text.
        columns: Names of columns of the table that are not called as expected, e.g. {"text": "review"}.
    """

    path: Path | None
    table: Path | None = None
    text: str | None = None
    columns: Mapping[str, str] = {}


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
    key: ClassVar[str] = "path"
    """First column of tables of predictions: what names a sample."""
    handler: ClassVar[str] = ""
    """Class path of the request handler of `train.py serve`, a subclass of `project.serve.handler.Handler`."""

    def __str__(self) -> str:
        return ""

    def read(self, sample: Any) -> "NDArray[Any]":
        """Return one raw input as the model takes it, from what a user of `project.load` has."""
        import numpy as np

        return np.asarray(sample)

    def stack(self, samples: "Sequence[NDArray[Any]]") -> "NDArray[Any]":
        """Return raw inputs as one array with a leading batch dimension."""
        import numpy as np

        return np.stack(samples)

    def several(self, sample: Any) -> list[Any] | None:
        """Return the samples that a user of `project.load` gives in a list or a tuple; None for a single one."""
        return list(sample) if isinstance(sample, list | tuple) else None

    def path(self, sample: Any) -> str | None:
        """Return the path of a sample that is a file, else None."""
        return None

    def adopt(self, trained: "Input") -> "Input":
        """Return this input in the form that weights trained on another one need, e.g. with its normalization."""
        return self

    def prepare(self, inputs: "Tensor") -> "Tensor":
        """Return a batch of raw inputs as in `Batch.inputs`: images as uint8, or scaled to float32 in [0, 1]."""
        return inputs

    @property
    def graph(self) -> GraphInput:
        """The input of exported graphs; raises a UserError if the model cannot be exported."""
        raise UserError(f"models of {self.kind}s cannot be exported: {type(self).__name__} has no `graph`")

    def batches(self, source: Source, notes: "Counter[str]") -> "Iterator[tuple[list[str], NDArray[Any]]]":
        """Yield the samples of a source in batches that an exported model takes: names as in `key`, and raw inputs.

        Args:
            source: What to read.
            notes: Counts what was changed in a sample, or left out.

        Raises:
            UserError: The source is not of this kind of samples, has none, or cannot be read.
        """
        raise UserError(f"{self.kind}s cannot be read from files: predict them with project.load(FILE).predict(SAMPLE)")

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
    handler: ClassVar[str] = "project.serve.images.ImageHandler"
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

    @override
    def several(self, sample: Any) -> list[Any] | None:
        """Return the images of a folder, a list, or an array or tensor with a batch dimension; None for a single one.

        Raises:
            UserError: A folder has no images.
        """
        from project.images import describe_skipped, find_images, no_images

        if isinstance(sample, str | Path) and Path(sample).is_dir():
            root, skipped = Path(sample), Counter[str]()
            paths = sorted(find_images(root, skipped=skipped))
            if not paths:
                raise no_images(root, skipped)
            if skipped:
                warnings.warn(describe_skipped(skipped), stacklevel=3)
            return [root / path for path in paths]
        return list(sample) if getattr(sample, "ndim", 0) == 4 else super().several(sample)

    @override
    def path(self, sample: Any) -> str | None:
        return str(sample) if isinstance(sample, str | Path) else None

    @override
    def adopt(self, trained: Input) -> Input:
        if not isinstance(trained, ImageInput) or trained.channels != self.channels:
            return self
        return replace(self, mean=trained.mean, std=trained.std)

    def scale(self, pixels: Any) -> Any:
        """Map float pixels, an array or a tensor, to [0, 1] by the value range."""
        low, high = self.value_range
        return ((pixels - low) / (high - low)).clip(0, 1)

    @override
    def prepare(self, inputs: "Tensor") -> "Tensor":
        return inputs if self.is_8bit else self.scale(inputs.float())

    @property
    @override
    def graph(self) -> GraphInput:
        import numpy as np

        channels = {1: "grayscale", 3: "RGB"}.get(self.channels, f"{self.channels} channels")
        return GraphInput(
            "image",
            f"image: {self.dtype} (N, {self.channels}, H, W), {channels} as decoded, any H and W",
            np.zeros((2, self.channels, self.height + 5, self.width + 11), self.dtype),  # not square either
            {0: "images", 2: "height", 3: "width"},
            "project.deploy.raw.Fit",
        )

    @override
    def batches(self, source: Source, notes: Counter[str]) -> "Iterator[tuple[list[str], NDArray[Any]]]":
        from project.images.batches import image_batches

        if source.path is None:
            raise UserError("the model takes images: give a folder or an image")
        return image_batches(source.path, self.channels, self.dtype, notes)

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
