"""What is built later, as plain data: {class_path, init_args}."""

import importlib
import inspect
from functools import partial
from typing import Any


def plain(build: Any) -> Any:
    """A class or partial as {class_path, init_args}, so that every checkpoint loads under `weights_only=True`."""
    if isinstance(build, partial) and isinstance(build.func, type):
        return {**plain(build.func), "init_args": dict(build.keywords)}
    if isinstance(build, type):
        return {"class_path": f"{build.__module__}.{build.__qualname__}"}
    return build


def class_of(spec: dict[str, Any]) -> Any:
    """The class that a {class_path, init_args} names."""
    module, _, name = spec["class_path"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def arguments(spec: dict[str, Any]) -> set[str]:
    """Names of the arguments that the class of a {class_path, init_args} takes."""
    return set(inspect.signature(class_of(spec)).parameters)
