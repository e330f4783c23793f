"""Search spaces: YAML files that map options of `train.py fit` to the values they may take."""

import json
from pathlib import Path
from typing import Any

import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from project.errors import UserError


def read_space(file: Path) -> dict[str, BaseDistribution]:
    """Return the Optuna distribution of each option: choices, or `{low, high}` with optional `log` and `step`."""
    try:
        space = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the search space {file} cannot be read: {error}") from error
    if not isinstance(space, dict) or not space:
        raise UserError(f"the search space {file} is empty: add lines such as `model.label_smoothing: [0.0, 0.1]`")
    distributions = {}
    for key, values in space.items():
        try:
            distributions[str(key)] = _distribution(values)
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(
                f"{file}: {key}: expected a list of choices, or low and high and optionally log or step,"
                f" got {values} ({error})"
            ) from error
    return distributions


def _distribution(values: Any) -> BaseDistribution:
    if isinstance(values, list):
        # Optuna choices are scalars: encode lists and dicts as JSON, which the command line accepts.
        choices = [json.dumps(value) if isinstance(value, (list, dict)) else value for value in values]
        return CategoricalDistribution(choices)
    low, high, unknown = _number(values["low"]), _number(values["high"]), set(values) - {"low", "high", "log", "step"}
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}")
    log, step = bool(values.get("log", False)), values.get("step")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log, 1 if step is None else step)
    return FloatDistribution(low, high, log, None if step is None else _number(step))


def _number(value: Any) -> float | int:
    """Return a number; YAML parses 1e-4, without a decimal point, as a string."""
    if isinstance(value, bool):
        raise ValueError(f"{value} is not a number")
    return value if isinstance(value, int) else float(value)


def options(values: dict[str, Any]) -> list[str]:
    """Return values as command line arguments of `train.py fit`."""
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]


def any_point(space: dict[str, BaseDistribution]) -> dict[str, Any]:
    """Return one valid value of each option, to validate the options."""
    return {
        key: dist.choices[0] if isinstance(dist, CategoricalDistribution) else dist.low  # type: ignore[attr-defined]
        for key, dist in space.items()
    }


def point_of(config: dict[str, Any], space: dict[str, BaseDistribution]) -> dict[str, Any] | None:
    """Return the value of each option in a config, or None if the space does not contain it."""
    point: dict[str, Any] = {}
    for key, distribution in space.items():
        node: Any = config
        for part in key.split("."):
            mapping = node if isinstance(node, dict) else {}
            node = mapping.get(part, (mapping.get("init_args") or {}).get(part))
        numeric = isinstance(distribution, FloatDistribution | IntDistribution)
        if not numeric and isinstance(node, dict) and set(node) <= {"class_path", "init_args"}:
            node = node["class_path"]
        try:
            if not distribution._contains(distribution.to_internal_repr(node)):
                return None
        except (TypeError, ValueError):
            return None
        point[key] = node
    return point


def short_names(keys: list[str]) -> dict[str, str]:
    """Return the last part of each option name, or the full name where that is ambiguous."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}
