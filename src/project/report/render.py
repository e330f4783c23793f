"""From figures to words, and from a template to a page."""

from typing import Any

import numpy as np


def render(name: str, **context: Any) -> str:
    """A page from the template of that name, with everything that comes from a run escaped."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("project.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "points": points, "chance": chance}
    return environment.get_template(name).render(**context)


def percent(share: float, digits: int = 2) -> str:
    """0.9734 as 97.34 % on one line; a dash where there is nothing to say."""
    return "–" if np.isnan(share) else f"{100 * share:.{digits}f}\u00a0%"


def points(difference: float) -> str:
    """0.0123 as +1.23; a dash where there is nothing to say."""
    return "–" if np.isnan(difference) else f"{100 * difference:+.2f}".replace("-", "−")


def chance(p: float) -> str:
    """A p-value: = 0.032, < 0.001."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def short(number: int) -> str:
    """4275594 as 4.28 M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)
