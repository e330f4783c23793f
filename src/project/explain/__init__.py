"""Attribution maps, feature visualization, ablation and error analysis."""

from typing import Any

SUMMARY = "attribution maps, learned features and layer ablation"
COMMANDS = {"explain": ("project.explain.explain.explain", "explain", SUMMARY, "images or texts")}
CALLBACKS = ("project.explain.callback.AttributionOverlays",)


def __getattr__(name: str) -> Any:
    # Imported lazily, so that other commands do not import its dependencies.
    if name == "ErrorAnalysis":
        from project.explain.error_analysis import ErrorAnalysis

        return ErrorAnalysis
    raise AttributeError(name)
