"""Tasks: loss, predictions and metrics for one kind of target."""

from project.modules.tasks.multiclass import Multiclass
from project.modules.tasks.task import LossMetric, Task, reject_loss_options

__all__ = ["LossMetric", "Multiclass", "Task", "reject_loss_options"]
