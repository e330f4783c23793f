"""Results of a sweep: one line per trial, table of the best trials, figures, best.yaml."""

from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from project.callbacks.describe import python_command
from project.files import write_text
from project.search.space import short_names


def describe(trial: FrozenTrial) -> str:
    """Return a one-line description of a trial."""
    outcome = "" if trial.value is None else f"{trial.value:.4f}"
    if trial.state == TrialState.PRUNED:
        outcome = f"{outcome} pruned".lstrip()
    elif trial.state != TrialState.COMPLETE:
        outcome = f"failed: {trial.user_attrs.get('error', 'its worker was lost')}"
    count = len(trial.intermediate_values)
    return f"trial {trial.number:>4}  {outcome}, {count} validation{'s' * (count != 1)}, {_options(trial)}"


def _options(trial: FrozenTrial) -> str:
    names = short_names(list(trial.params))
    return "  ".join(f"{names[key]} {_short(value)}" for key, value in trial.params.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).rpartition(".")[2]


def write_summary(study: optuna.Study, folder: Path, metric: str, best_config: str) -> None:
    """Write best.yaml and the figures of a sweep, and print the table of the ten best trials.

    Args:
        study: A study with at least one complete trial.
        folder: The sweep's folder.
        metric: Name of the monitored metric.
        best_config: Config of the best trial as YAML.
    """
    trials, best, file = study.trials, study.best_trial, folder / "best.yaml"
    header = f"# Best of {len(trials)} trials by {metric}: {best.value:.4f}, trial {best.number}, {_options(best)}"
    write_text(file, f"{header}\n#\n#   {python_command()} train.py fit --config {file}\n{best_config}")
    figures = _write_figures(study, folder, metric)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    complete.sort(key=lambda trial: trial.value or 0.0, reverse=study.direction == optuna.study.StudyDirection.MAXIMIZE)
    names = short_names(list(best.params))
    width = {key: max(10, len(name) + 2) for key, name in names.items()}
    print(f"\n{'trial':>5} {metric:>10}  " + "".join(f"{name:>{width[key]}}" for key, name in names.items()))
    for trial in complete[:10]:
        cells = "".join(f"{_short(trial.params.get(key)):>{width[key]}}" for key in names)
        print(f"{trial.number:>5} {trial.value:>10.4f}  {cells}")
    pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
    retried = {trial.user_attrs.get("again") for trial in trials}
    failed_trials = study.get_trials(states=(TrialState.FAIL,))
    failed = sum(trial.number not in retried and "surplus" not in trial.user_attrs for trial in failed_trials)
    print(f"\n{len(complete)} complete, {pruned} pruned, {failed} failed")
    print(f"figures   {', '.join(map(str, figures))}")
    print(f"best      {python_command()} train.py fit --config {file}")


def _write_figures(study: optuna.Study, folder: Path, metric: str) -> list[Path]:
    """Write history.png, and importance.png and parallel_coordinate.png if the values of trials differ."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from optuna.visualization import matplotlib as visualization

    plots: dict[str, Any] = {"history": visualization.plot_optimization_history}
    values = {trial.value for trial in study.trials if trial.state == TrialState.COMPLETE}
    if len(values) > 1:
        plots |= {
            "importance": visualization.plot_param_importances,
            "parallel_coordinate": visualization.plot_parallel_coordinate,
        }
    files = []
    for name, plot in plots.items():
        figure = plot(study, target_name=metric).figure
        figure.set_size_inches(10, 5)
        files.append(folder / f"{name}.png")
        figure.savefig(files[-1], dpi=120, bbox_inches="tight")
        plt.close(figure)
    return files
