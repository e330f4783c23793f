"""Looks up whether a package of constraints.txt has a known vulnerability; `make audit`.

Exit code 1 for one that is not in IGNORED; 0, with a word, where PyPI's data base of them cannot be reached.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
IGNORED: dict[str, str] = {}
"""Identifier (PYSEC-..., GHSA-...) of a vulnerability that does not matter here, and why."""


def look_up(requirements: Path) -> list[dict[str, Any]]:
    """What pip-audit says of each package; nothing where it comes to no result."""
    quiet = ["--progress-spinner", "off", "--no-deps", "--disable-pip", "--vulnerability-service", "pypi"]
    command = [sys.executable, "-m", "pip_audit", "-r", str(requirements), *quiet, "--format", "json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=600)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return []
    return found


def verdict(packages: list[dict[str, Any]], ignored: dict[str, str]) -> tuple[list[str], int]:
    """Lines to print, and the exit code."""
    known = [package for package in packages if "vulns" in package]
    if not known:
        return ["audit: the data base of vulnerabilities cannot be reached; nothing was looked up"], 0
    lines, bad = [], 0
    for package in known:
        for each in package["vulns"]:
            reason = next((ignored[name] for name in (each["id"], *each.get("aliases", [])) if name in ignored), None)
            bad += reason is None
            mended = ", ".join(each.get("fix_versions", [])) or "no version yet"
            what = f"ignored: {reason}" if reason else f"mended in {mended}"
            lines.append(f"audit: {package['name']} {package['version']}: {each['id']}, {what}")
    unknown = len(packages) - len(known)
    lines.append(f"audit: {len(known)} packages looked up, {unknown} unknown, {bad} vulnerabilities to mend")
    return lines, 1 if bad else 0


def main() -> int:
    """One package first, so as not to ask in vain for all."""
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
