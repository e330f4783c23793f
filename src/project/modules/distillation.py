"""Knowledge distillation: a trained model as the teacher of another one."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from project.errors import UserError
from project.interface import ImageInput, Input, Target, import_object
from project.runs.checkpoints import load_checkpoint
from project.runs.resume import MODULE

if TYPE_CHECKING:
    from project.modules.classifier import Classifier

TEMPERATURE, WEIGHT = 4.0, 0.9
"""Defaults of `model.teacher_temperature` and `model.teacher_weight`."""


def check_options(teacher: str | None, temperature: float, weight: float) -> None:
    """Raise a UserError if a value is out of range, or set without a teacher."""
    if temperature <= 0 or not 0 <= weight <= 1:
        raise UserError(
            "model.teacher_temperature must be above 0 and model.teacher_weight in [0, 1], got"
            f" {temperature} and {weight}"
        )
    if teacher is None and (temperature, weight) != (TEMPERATURE, WEIGHT):
        raise UserError("model.teacher_temperature and model.teacher_weight need --model.teacher FILE")


class Teacher:
    """A frozen model whose outputs are soft targets. Hinton et al., Distilling the Knowledge in a Neural Network, 2015.

    Not an `nn.Module`, so that as an attribute of the student it adds nothing to its parameters, state dict or DDP.

    Args:
        student: The model to train, on its device; its `hparams` name the checkpoint of the teacher.

    Raises:
        UserError: The file is missing or not a checkpoint, or the teacher has another input or other classes.
    """

    def __init__(self, student: "Classifier") -> None:
        self._file, data = Path(student.hparams["teacher"]), student.data_description
        self._temperature: float = student.hparams["teacher_temperature"]
        self._weight: float = student.hparams["teacher_weight"]
        self._task = student.task
        if not self._file.is_file():
            raise UserError(f"model.teacher: no such checkpoint: {self._file}: give its path with --model.teacher FILE")
        cls = import_object(load_checkpoint(self._file)["hyper_parameters"].get("_class_path", MODULE))
        model: Classifier = cls.load_from_checkpoint(self._file, map_location="cpu", weights_only=True)
        check_same_input(self._file, model.data_description.input, data.input)
        self._order = output_order(self._file, model.data_description.target, data.target)
        model.requires_grad_(False).eval().tta = "none"
        self._model = student.trainer.precision_plugin.convert_module(model.to(student.device))

    def __str__(self) -> str:
        reordered = "" if self._order is None else ", its classes reordered by name"
        network = f"{type(self._model.net).__name__} from {self._file}{reordered}"
        return f"{network}; temperature {self._temperature:g}, weight {self._weight:g}"

    @torch.no_grad()
    def outputs(self, inputs: Tensor) -> Tensor:
        """Return uncalibrated outputs, float32 (N, outputs), in the order of the student, for raw inputs."""
        outputs: Tensor = self._model(inputs).float()
        return outputs if self._order is None else outputs[:, self._order]

    def add_loss(self, loss: Tensor, outputs: Tensor, inputs: Tensor) -> Tensor:
        """Return the weighted sum of the loss for the labels and the loss for the soft targets.

        Args:
            loss: Mean loss of the batch for its labels.
            outputs: Outputs of the student, float32 (N, outputs).
            inputs: Augmented inputs before normalization, as in `Batch`.
        """
        distillation = self._task.distillation_loss(outputs, self.outputs(inputs), self._temperature)
        return (1 - self._weight) * loss + self._weight * distillation


def check_same_input(file: Path, teacher: Input, student: Input) -> None:
    """Raise a UserError unless both models take the same input; each has its own normalization."""
    taken = teacher
    if isinstance(teacher, ImageInput) and isinstance(student, ImageInput):
        taken = replace(teacher, mean=student.mean, std=student.std)
    if taken != student:
        raise UserError(
            f"model.teacher: {file} was trained on {teacher.kind}s {teacher}, but this run has {student.kind}s"
            f" {student}: use the data options of the teacher, e.g. data.image_size, or choose another one"
        )


def output_order(file: Path, teacher: Target, student: Target) -> list[int] | None:
    """Return the index of each output of the student in those of the teacher; None if the order is the same.

    Raises:
        UserError: The models have different outputs.
    """
    if teacher == student:
        return None
    ours, theirs = student.names, teacher.names
    if type(teacher) is not type(student) or set(ours) != set(theirs):
        different = [name for name in (*theirs, *ours) if (name in ours) != (name in theirs)]
        names = f" (in one of them only: {', '.join(different[:5])})" if different else ""
        raise UserError(
            f"model.teacher: {file} predicts {teacher}, which are not the {student} of the data{names}: choose a"
            " teacher of the same ones"
        )
    return [theirs.index(name) for name in ours]
