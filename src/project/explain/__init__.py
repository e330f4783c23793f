"""Where in an image the evidence lies, and what in the net matters."""

from typing import Any

SUMMARY = "where in images the evidence lies, what in the net matters"
COMMANDS = {"explain": ("project.explain.run.explain", "explain", SUMMARY, "images with classes")}
CALLBACKS = ("project.explain.overlays.MistakeOverlays",)


def __getattr__(name: str) -> Any:
    if name == "Watch":  # a callback by the class path project.explain.Watch, without its imports for other commands
        from project.explain.watch import Watch

        return Watch
    raise AttributeError(name)
