"""Check the packages in constraints.txt for known vulnerabilities; `make audit`.

Exits with code 1 if one is found that is not in IGNORED, and with 0 and a message if the database is unreachable.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
IGNORED: dict[str, str] = {}
"""Reasons to ignore a vulnerability, by its ID (PYSEC-..., GHSA-...)."""


def look_up(requirements: Path) -> list[dict[str, Any]]:
    """Return the results of pip-audit for each package; empty if it fails."""
    quiet = ["--progress-spinner", "off", "--no-deps", "--disable-pip", "--vulnerability-service", "pypi"]
    command = [sys.executable, "-m", "pip_audit", "-r", str(requirements), *quiet, "--format", "json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=600)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return []
    return found


def verdict(packages: list[dict[str, Any]], ignored: dict[str, str]) -> tuple[list[str], int]:
    """Return the lines to print and the exit code."""
    known = [package for package in packages if "vulns" in package]
    if not known:
        return ["audit: the vulnerability database is unreachable, nothing was checked"], 0
    lines, bad = [], 0
    for package in known:
        for each in package["vulns"]:
            reason = next((ignored[name] for name in (each["id"], *each.get("aliases", [])) if name in ignored), None)
            bad += reason is None
            fixed = ", ".join(each.get("fix_versions", [])) or "no version yet"
            what = f"ignored: {reason}" if reason else f"fixed in {fixed}"
            lines.append(f"audit: {package['name']} {package['version']}: {each['id']}, {what}")
    unknown = len(packages) - len(known)
    lines.append(f"audit: {len(known)} packages checked, {unknown} unknown, {bad} vulnerabilities to fix")
    return lines, 1 if bad else 0


def main() -> int:
    """Check one package first, to find out whether the database is reachable."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as one:
        one.write(CONSTRAINTS.read_text().splitlines()[0])
        one.flush()
        found = look_up(Path(one.name))
    if any("vulns" in package for package in found):
        found = look_up(CONSTRAINTS)
    lines, code = verdict(found, IGNORED)
    print(*lines, sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
