"""Rename the package, optionally without some packages: `make rename NAME=my_birds WITHOUT='serve privacy'`.

Replaces the package's name - module paths, `src/project`, `python -m project`, the metadata in pyproject.toml - but not
the English word, and then deletes itself.
"""

import importlib.util
import keyword
import re
import subprocess
import sys
from pathlib import Path

import remove_packages

ROOT = Path(__file__).parents[1]
OLD = "project"
TEMPLATE_ONLY = ("scripts/rename.py", "tests/test_rename.py")


def fail(message: str) -> None:
    """Print an error and exit with code 2, before anything is changed."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def check(name: str) -> None:
    """Validate the new name of the package."""
    wanted = re.sub(r"\W+", "_", name.strip().lower(), flags=re.ASCII).strip("_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        hint = f": try NAME={wanted}" if re.fullmatch(r"[a-z]\w*", wanted) else ""
        fail(f"{name!r} is not a package name: use lower-case letters, digits and _, a letter first{hint}")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        fail(f"{name} is a keyword of Python: choose another name")
    if name == OLD or (ROOT / name).exists() or name in sys.stdlib_module_names or importlib.util.find_spec(name):
        fail(f"{name} exists already, here or among the installed packages: choose another name")
    if not (ROOT / "src" / OLD).is_dir():
        fail(f"no src/{OLD}: the package has been renamed already")


def files() -> list[Path]:
    """Return all files of the project; in a git repository, all must be committed, so that a rename can be undone."""
    git = ["git", "-C", str(ROOT)]
    if not (ROOT / ".git").exists():
        outside = {".venv", "logs", "data", "site", "__pycache__"}
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file() and not path.is_symlink())
        return [ROOT / path for path in found if not outside.intersection(path.parts)]
    if changed := subprocess.check_output([*git, "status", "--porcelain"], text=True):
        fail(
            f"uncommitted changes, which a rename would mix with its own: commit or stash them first\n{changed}".strip()
        )
    listed = subprocess.check_output([*git, "ls-files", "-z"], text=True)
    return [ROOT / name for name in listed.split("\0") if name]


def patterns() -> list[tuple[str, str]]:
    """Return pairs of a file name pattern and a regular expression that matches the package's name in such files."""
    parts = {"load", "Prediction", "Predictor", *(path.stem for path in (ROOT / "src" / OLD).iterdir())} - {
        "__pycache__",
        "__init__",
    }
    return [
        (r"\.toml$", rf'(?<="){OLD}(?=["\[.])|(?<=-> ){OLD}(?=\.)'),  # not the table [project]
        (r"Dockerfile$", rf"(?<=-t ){OLD}\b|(?<=logs\" ){OLD}\b"),
        (r"", rf"\b{OLD}(?=-serve\b)"),
        (r"", rf"(?<=[\"']){OLD}(?=\.)"),
        (r"", rf"\b{OLD}(?=\.(?:{'|'.join(sorted(parts))}|__\w+__)\b)"),
        (r"", rf"(?<=\bfrom ){OLD}(?= import\b)|(?<=\bimport ){OLD}\b"),
        (r"", rf"(?<=\bsrc/){OLD}\b|(?<=-m ){OLD}\b|(?<=\"-m\", \"){OLD}\b"),
    ]


def main(name: str, without: list[str]) -> None:
    """Remove packages, then rename the package, its folder and every mention of it; finally delete this script."""
    check(name)
    every = files()
    if without:
        remove_packages.main(without)
    changed = 0
    rules = patterns()
    for file in filter(Path.is_file, every):
        if file.relative_to(ROOT).as_posix() in TEMPLATE_ONLY:
            continue
        try:
            text = file.read_bytes().decode()
        except UnicodeDecodeError:
            continue  # an image
        new = text
        for kind, pattern in rules:
            if re.search(kind, file.name):
                lines = new.split("\n")
                new = "\n".join(re.sub(pattern, name, line, flags=re.ASCII) for line in lines)
        if file.name == "Makefile":
            new = re.sub(r"\nrename:.*?\n\n", "\n", new, flags=re.DOTALL).replace(" rename ", " ")
        if file.name == "extend.md":
            new = re.sub(r"\n## Starting a project\n.*?(?=\n## |\Z)", "", new, flags=re.DOTALL)
        if file.name.startswith("README"):
            new = remove_packages.prune(new, "no page", "make rename")
        if new != text:
            file.write_bytes(new.encode())
            changed += 1
    (ROOT / "src" / OLD).rename(ROOT / "src" / name)
    for place in TEMPLATE_ONLY:
        (ROOT / place).unlink(missing_ok=True)
    print(
        f"renamed src/{OLD} to src/{name} and changed {changed} files; older checkpoints cannot be loaded: train again"
    )


if __name__ == "__main__":
    if len(sys.argv) < 2 or not sys.argv[1]:
        fail("missing name: make rename NAME=my_birds")
    main(sys.argv[1], sys.argv[2:])
