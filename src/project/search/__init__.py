"""Hyperparameter search: sweeps, cross-validation, learning rate finder, batch size finder."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "find_lr": ("project.search.find_lr.find_lr", "tune", "run a learning rate range test and suggest a rate"),
    "find_batch_size": ("project.search.find_batch_size.find_batch_size", "tune", "benchmark batch sizes, suggest one"),
    "sweep": ("project.search.sweep.sweep", "tune", "search for the best hyperparameters with Optuna"),
    "cross_validate": ("project.search.cross_validate.cross_validate", "tune", "k-fold cross-validation"),
}
