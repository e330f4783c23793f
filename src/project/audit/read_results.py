"""Reading the test predictions of a run for the audits."""

from project.audit.results import ClassResults, LabelResults, Results, ValueResults
from project.errors import UserError
from project.runs.label_predictions import LabelPredictions
from project.runs.predictions import Predictions
from project.runs.read import Run


def read_results(run: Run) -> Results:
    """Return the results of a tested run.

    Raises:
        UserError: The run has no tested samples, or its table is not one of classes, labels or values.
    """
    tested = run.predictions
    if tested is None:
        raise UserError(f"{run.folder} has no tested samples of classes, labels or values")
    if isinstance(tested, Predictions):
        return ClassResults(tested)
    if isinstance(tested, LabelPredictions):
        return LabelResults(tested.names, tested.paths, tested.truth, tested.predicted)
    return ValueResults(tested.names, tested.paths, tested.truth, tested.predicted)
