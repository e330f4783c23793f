"""Looking for good settings: sweeps, learning rate, batch size."""
