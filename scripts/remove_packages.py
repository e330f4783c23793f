"""Take packages out that a project does not need: `python scripts/take_out.py serve privacy`.

With a package go those that declare they use it (`USES` in their `__init__`), its tests, its page of the docs and its
configs; what still mentions them is listed. Git can undo it.
"""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BELONGS = {
    "audit": ("docs/trust.md", "docs/tutorials/audit.md"),
    "deploy": ("docs/deploy.md", "docs/tutorials/ship.md", "notebooks", "tests/test_notebook.py"),
    "explain": ("docs/explain.md", "notebooks", "tests/test_notebook.py"),
    "privacy": ("docs/privacy.md", "configs/private.yaml"),
    "report": ("docs/report.md", "docs/report.png"),
    "search": ("docs/search.md", "configs/sweep"),
    "secure": ("docs/security.md",),
    "serve": ("docs/serve.md",),
}
"""What goes with each package, beside src/project/NAME and tests/NAME."""


def with_users(names: set[str]) -> set[str]:
    """Return packages and those that use them."""
    sys.path.insert(0, str(ROOT / "src"))
    uses = {name: set(getattr(importlib.import_module(f"project.{name}"), "USES", ())) for name in BELONGS}
    while more := {name for name in BELONGS if uses[name] & names} - names:
        names = names | more
    return names


def main(names: list[str]) -> None:
    """Delete them; an unknown name ends in one line and exit code 2."""
    if unknown := sorted(set(names) - set(BELONGS)) or not names:
        print(f"error: take out which? {unknown or ''} is none of {', '.join(BELONGS)}", file=sys.stderr)
        raise SystemExit(2)
    for name in sorted(with_users(set(names))):
        for place in (f"src/project/{name}", f"tests/{name}", *BELONGS[name]):
            if (ROOT / place).is_dir():
                shutil.rmtree(ROOT / place)
            else:
                (ROOT / place).unlink(missing_ok=True)
        print(f"taken out: {name}")
        gone = rf"project[./]{name}\b|" + "|".join(re.escape(page.removeprefix("docs/")) for page in BELONGS[name])
        found = subprocess.run(
            ["git", "grep", "-nIE", gone], cwd=ROOT, capture_output=True, text=True
        ).stdout.splitlines()
        places = [line.split(":", 2)[:2] for line in found if not line.startswith(("CHANGELOG", "scripts/take_out"))]
        print(f"  still mentioned, {len(places)} times:", *(f"    {file}:{line}" for file, line in places), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
