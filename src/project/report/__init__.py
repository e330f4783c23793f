"""One page that says how a tested run went, or how several compare."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "report": ("project.report.page.report", "evaluate", "the page of a tested run, or of several side by side"),
}
CALLBACKS = ("project.report.callback.WriteReport",)
