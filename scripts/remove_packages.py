"""Remove optional packages that a project does not need: `python scripts/remove_packages.py serve privacy`.

Packages that depend on them (`USES` in their `__init__`) are removed too, with the tests, pages and configs of each.
Table rows, commands and sentences about them are deleted from the documentation; what still mentions them is listed.
Git can undo it.
"""

import importlib
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = next(path.parent.name for path in (ROOT / "src").glob("*/__init__.py"))
DOCKER_SERVE = r"#   docker build --target serve.*\n.*\n|# Serving an ONNX(?:.+\n)+\n"
COMPOSE_SERVE = r"# docker compose up serve.*\n|  serve:\n(?:    .*\n)+"
TEXTS = (
    r"\s(?:and|or)(?:\sa\stable\sof)?\stexts\b|(?<=mage) and text(?= classification)|或文本表格|与文本"
    r'|\n\[\[tool\.importlinter\.contracts\]\]\nname = "only folders named texts(?:.+\n)+'
)
UNCHANGED = ("CHANGELOG", "scripts/remove_packages.py")
BELONGS = {
    "alerts": ("docs/alerts.md",),
    "audit": ("docs/trust.md", "docs/tutorials/audit.md"),
    "deploy": ("docs/deploy.md", "docs/tutorials/ship.md", "notebooks", "tests/test_notebook.py"),
    "explain": ("docs/explain.md", "notebooks", "tests/test_notebook.py"),
    "privacy": ("docs/privacy.md", "configs/private.yaml"),
    "report": ("docs/report.md", "docs/report.png"),
    "search": ("docs/search.md", "configs/sweep"),
    "secure": ("docs/security.md",),
    "serve": ("docs/serve.md",),
    "texts": ("docs/text.md", "configs/text.yaml", "configs/text_chinese.yaml", "configs/language_model.yaml"),
}
"""Files that are removed with each package, besides the folders of its name in src/project and tests."""
BENCHMARKS = {
    "alerts": ("alerts",),
    "audit": ("shortcut",),
    "deploy": ("inference",),
    "explain": ("explain",),
    "privacy": ("private",),
    "search": ("sweep",),
    "serve": ("serving",),
    "texts": ("text",),
}
"""Benchmarks that are removed with each package."""


def with_dependents(names: set[str]) -> set[str]:
    """Return the packages and those that depend on them, as far as they are there."""
    there = [name for name in BELONGS if (ROOT / "src" / PACKAGE / name).is_dir()]
    uses = {name: set(getattr(importlib.import_module(f"{PACKAGE}.{name}"), "USES", ())) for name in there}
    names = names & set(there)
    while more := {name for name in there if uses[name] & names} - names:
        names = names | more
    return names


def mentions(name: str) -> tuple[str, str]:
    """Return regular expressions for a package's pages, and for its commands, options, files and class paths."""
    package = importlib.import_module(f"{PACKAGE}.{name}")
    pages = [re.escape(file.removeprefix("docs/")) for file in BELONGS[name] if file.startswith("docs/")]
    words = [rf"\b(?:{PACKAGE}|src/{PACKAGE}|tests)[./](?:\w+[./])*{name}\b"]
    words += [re.escape(file) for file in BELONGS[name] if file.startswith(("configs/", "notebooks"))]
    words += [f"benchmarks/{benchmark}" for benchmark in BENCHMARKS.get(name, ())]
    if commands := "|".join(getattr(package, "COMMANDS", {})):
        words += [rf"train\.py (?:{commands})\b", rf"`(?:{commands})\b[^`]*`"]
    words += [rf"--{option}\b" for kind in ("OPTIONS", "SHORT_OPTIONS") for option in getattr(package, kind, {})]
    return "|".join(pages), "|".join(words)


def prune(text: str, page: str, word: str) -> str:
    """Return Markdown without the table rows, command lines, sentences and empty sections about a package."""
    link = rf"\[([^\]]*)\]\((?:[\w./]*/)?(?:{page})[^)]*\)"

    def unlink(line: str) -> str:
        line = re.sub(rf"[:,;] \[(?:{page})\]\([^)]*\)|, {link}", "", line)  # "...: [page.md](page.md)"
        return re.sub(link, r"\1", line)

    def prune_block(block: str) -> str:
        lines = block.split("\n")
        if not re.search(f"{page}|{word}", block) or block.startswith("#"):
            return block
        if re.match(r"\||    |```|::: ", block):  # table, commands, code, API reference
            lines = [unlink(line) for line in lines if not re.search(word, line)]
            empty = all(re.match(r"```|\|[-| ]+\|$", line) for line in lines[1:]) and re.match(r"```|\|", block)
            return "" if not lines or empty else "\n".join(lines)
        items = re.split(r"\n(?=[-*] )", block)
        return "\n".join(filter(None, (_prune_item(item, f"{page}|{word}") for item in items)))

    blocks = re.findall(r"```.*?^```|(?:(?!```|\n\n).)+", text, re.DOTALL | re.MULTILINE)
    found = "\n\n".join(filter(None, (prune_block(block.strip("\n")) for block in blocks)))
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
    rest = re.sub(r":$", ".", rest)
    if not rest:
        return ""
    return textwrap.fill(bullet + rest, 120, subsequent_indent=" " * len(bullet), break_on_hyphens=False)


def main(names: list[str]) -> None:
    """Remove packages; an unknown name is an error with exit code 2."""
    if unknown := sorted(set(names) - set(BELONGS)) or not names:
        wrong = f"unknown package {', '.join(unknown)}" if isinstance(unknown, list) else "no package given"
        print(f"error: {wrong}: choose from {', '.join(BELONGS)}", file=sys.stderr)
        raise SystemExit(2)
    sys.path.insert(0, str(ROOT / "src"))
    documents = [ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for name in sorted(with_dependents(set(names))):
        page, word = mentions(name)
        folders = [folder for top in (f"src/{PACKAGE}", "tests") for folder in (ROOT / top).rglob(name)]
        places = [*sorted(filter(Path.is_dir, folders)), *BELONGS[name]]
        places += [f"benchmarks/{each}.py" for each in BENCHMARKS.get(name, ())]
        for place in places:
            if (ROOT / place).is_dir():
                shutil.rmtree(ROOT / place)
            else:
                (ROOT / place).unlink(missing_ok=True)
        for file in filter(Path.is_file, documents):
            edit(file, lambda text: re.sub(rf"(?<=/)  {name}/", "", prune(text, page, word)))  # noqa: B023 - called now
        edit(ROOT / "zensical.toml", lambda text: re.sub(rf'(?m)^.*"(?:{page})".*\n', "", text))  # noqa: B023
        if name == "texts":
            for file in (ROOT / "pyproject.toml", *filter(Path.is_file, documents)):
                edit(file, lambda text: re.sub(TEXTS, "", text))
        if name == "serve":
            edit(ROOT / "Dockerfile", lambda text: re.sub(DOCKER_SERVE, "", text))
            edit(ROOT / "compose.yaml", lambda text: re.sub(COMPOSE_SERVE, "", text))
        layer = rf"\({PACKAGE}\.{name}\)"
        entry = rf'(?m)^"{PACKAGE}\.{name}" = .*\n|^ *"{layer}",\n| \| {layer}|{layer} \| '
        edit(ROOT / "pyproject.toml", lambda text: re.sub(entry, "", text))  # noqa: B023
        print(f"removed: {name}")
        found = subprocess.run(
            ["git", "grep", "-nIP", f"{page}|{word}"], cwd=ROOT, capture_output=True, text=True
        ).stdout
        left = [":".join(line.split(":", 2)[:2]) for line in found.splitlines() if not line.startswith(UNCHANGED)]
        print(f"  still mentioned in {len(left)} places", *(f"    {place}" for place in left), sep="\n")


def edit(file: Path, change: Callable[[str], str]) -> None:
    """Change the text of a file."""
    text = file.read_text(encoding="utf-8")
    if (new := change(text)) != text:
        file.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
