"""What the documents show works as it stands."""

import re
from pathlib import Path

import pytest

from project.__main__ import TOOLS
from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_extend_example_trains(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "extend.md").read_text()
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    for place, body in blocks:
        file = tmp_path / "extra" / place.removeprefix("src/project/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body)
    # The example's files join the package without being written into it.
    start = (
        "import project.modules, project.datamodules; from project.cli import main;"
        f"project.modules.__path__.append({str(tmp_path / 'extra' / 'modules')!r});"
        f"project.datamodules.__path__.append({str(tmp_path / 'extra' / 'datamodules')!r}); main()"
    )
    texts = [(REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")]
    links = [re.findall(r"\]\((docs/[^)]+)\)|`(configs/[^`]+)`", text) for text in texts]
    assert links[0] == links[1]


def test_every_tool_and_config_is_in_the_reference() -> None:
    commands = (REPOSITORY / "docs" / "reference" / "commands.md").read_text()
    assert [name for name, (module, _) in TOOLS.items() if f"::: {module}.{name}\n" not in commands] == []
    configs = (REPOSITORY / "docs" / "reference" / "configs.md").read_text()
    there = [str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "configs").rglob("*.yaml")]
    assert [path for path in there if f'--8<-- "{path}"' not in configs] == []
