"""Alerts where the negative share of dated texts rises."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "alerts": (
        "project.alerts.alerts.alerts",
        "evaluate",
        "alert to a rise of negative texts",
        "texts with classes or labels",
    ),
}
USES = ("texts",)
