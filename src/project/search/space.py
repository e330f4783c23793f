"""The search space: a YAML file of options of `train.py fit`, each with the values it may take."""

import json
from pathlib import Path
from typing import Any

import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from project.errors import UserError


def read_space(file: Path) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of every option: a list of choices, or `{low, high}` with optional `log`, `step`."""
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the search space {file} cannot be read: {error}") from error
    if not isinstance(given, dict) or not given:
        raise UserError(f"the search space {file} is empty: write lines such as `model.label_smoothing: [0.0, 0.1]`")
    space = {}
    for key, values in given.items():
        try:
            space[str(key)] = _distribution(values)
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(
                f"{file}: {key}: a list of choices, or low and high and optionally log or step, not {values} ({error})"
            ) from error
    return space


def _distribution(values: Any) -> BaseDistribution:
    if isinstance(values, list):
        # Optuna holds numbers, words, yes or no; anything else travels as JSON, which the command line reads.
        plain = [json.dumps(value) if isinstance(value, (list, dict)) else value for value in values]
        return CategoricalDistribution(plain)
    low, high, unknown = _number(values["low"]), _number(values["high"]), set(values) - {"low", "high", "log", "step"}
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}")
    log, step = bool(values.get("log", False)), values.get("step")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log, 1 if step is None else step)
    return FloatDistribution(low, high, log, None if step is None else _number(step))


def _number(value: Any) -> float | int:
    """Return a number that YAML may take for a word, as it does 1e-4, without a point."""
    if isinstance(value, bool):
        raise ValueError(f"{value} is not a number")
    return value if isinstance(value, int) else float(value)


def options(values: dict[str, Any]) -> list[str]:
    """Return values as arguments of `train.py fit`."""
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]


def any_point(space: dict[str, BaseDistribution]) -> dict[str, Any]:
    """Return one value of every option, to see whether the command line takes them."""
    return {
        key: of.choices[0] if isinstance(of, CategoricalDistribution) else of.low  # type: ignore[attr-defined]
        for key, of in space.items()
    }


def point_of(config: dict[str, Any], space: dict[str, BaseDistribution]) -> dict[str, Any] | None:
    """Return what a config itself says for every option; None where the space does not hold it."""
    point: dict[str, Any] = {}
    for key, distribution in space.items():
        node: Any = config
        for part in key.split("."):
            inside = node if isinstance(node, dict) else {}
            node = inside.get(part, (inside.get("init_args") or {}).get(part))
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
    """Return the last part of each option's name, where it tells them apart."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}
