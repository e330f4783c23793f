"""Reading the table of test predictions of a run."""

from collections.abc import Sequence

import numpy as np

from project.audit.results import ClassResults, Floats, LabelResults, Results, ValueResults
from project.errors import UserError
from project.files import read_table
from project.interface.target import SEPARATOR
from project.runs.folder import TEST_PREDICTIONS
from project.runs.read import Run


def read_results(run: Run) -> Results:
    """Return the results of a tested run.

    Raises:
        UserError: The run has no tested images, or its table is not one of classes, labels or values.
    """
    if run.predictions is not None:
        return ClassResults(run.predictions)
    file = run.folder / TEST_PREDICTIONS
    rows = read_table(file, ["path"])
    if not rows:
        raise UserError(f"{run.folder} has no tested images")
    heading, paths = list(rows[0]), [row["path"] for row in rows]
    try:
        if heading[1:3] == ["labels", "predicted"]:
            names = heading[3 : 3 + (len(heading) - 3) // 2]
            found = [set(row["predicted"].split(SEPARATOR)) for row in rows]
            predicted = np.array([[name in each for name in names] for each in found])
            return LabelResults(names, paths, _numbers(rows, names), predicted)
        if names := [name for name in heading if f"predicted {name}" in heading]:
            predictions = _numbers(rows, [f"predicted {name}" for name in names])
            return ValueResults(names, paths, _numbers(rows, names), predictions)
    except ValueError as error:
        raise UserError(f"{file} is corrupted or was edited ({error}): write it again with `train.py test`") from error
    raise UserError(f"{file} is not a table of classes, labels or values: it has {', '.join(heading)}")


def _numbers(rows: list[dict[str, str]], columns: Sequence[str]) -> Floats:
    return np.array([[float(row[column] or "nan") for column in columns] for row in rows])
