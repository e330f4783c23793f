"""HTML report of a tested run, and comparison of several runs."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "report": ("project.report.page.report", "evaluate", "write the report of a run, or compare several"),
}
CALLBACKS = ("project.report.callback.WriteReport",)
