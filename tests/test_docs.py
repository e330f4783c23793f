"""What the documents show works as it stands."""

import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from project.cli import main
from project.cli.commands import commands
from tests.commands import DOCUMENTS, refused, shown, standing_in
from tests.conftest import QUICK, REPOSITORY, fit


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
    configs = [str(tmp_path / "extra" / "configs" / name) for name in ("tiny.yaml", "stripes.yaml")]
    args = ["fit", "--config", configs[0], "--config", configs[1], "--trainer.max_epochs", "1", *QUICK]
    done = subprocess.run(
        [sys.executable, "-c", start, *args], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "40 images, 2 classes" in done.stdout and "net       Tiny" in done.stdout


@pytest.mark.slow
def test_a_trained_model_answers_in_python(tree: Path, here: Path) -> None:
    text = (REPOSITORY / "docs" / "extend.md").read_text()
    (code,) = re.findall(r"```python\n(import torch.*?)```", text, re.DOTALL)
    main(fit(tree, "--run_name", "convnet", "--test_after_fit", "false", "--trainer.max_epochs", "8"))
    shutil.copy(tree / "red" / "000.png", "photo.jpg")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert shown.stdout == "red\n", shown.stderr


ELSEWHERE = {
    "python train.py fit --data mine.Texts": "a file of the page's own; test_own_parts.py runs it",
    "python train.py count": "a command of the page's own; test_own_parts.py runs it",
    "source .venv/bin/activate": "changes the shell",
    "openssl": "run with the commands that use its key",
    "docker": "no docker here; the Dockerfile is looked at by `make lint`",
    "--gpus all": "an option of docker",
    "--signal=B:USR1@120": "an option of sbatch",
    "--requeue": "an option of sbatch",
    "--max-restarts": "an option of torchrun",
}
"""Commands that are not ours, and options of such; and why they are not looked at."""


@pytest.fixture
def scratch(here: Path) -> Path:
    """A stranger's folder: a clone's configs and scripts, what docs/extend.md makes, and photographs of two things."""
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
def test_every_command_in_the_documents_is_one_that_is_accepted(scratch: Path) -> None:
    wrong = []
    for command in itertools.chain.from_iterable(map(shown, DOCUMENTS)):
        if not any(command.text.startswith(known) for known in ELSEWHERE):
            said = refused(standing_in(command.text))
            wrong += [f"{command.place}: {command.text}\n    {said}"] if said else []
    assert not wrong, "\n".join(["", *wrong])


def test_both_readmes_show_the_same_commands() -> None:
    english, chinese = (list(shown(REPOSITORY / name)) for name in ("README.md", "README.zh-CN.md"))
    for one, other in itertools.zip_longest(english, chinese):
        assert one and other and one.text == other.text, f"{one} and {other}"
    texts = [(REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")]
    links = [re.findall(r"\]\((docs/[^)]+)\)|`(configs/[^`]+)`", text) for text in texts]
    assert links[0] == links[1]


def test_every_command_and_config_is_in_the_reference() -> None:
    reference = (REPOSITORY / "docs" / "reference" / "commands.md").read_text()
    assert [path for path, *_ in commands().values() if f"::: {path}\n" not in reference] == []
    configs = (REPOSITORY / "docs" / "reference" / "configs.md").read_text()
    there = [str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "configs").rglob("*.yaml")]
    assert [path for path in there if f'--8<-- "{path}"' not in configs] == []
