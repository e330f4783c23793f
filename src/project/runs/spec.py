"""Specs of classes and functions as plain data in checkpoints: {class_path, init_args}, or the path of a function."""

import inspect
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

from torch import nn
from torchmetrics import Metric

from project.errors import UserError
from project.interface import Input, import_object

Spec = dict[str, Any] | str
NetCallable = Callable[[int, Any], nn.Module]
"""An `nn.Module` class, or a function that returns a network, whose first arguments are (num_classes, inputs)."""


def to_spec(build: Any) -> Any:
    """Convert a class, partial or function to a spec, so that checkpoints load with `weights_only=True`."""
    if isinstance(build, partial) and isinstance(build.func, type):
        return {**to_spec(build.func), "init_args": dict(build.keywords)}
    if isinstance(build, type):
        return {"class_path": f"{build.__module__}.{build.__qualname__}"}
    if isinstance(build, list):
        return [to_spec(each) for each in build]
    if isinstance(build, FunctionType) and build.__qualname__.isidentifier():  # neither nested nor a lambda
        return f"{build.__module__}.{build.__qualname__}"
    return build


def builder(spec: Spec) -> Callable[..., Any]:
    """Import the class or function of a spec."""
    build: Callable[..., Any] = import_object(spec if isinstance(spec, str) else spec["class_path"])
    return build


def init_args(spec: Spec) -> dict[str, Any]:
    """Return the arguments in a spec."""
    return {} if isinstance(spec, str) else spec.get("init_args", {})


def arguments(spec: Spec) -> set[str]:
    """Return the parameter names of the class or function of a spec."""
    return set(inspect.signature(builder(spec)).parameters)


def build_metric(build: Callable[..., Metric], outputs: int) -> Metric:
    """Build a metric; its first argument, if required and not given, is the number of classes, labels or values."""
    try:
        return build()
    except TypeError:  # the signature of a partial of the parser does not tell
        return build(outputs)


def build_net(build: NetCallable, num_classes: int, inputs: Input) -> nn.Module:
    """Build the network; raise a UserError if its parameters do not match or it rejects its arguments."""
    try:
        inspect.signature(build).bind(num_classes, inputs)
    except TypeError as error:
        raise UserError(
            f"model.net must take the number of classes and the input as its first two arguments ({error});"
            " for a torchvision network use --model.net project.modules.TorchVision --model.net.name NAME"
        ) from error
    try:
        return build(num_classes, inputs)
    except ValueError as error:
        raise UserError(f"model.net: {error}") from error
