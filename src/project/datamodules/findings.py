"""Findings of the validation of a dataset: their severity, the report and the exit code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from project.datamodules.index import Index
from project.files import write_table
from project.output import pluralize

ERRORS = ("unreadable", "blank", "across splits", "with conflicting labels", "too few images", "too few texts")


class Finding(NamedTuple):
    """A problem of a sample, a pair of samples or a class."""

    kind: str
    path: str  # or another place of the sample, or a class
    other: str = ""
    detail: str = ""

    @property
    def severity(self) -> Literal["error", "warning"]:
        """Severity of the problem; errors bias the evaluation or stop the training."""
        return "error" if self.kind.endswith(ERRORS) else "warning"


def pair_finding(index: Index, kind: str, one: int, other: int, detail: str = "") -> Finding:
    """Return the finding about two rows with the same content, which may have different labels or splits."""
    differing = ""
    if index.differ(np.array([one]), np.array([other])).any():
        differing = " and ".join(map(index.label_text, (one, other)))
        kind = f"{kind} with conflicting labels"
    elif index.splits[one] != index.splits[other]:
        differing, kind = f"{index.splits[one]} and {index.splits[other]}", f"{kind} across splits"
    return Finding(kind, index.place(one), index.place(other), ", ".join(filter(None, (differing, detail))))


def small_classes(index: Index, minimum: int) -> list[Finding]:
    """Return a finding for each class with fewer than `minimum` samples in train."""
    counts = {name: np.count_nonzero(index.splits[rows] == "train") for name, rows in index.class_rows}
    return [
        Finding(f"too few {index.unit}s", name, "", f"{count} in train, minimum {minimum}")
        for name, count in counts.items()
        if count < minimum
    ]


def report_findings(findings: Sequence[Finding], out: Path, heading: str = "path") -> None:
    """Write findings.csv to a folder and print the findings by kind.

    Args:
        findings: The findings.
        out: The folder, which exists.
        heading: Heading of the column of places.

    Raises:
        SystemExit: Code 1, there are errors.
    """
    columns = ["kind", heading, "other", "detail", "severity"]
    rows = [dict(zip(columns, (*finding, finding.severity), strict=True)) for finding in findings]
    write_table(out / "findings.csv", rows, columns)
    for kind in dict.fromkeys(finding.kind for finding in findings):
        same_kind = [finding for finding in findings if finding.kind == kind]
        print(f"{same_kind[0].severity}: {kind} ({len(same_kind):,})")
        for finding in same_kind[:5]:
            print(f"    {' = '.join(filter(None, (finding.path, finding.other)))}  {finding.detail}".rstrip())
        if len(same_kind) > 5:
            print(f"    ... and {len(same_kind) - 5:,} more")
    print(f"findings  {out / 'findings.csv'}")
    errors = sum(finding.severity == "error" for finding in findings)
    print(f"{pluralize(errors, 'error')}, {pluralize(len(findings) - errors, 'warning')}")
    if errors:
        raise SystemExit(1)
