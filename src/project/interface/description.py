"""Description of a dataset, and its form in checkpoints and exported models."""

import importlib
import importlib.util
from dataclasses import asdict, dataclass
from typing import Any

from project.errors import UserError
from project.interface.class_target import ClassTarget
from project.interface.inputs import ImageInput, Input
from project.interface.target import Target

FORMAT_VERSION = 3
"""Version of the checkpoint and export format, incremented when older files can no longer be read."""


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
        """The input; raises a UserError unless it is an `ImageInput`."""
        if not isinstance(self.input, ImageInput):
            raise UserError(f"this is for models of images, and the model takes {self.input.kind}s")
        return self.input

    @property
    def classes(self) -> ClassTarget:
        """The target; raises a UserError unless it is a `ClassTarget`."""
        if not isinstance(self.target, ClassTarget):
            raise UserError(f"this is for models of classes, and the model predicts {self.target.kind}")
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


def import_part(package: str, inputs: Input, name: str) -> Any:
    """Return what a package has for the samples of a model, from its subpackage named as the package of the input.

    Args:
        package: Name of the package.
        inputs: Input of the model, e.g. one of `project.texts`, whose subpackage is `texts`.
        name: Path of the object in the subpackage, e.g. `command.explain`.

    Returns:
        The object; None if the package has no such subpackage, as for images, which it handles itself, and for
        inputs of the user.
    """
    part = f"{package}.{type(inputs).__module__.rpartition('.')[2]}"
    return import_object(f"{part}.{name}") if importlib.util.find_spec(part) else None


def _instantiate(spec: dict[str, Any], base: type[Any]) -> Any:
    path = spec["class_path"]
    try:
        cls = import_object(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"the model's data description names {path}, which cannot be imported") from error
    if not (isinstance(cls, type) and issubclass(cls, base)):  # an untrusted file may name any object
        raise UserError(f"the model's data description names {path}, which is not a subclass of {base.__name__}")
    return cls(**spec["init_args"])
