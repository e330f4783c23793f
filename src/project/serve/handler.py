"""Base class of request handlers: what differs between images and texts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from starlette.responses import Response

from project.interface import Target
from project.runs.predictor import Scores

if TYPE_CHECKING:
    from project.serve.service import Settings

PAGE = Path(__file__).parent / "page"
MAX_COPIES = 49
"""Maximum number of copies of a sample whose prediction the attribution needs."""


class Parsed(NamedTuple):
    """Samples of a request.

    Attributes:
        inputs: Raw inputs as the model takes them.
        originals: What the inputs were made of.
        notes: What the response says of each sample besides its prediction.
        is_list: True if the response is a list, too.
    """

    inputs: Sequence[NDArray[Any]]
    originals: Sequence[Any]
    notes: Sequence[dict[str, Any]]
    is_list: bool = False


class Handler(ABC):
    """Reads the samples of requests for one kind of input, and computes attribution by occlusion.

    Args:
        inputs: Description of the input.
        settings: Options of the server.

    Attributes:
        page: Folder of index.html, docs.html and further files of the web page; those in `PAGE` are shared.
        specification: YAML file with the parts of the OpenAPI specification that differ from `PAGE / "openapi.yaml"`.
        info: What `/model` says of the input.
        samples: Name and content of examples that the web page offers.
    """

    page: ClassVar[Path] = PAGE
    specification: ClassVar[Path]

    def __init__(self, inputs: Any, settings: "Settings") -> None:
        self.inputs, self.settings = inputs, settings
        self.info: dict[str, Any] = {}
        self.samples: list[tuple[str, Response]] = []

    @abstractmethod
    async def parse(self, content_type: str, body: bytes) -> Parsed:
        """Return the samples in a request body; raise an HTTPException with a 4xx code if there are none."""

    @abstractmethod
    def occlude(self, parsed: Parsed) -> list[NDArray[Any]]:
        """Return up to `MAX_COPIES` copies of the first sample, parts of which are removed."""

    @abstractmethod
    async def show(self, parsed: Parsed, drop: NDArray[np.float64]) -> dict[str, Any]:
        """Return the attribution for the response.

        Args:
            parsed: The samples of the request.
            drop: Drop in the log odds for each copy, (copies,).
        """

    def openapi(self) -> Any:
        """Return the OpenAPI specification."""
        shared, own = (
            yaml.safe_load(file.read_text(encoding="utf-8")) for file in (PAGE / "openapi.yaml", self.specification)
        )
        return merge(shared, own)


def spread(values: Sequence[Any], count: int = 6) -> list[Any]:
    """Return up to `count` evenly spaced values."""
    count = min(count, len(values))
    return [values[(2 * number + 1) * len(values) // (2 * count)] for number in range(count)]


def merge(one: Any, other: Any) -> Any:
    """Return nested dictionaries as one; of two other values, the second."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return other
    return one | {key: merge(one[key], value) if key in one else value for key, value in other.items()}


def log_odds_drop(output: int, original: Scores, occluded: Scores, target: Target) -> NDArray[np.float64]:
    """Return the drop in the log odds of a class or label for each copy, (copies,).

    Log odds rather than probabilities, which hardly change when they are close to one.

    Args:
        output: Index of the class or label.
        original: Probabilities of the sample, float32 (outputs,).
        occluded: Probabilities of its copies, float32 (copies, outputs).
        target: Description of the target. Probabilities of classes sum to 1, those of labels do not.
    """
    rows = np.concatenate([original[None], occluded]).astype(np.float64)
    # The sum is more precise than 1 - p. Just below 1, the distance of float32 numbers is 2**-24.
    exclusive = target.kind == "classes"
    others = np.delete(rows, output, 1).sum(1).clip(1e-30) if exclusive else (1 - rows[:, output]).clip(2**-25)
    odds = np.log(rows[:, output].clip(1e-30) / others)
    return np.asarray(odds[0] - odds[1:])
