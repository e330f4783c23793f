"""What a sweep leaves behind: a line a trial, the table of the best, pictures, best.yaml."""

from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from project.callbacks.describe import python
from project.search.space import short_names


def describe(trial: FrozenTrial) -> str:
    """A trial in a line."""
    if trial.state == TrialState.COMPLETE:
        outcome = f"{trial.value:.4f}"
    elif trial.state == TrialState.PRUNED:
        outcome = f"{trial.value:.4f} pruned" if trial.value is not None else "pruned"
    else:
        outcome = f"failed: {trial.user_attrs.get('error', 'its worker was lost')}"
    times = len(trial.intermediate_values)
    return f"trial {trial.number:>4}  {outcome}, {times} validation{'s' * (times != 1)}, {_options(trial)}"


def _options(trial: FrozenTrial) -> str:
    names = short_names(list(trial.params))
    return "  ".join(f"{names[key]} {_short(value)}" for key, value in trial.params.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).rpartition(".")[2]


def conclude(study: optuna.Study, folder: Path, metric: str, best_config: str) -> None:
    """Write best.yaml and the pictures, and print the table of the best ten trials.

    Args:
        study: With at least one trial that was trained to its end.
        folder: The sweep's folder.
        metric: What the trials were judged by.
        best_config: YAML of the best trial's whole config.
    """
    best = study.best_trial
    file = folder / "best.yaml"
    head = (
        f"# The best of {len(study.trials)} trials by {metric}: {best.value:.4f}, trial {best.number}, {_options(best)}"
    )
    file.write_text(f"{head}\n#\n#   {python()} train.py fit --config {file}\n{best_config}", encoding="utf-8")
    pictures = _pictures(study, folder, metric)
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    done.sort(key=lambda trial: trial.value or 0.0, reverse=study.direction == optuna.study.StudyDirection.MAXIMIZE)
    names = short_names(list(best.params))
    width = {key: max(10, len(name) + 2) for key, name in names.items()}
    print(f"\n{'trial':>5} {metric:>10}  " + "".join(f"{name:>{width[key]}}" for key, name in names.items()))
    for trial in done[:10]:
        cells = "".join(f"{_short(trial.params.get(key)):>{width[key]}}" for key in names)
        print(f"{trial.number:>5} {trial.value:>10.4f}  {cells}")
    states = [trial.state for trial in study.trials]
    again = {trial.user_attrs.get("again") for trial in study.trials}
    failed = [
        t
        for t in study.trials
        if t.state == TrialState.FAIL and t.number not in again and "surplus" not in t.user_attrs
    ]
    print(f"\n{len(done)} trained to the end, {states.count(TrialState.PRUNED)} pruned, {len(failed)} failed")
    print(f"pictures  {', '.join(str(picture) for picture in pictures)}")
    print(f"best      {python()} train.py fit --config {file}")


def _pictures(study: optuna.Study, folder: Path, metric: str) -> list[Path]:
    """history.png, and where trials differ importance.png and parallel_coordinate.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from optuna.visualization import matplotlib as draw

    plots: dict[str, Any] = {"history": draw.plot_optimization_history}
    values = {trial.value for trial in study.trials if trial.state == TrialState.COMPLETE}
    if len(values) > 1:
        plots |= {"importance": draw.plot_param_importances, "parallel_coordinate": draw.plot_parallel_coordinate}
    written = []
    for name, plot in plots.items():
        figure = plot(study, target_name=metric).figure
        figure.set_size_inches(10, 5)
        written.append(folder / f"{name}.png")
        figure.savefig(written[-1], dpi=120, bbox_inches="tight")
        plt.close(figure)
    return written
