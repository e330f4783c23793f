"""What watches a run without changing it."""

from project.callbacks.console import Console, ProgressBar
from project.callbacks.findings import Findings
from project.callbacks.guard import Guard
from project.callbacks.last import LastCheckpoint
from project.callbacks.monitor import Monitor
from project.callbacks.pictures import Pictures
from project.callbacks.predictions import PredictionTable

__all__ = ["Console", "Findings", "Guard", "LastCheckpoint", "Monitor", "Pictures", "PredictionTable", "ProgressBar"]
