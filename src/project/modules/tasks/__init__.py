"""Tasks: loss, predictions and metrics for one kind of target."""

from project.modules.tasks.multiclass import Multiclass
from project.modules.tasks.multilabel import Multilabel
from project.modules.tasks.regression import Regression
from project.modules.tasks.task import LossMetric, Task, reject_loss_options

__all__ = ["LossMetric", "Multiclass", "Multilabel", "Regression", "Task", "reject_loss_options"]
