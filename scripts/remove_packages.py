"""Remove optional packages that a project does not need: `python scripts/remove_packages.py serve privacy`.

Packages that depend on them (`USES` in their `__init__`) are removed too, with the tests, pages and configs of each. Table
rows, commands and sentences about them are deleted from the documentation; what still mentions them is listed. Git can
undo it.
"""

import importlib
import re
import shutil
import subprocess
import sys
import textwrap
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
"""Files that are removed with each package, besides src/project/NAME and tests/NAME."""
BENCHMARKS = {
    "audit": ("shortcut",),
    "deploy": ("inference",),
    "explain": ("explain",),
    "privacy": ("private",),
    "search": ("sweep",),
    "serve": ("serving",),
}
"""Benchmarks that are removed with each package."""


def with_dependents(names: set[str]) -> set[str]:
    """Return the packages and those that depend on them."""
    sys.path.insert(0, str(ROOT / "src"))
    uses = {name: set(getattr(importlib.import_module(f"project.{name}"), "USES", ())) for name in BELONGS}
    while more := {name for name in BELONGS if uses[name] & names} - names:
        names = names | more
    return names


def mentions(name: str) -> str:
    """Return a regular expression for the commands, options, files and class paths of a package."""
    package = importlib.import_module(f"project.{name}")
    files = [re.escape(file.removeprefix("docs/")) for file in BELONGS[name] if file != "tests/test_notebook.py"]
    files += [f"benchmarks/{benchmark}" for benchmark in BENCHMARKS.get(name, ())]
    words = [rf"\bproject[./]{name}\b", rf"\btests/{name}\b", *files]
    if commands := "|".join(getattr(package, "COMMANDS", {})):
        words += [rf"train\.py (?:{commands})\b", rf"`(?:{commands})\b[^`]*`", rf"/ `(?:{commands})"]
    words += [f"--{option}" for option in getattr(package, "OPTIONS", {})]
    return "|".join(words)


def prune(text: str, pattern: str) -> str:
    """Return a Markdown document without the table rows, command lines, sentences and empty sections about a package."""
    blocks, kept = re.split(r"\n{2,}(?!\s*```\n)", text), []
    for block in blocks:
        if not re.search(pattern, block):
            kept.append(block)
            continue
        lines = block.split("\n")
        if re.match(r"\||    |```|::: ", lines[0]):  # table, commands, code, API reference
            lines = [line for line in lines if not re.search(pattern, line)]
            only_frame = all(re.match(r"```|\|[-| ]+\|$", line) for line in lines[1:])
            block = "" if not lines or (only_frame and len(lines) < 3) else "\n".join(lines)
        elif not block.startswith("#"):
            block = "\n".join(filter(None, (_prune_item(item, pattern) for item in re.split(r"\n(?=[-*] )", block))))
        if block:
            kept.append(block)
    found = "\n\n".join(kept)
    while (shorter := re.sub(r"(?m)^(#+) .*\n+(?=#{1,6} |\Z)", _without_empty_section, found)) != found:
        found = shorter
    return found.rstrip("\n") + "\n"


def _without_empty_section(match: re.Match[str]) -> str:
    """Drop a heading that is followed by one of its own level or above, or by nothing."""
    following = re.match(r"#+", match.string[match.end() :])
    return "" if following is None or len(following[0]) <= len(match[1]) else match[0]


def _prune_item(item: str, pattern: str) -> str:
    """Return a paragraph or list item without the sentences that match."""
    if not re.search(pattern, item):
        return item
    bullet = re.match(r"([-*] )?", item)[0]  # type: ignore[index]
    joined = " ".join(item.removeprefix(bullet).split())
    sentences = re.split(r"(?<=[.:!?])(?:\s+)(?=[A-Z`\[*-])|(?<=[。:;])", joined)
    rest = " ".join(sentence for sentence in sentences if not re.search(pattern, sentence)).strip()
    if not rest:
        return ""
    return textwrap.fill(bullet + rest, 120, subsequent_indent=" " * len(bullet), break_on_hyphens=False)


def main(names: list[str]) -> None:
    """Remove packages; an unknown name is an error with exit code 2."""
    if unknown := sorted(set(names) - set(BELONGS)) or not names:
        wrong = f"unknown package {', '.join(unknown)}" if isinstance(unknown, list) else "no package given"
        print(f"error: {wrong}: choose from {', '.join(BELONGS)}", file=sys.stderr)
        raise SystemExit(2)
    documents = [ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for name in sorted(with_dependents(set(names))):
        pattern = mentions(name)
        places = [f"src/project/{name}", f"tests/{name}", *BELONGS[name]]
        places += [f"benchmarks/{each}.py" for each in BENCHMARKS.get(name, ())]
        for place in places:
            if (ROOT / place).is_dir():
                shutil.rmtree(ROOT / place)
            else:
                (ROOT / place).unlink(missing_ok=True)
        for file in documents:
            if file.is_file() and re.search(pattern, text := file.read_text(encoding="utf-8")):
                file.write_text(prune(text, pattern), encoding="utf-8")
        print(f"removed: {name}")
        listed = subprocess.run(["git", "grep", "-nIP", pattern], cwd=ROOT, capture_output=True, text=True).stdout
        found = [line.split(":", 2)[:2] for line in listed.splitlines()]
        places = [f"{file}:{line}" for file, line in found if not file.startswith(("CHANGELOG", "scripts/remove_"))]
        print(f"  still mentioned in {len(places)} places", *(f"    {place}" for place in places), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
