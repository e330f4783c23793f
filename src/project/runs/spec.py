"""What is built later, as plain data in checkpoints: {class_path, init_args}, or the path of a function."""

import inspect
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

from torch import nn

from project.errors import UserError
from project.interface import Input, import_object

Spec = dict[str, Any] | str
NetCallable = Callable[[int, Any], nn.Module]
"""Builds a net from (num_classes, inputs): an `nn.Module` class, or a function, whose first arguments are these."""


def to_spec(build: Any) -> Any:
    """A class, partial or function as a spec, so that every checkpoint loads under `weights_only=True`."""
    if isinstance(build, partial) and isinstance(build.func, type):
        return {**to_spec(build.func), "init_args": dict(build.keywords)}
    if isinstance(build, type):
        return {"class_path": f"{build.__module__}.{build.__qualname__}"}
    if isinstance(build, list):
        return [to_spec(each) for each in build]
    if isinstance(build, FunctionType) and build.__qualname__.isidentifier():  # not one within another, or a lambda
        return f"{build.__module__}.{build.__qualname__}"
    return build


def builder(spec: Spec) -> Callable[..., Any]:
    """The class or function that a spec names."""
    found: Callable[..., Any] = import_object(spec if isinstance(spec, str) else spec["class_path"])
    return found


def init_args(spec: Spec) -> dict[str, Any]:
    """The arguments that a spec gives."""
    return {} if isinstance(spec, str) else spec.get("init_args", {})


def arguments(spec: Spec) -> set[str]:
    """Names of the arguments that the class or function of a spec takes."""
    return set(inspect.signature(builder(spec)).parameters)


def build_net(build: NetCallable, num_classes: int, inputs: Input) -> nn.Module:
    """The net, unless it takes other arguments or finds a mistake in those it is given."""
    try:
        inspect.signature(build).bind(num_classes, inputs)
    except TypeError as error:
        raise UserError(
            f"model.net is built with the number of classes and the input as its first two arguments ({error});"
            " for a network of torchvision: --model.net project.modules.TorchVision --model.net.name NAME"
        ) from error
    try:
        return build(num_classes, inputs)
    except ValueError as error:
        raise UserError(f"model.net: {error}") from error
