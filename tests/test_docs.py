"""Commands and examples in the documentation."""

import itertools
import re
import shutil
from pathlib import Path

import pytest

from project import datamodules, modules
from project.cli import main
from project.cli.commands import commands
from tests.commands import DOCUMENTS, fill_placeholders, find_commands, find_error
from tests.conftest import QUICK, REPOSITORY, fit


@pytest.mark.slow
def test_extend_example_trains(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (REPOSITORY / "docs" / "extend.md").read_text()
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    for path, body in blocks:
        file = tmp_path / "extra" / path.removeprefix("src/project/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body)
    for package in (modules, datamodules):  # extended without being written into
        more = str(tmp_path / "extra" / package.__name__.rpartition(".")[2])
        monkeypatch.setattr(package, "__path__", [*package.__path__, more])
    configs = [str(tmp_path / "extra" / "configs" / name) for name in ("tiny.yaml", "stripes.yaml")]
    main(["fit", "--config", configs[0], "--config", configs[1], "--trainer.max_epochs", "1", *QUICK])
    shown = capsys.readouterr().out
    assert "40 images, 2 classes" in shown and "model     Tiny" in shown


@pytest.mark.slow
def test_python_example_predicts(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (REPOSITORY / "docs" / "extend.md").read_text()
    (code,) = re.findall(r"```python\n(import project.*?)```", text, re.DOTALL)
    main(fit(tree, "--run_name", "convnet", "--test_after_fit", "false", "--trainer.max_epochs", "8"))
    shutil.copy(tree / "red" / "000.png", "photo.jpg")
    capsys.readouterr()
    exec(code, {})
    assert capsys.readouterr().out == "red\n"


ELSEWHERE = {
    "python train.py fit --data mine.Texts": "needs a file of the page; run by test_own_parts.py",
    "python train.py count": "needs a command of the page; run by test_own_parts.py",
    "source .venv/bin/activate": "changes the shell",
    "openssl": "tested with the commands that use its key",
    "docker": "docker is not available; `make lint` checks the Dockerfile",
    "--gpus all": "docker option",
    "--signal=B:USR1@120": "sbatch option",
    "--requeue": "sbatch option",
    "--max-restarts": "torchrun option",
}
"""Commands and options of other programs, and why they are not checked."""


@pytest.fixture
def scratch(here: Path) -> Path:
    """The current folder with configs, scripts, and the files that the documented commands need."""
    for name in ("configs", "scripts"):
        shutil.copytree(REPOSITORY / name, name)
    for name in ("tiny", "stripes"):
        Path(f"configs/{name}.yaml").write_text("run_name: null\n")
    run = Path("logs/convnet/version_0")
    run.mkdir(parents=True)
    for name in (run / "config.yaml", run / "pruned.yaml", Path("logs/sweeps/convnet/best.yaml")):
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_text("run_name: null\n")
    return here


@pytest.mark.slow
def test_documented_commands_are_accepted(scratch: Path) -> None:
    errors = []
    for command in itertools.chain.from_iterable(map(find_commands, DOCUMENTS)):
        if not any(command.text.startswith(known) for known in ELSEWHERE):
            error = find_error(fill_placeholders(command.text))
            errors += [f"{command.location}: {command.text}\n    {error}"] if error else []
    assert not errors, "\n".join(["", *errors])


def test_readmes_have_same_commands_and_links() -> None:
    english, chinese = (list(find_commands(REPOSITORY / name)) for name in ("README.md", "README.zh-CN.md"))
    for one, other in itertools.zip_longest(english, chinese):
        assert one and other and one.text == other.text, f"{one} and {other}"
    texts = [(REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")]
    links = [re.findall(r"\]\((docs/[^)]+)\)|`(configs/[^`]+)`", text) for text in texts]
    assert links[0] == links[1]


def test_reference_lists_all_commands_and_configs() -> None:
    reference = (REPOSITORY / "docs" / "reference" / "commands.md").read_text()
    assert [path for path, *_ in commands().values() if f"::: {path}\n" not in reference] == []
    configs = (REPOSITORY / "docs" / "reference" / "configs.md").read_text()
    paths = [str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "configs").rglob("*.yaml")]
    assert [path for path in paths if f'--8<-- "{path}"' not in configs] == []
