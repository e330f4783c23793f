"""What a module is trained for: loss, predictions and metrics of a kind of target."""

from project.modules.tasks.multiclass import Multiclass
from project.modules.tasks.task import LossMetric, Task, reject_loss_options

__all__ = ["LossMetric", "Multiclass", "Task", "reject_loss_options"]
