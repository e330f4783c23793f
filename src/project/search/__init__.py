"""Looking for good settings: sweeps, cross-validation, learning rate, batch size."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "find_lr": ("project.search.find_lr.find_lr", "tune", "try rising learning rates and suggest one"),
    "find_batch_size": ("project.search.find_batch_size.find_batch_size", "tune", "try larger batches, suggest a size"),
    "sweep": ("project.search.sweep.sweep", "tune", "search for the best options, one run a trial"),
    "cross_validate": ("project.search.cross_validate.cross_validate", "tune", "train once a fold; mean and spread"),
}
