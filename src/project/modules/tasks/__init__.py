"""What a module is trained for: loss, predictions and metrics of a kind of target."""

from project.modules.tasks.multiclass import Multiclass
from project.modules.tasks.task import LossSum, Task, refuse_loss_options

__all__ = ["LossSum", "Multiclass", "Task", "refuse_loss_options"]
