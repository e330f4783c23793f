"""Tests of `model_card`: measurements are listed, missing ones are marked as such."""

from pathlib import Path

import pytest

from project.cli import main
from tests.audit.test_groups import biased
from tests.conftest import QUICK, fit
from tests.report.made import made_run


def test_missing_measurements_are_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_run(tmp_path / "run" / "version_0", 3, 300)
    (run / "test.json").unlink()
    main(["model_card", str(run)])
    card = (run / "model_card.md").read_text()
    assert card.count("Not measured.") == 2 and card.count("not recorded") >= 6
    with pytest.raises(SystemExit):
        main(["model_card", str(run)])
    assert "exists and is not overwritten" in capsys.readouterr().err


def test_the_card_has_the_subgroup_evaluation(tmp_path: Path) -> None:
    table = biased(tmp_path / "run" / "version_0", 0.3)
    run = table.parent
    main(["groups", str(run), "--table", str(table), "--column", "tone"])
    main(["model_card", str(run), "--output", str(tmp_path / "card.md")])
    card = (tmp_path / "card.md").read_text()
    assert "| tone | rare | 12 (small) |" in card and "* tone, accuracy: light" in card
    assert ": significant (p = " in card and card.count("Not measured.") == 1


@pytest.mark.slow
def test_the_card_of_a_run_is_valid_for_the_hub(tree: Path, here: Path) -> None:
    from huggingface_hub import ModelCard

    main(fit(tree))
    main(["robustness", "--ckpt_path", "best", "--images", "6", *QUICK])
    main(["model_card", "logs/run/version_0"])
    card = ModelCard.load("logs/run/version_0/model_card.md")
    (result,) = card.data.eval_results
    assert result.metric_type == "accuracy" and 0 <= result.metric_value <= 1
    for text in ("9 test images", "train 42, val 9, test 9", "No temperature was fitted", "| pgd |", "Brier score 0."):
        assert text in card.text, text
    assert str(here.parent) not in card.text, "the card is meant to be published"
