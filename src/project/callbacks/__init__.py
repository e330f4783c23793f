"""Callbacks: console output, checkpoints, monitoring and test results."""

from project.callbacks.best_checkpoint import BestCheckpoint
from project.callbacks.console import Console, ProgressBar
from project.callbacks.figures import Figures
from project.callbacks.last_checkpoint import LastCheckpoint
from project.callbacks.monitor import Monitor
from project.callbacks.nonfinite_guard import NonFiniteGuard
from project.callbacks.prediction_table import PredictionTable
from project.callbacks.test_summary import TestSummary

__all__ = [
    "BestCheckpoint",
    "Console",
    "Figures",
    "LastCheckpoint",
    "Monitor",
    "NonFiniteGuard",
    "PredictionTable",
    "ProgressBar",
    "TestSummary",
]
