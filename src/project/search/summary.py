"""What a sweep leaves behind: a line a trial, the table of the best, pictures, best.yaml."""

from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from project.callbacks.describe import python_command
from project.files import write_text
from project.search.space import short_names


def describe(trial: FrozenTrial) -> str:
    """Return a trial in a line."""
    outcome = "" if trial.value is None else f"{trial.value:.4f}"
    if trial.state == TrialState.PRUNED:
        outcome = f"{outcome} pruned".lstrip()
    elif trial.state != TrialState.COMPLETE:
        outcome = f"failed: {trial.user_attrs.get('error', 'its worker was lost')}"
    times = len(trial.intermediate_values)
    return f"trial {trial.number:>4}  {outcome}, {times} validation{'s' * (times != 1)}, {_options(trial)}"


def _options(trial: FrozenTrial) -> str:
    names = short_names(list(trial.params))
    return "  ".join(f"{names[key]} {_short(value)}" for key, value in trial.params.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).rpartition(".")[2]


def conclude(study: optuna.Study, folder: Path, metric: str, best_config: str) -> None:
    """Write best.yaml, of the best trial's config as YAML, and the pictures, and print the table of the best ten."""
    trials, best, file = study.trials, study.best_trial, folder / "best.yaml"
    head = f"# The best of {len(trials)} trials by {metric}: {best.value:.4f}, trial {best.number}, {_options(best)}"
    write_text(file, f"{head}\n#\n#   {python_command()} train.py fit --config {file}\n{best_config}")
    pictures = _pictures(study, folder, metric)
    done = study.get_trials(states=(TrialState.COMPLETE,))
    done.sort(key=lambda trial: trial.value or 0.0, reverse=study.direction == optuna.study.StudyDirection.MAXIMIZE)
    names = short_names(list(best.params))
    width = {key: max(10, len(name) + 2) for key, name in names.items()}
    print(f"\n{'trial':>5} {metric:>10}  " + "".join(f"{name:>{width[key]}}" for key, name in names.items()))
    for trial in done[:10]:
        cells = "".join(f"{_short(trial.params.get(key)):>{width[key]}}" for key in names)
        print(f"{trial.number:>5} {trial.value:>10.4f}  {cells}")
    pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
    replaced = {trial.user_attrs.get("again") for trial in trials}
    lost = study.get_trials(states=(TrialState.FAIL,))
    failed = sum(trial.number not in replaced and "surplus" not in trial.user_attrs for trial in lost)
    print(f"\n{len(done)} trained to the end, {pruned} pruned, {failed} failed")
    print(f"pictures  {', '.join(map(str, pictures))}")
    print(f"best      {python_command()} train.py fit --config {file}")


def _pictures(study: optuna.Study, folder: Path, metric: str) -> list[Path]:
    """Write history.png, and where trials differ importance.png and parallel_coordinate.png."""
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
