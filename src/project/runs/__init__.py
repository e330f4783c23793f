"""Run folders: names, loggers, checkpoints, resuming, provenance, and reading the results of a run."""
