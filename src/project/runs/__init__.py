"""A run's folder: naming, logger, checkpoints, continuing, provenance, and reading what a run left."""
