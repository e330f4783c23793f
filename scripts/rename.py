"""Give the package a name of your own: `make rename NAME=my_birds`. Goes away with its own work.

Only the package's name is replaced - module paths, `src/project`, `python -m project`, the metadata in pyproject.toml -
not the English word.
"""

import importlib.util
import keyword
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OLD = "project"
TEMPLATE_ONLY = ("scripts/rename.py", "tests/test_rename.py")


def refuse(message: str) -> None:
    """End with one line and exit code 2; nothing was changed."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def check(name: str) -> None:
    """Refuse what cannot be the name of this package."""
    wanted = re.sub(r"\W+", "_", name.strip().lower(), flags=re.ASCII).strip("_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        hint = f": try NAME={wanted}" if re.fullmatch(r"[a-z]\w*", wanted) else ""
        refuse(f"{name!r} is no name for a package, which has small letters, digits and _, a letter first{hint}")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        refuse(f"{name} is a word of Python's own: take another name")
    if name == OLD or (ROOT / name).exists() or name in sys.stdlib_module_names or importlib.util.find_spec(name):
        refuse(f"there is a {name} already, here or among the installed packages: take another name")
    if not (ROOT / "src" / OLD).is_dir():
        refuse(f"no src/{OLD} here: the package has been renamed before")


def files() -> list[Path]:
    """All files of the project; where git keeps them, only if it could give every one back."""
    git = ["git", "-C", str(ROOT)]
    if not (ROOT / ".git").exists():
        outside = {".venv", "logs", "data", "site", "__pycache__"}
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file() and not path.is_symlink())
        return [ROOT / path for path in found if not outside.intersection(path.parts)]
    if changed := subprocess.check_output([*git, "status", "--porcelain"], text=True):
        refuse(f"not all is committed, and a rename could not be undone: commit or stash first\n{changed}".strip())
    listed = subprocess.check_output([*git, "ls-files", "-z"], text=True)
    return [ROOT / name for name in listed.split("\0") if name]


def patterns() -> list[tuple[str, str]]:
    """What the package's name stands in: (kind of file, a regular expression whose match is the name)."""
    parts = {path.stem for path in (ROOT / "src" / OLD).iterdir()} - {"__pycache__", "__init__"}
    return [
        (r"\.toml$", rf'(?<="){OLD}(?=["\[.])'),  # not the table [project]
        (r"Dockerfile$", rf"(?<=-t ){OLD}\b|(?<=logs\" ){OLD}\b"),
        (r"", rf"\b{OLD}(?=-serve\b)"),
        (r"", rf"(?<=[\"']){OLD}(?=\.)"),
        (r"", rf"\b{OLD}(?=\.(?:{'|'.join(sorted(parts))}|__\w+__)\b)"),
        (r"", rf"(?<=\bfrom ){OLD}(?= import\b)|(?<=\bimport ){OLD}\b"),
        (r"", rf"(?<=\bsrc/){OLD}\b|(?<=-m ){OLD}\b|(?<=\"-m\", \"){OLD}\b"),
    ]


def main(name: str) -> None:
    """Rename the package, its folder and every mention; then remove this tool."""
    check(name)
    changed = 0
    rules = patterns()
    for file in files():
        if file.relative_to(ROOT).as_posix() in TEMPLATE_ONLY:
            continue
        try:
            text = file.read_bytes().decode()
        except UnicodeDecodeError:
            continue  # a picture
        new = text
        for kind, pattern in rules:
            if re.search(kind, file.name):
                lines = new.split("\n")
                new = "\n".join(re.sub(pattern, name, line, flags=re.ASCII) for line in lines)
        if file.name == "Makefile":
            new = re.sub(r"\nrename:.*?\n\n", "\n", new, flags=re.DOTALL).replace(" rename ", " ")
        if file.name == "extend.md":
            new = re.sub(r"\n## A name of its own\n.*?(?=\n## |\Z)", "", new, flags=re.DOTALL)
        if new != text:
            file.write_bytes(new.encode())
            changed += 1
    (ROOT / "src" / OLD).rename(ROOT / "src" / name)
    for place in TEMPLATE_ONLY:
        (ROOT / place).unlink(missing_ok=True)
    print(f"src/{OLD} is src/{name} now; {changed} files mention it. Checkpoints from before name {OLD}: train anew.")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1]:
        refuse("which name? make rename NAME=my_birds")
    main(sys.argv[1])
