"""Multiclass classification."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassCohenKappa
from typing_extensions import override

from project.errors import UserError
from project.interface import ClassTarget, StageResult, Target
from project.modules.losses import CrossEntropy
from project.modules.tasks.figures import confusion_figure
from project.modules.tasks.scores import ScoreMetric, nanmean, ranking
from project.modules.tasks.task import LossMetric, Task
from project.runs.statistics import BINS, precision_recall_f1

RANKED = 1000
"""Classes above which a test computes no AUROC and average precision, which need all probabilities."""


class Multiclass(Task):
    """Multiclass classification with softmax and cross-entropy, calibrated by temperature scaling."""

    headline = ("acc", ".2%")
    score_name = "accuracy"
    monitor = ("val/acc", "max")
    losses = ("CrossEntropy", "FocalLoss", "OrdinalLoss", "CrossEntropyLoss", "MultiMarginLoss")
    explained_columns = ("label", "class", "probability")
    score_format = ".1%"
    signed = False
    target: ClassTarget
    temperature: Tensor

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.register_buffer("temperature", torch.ones(()))

    def build_loss(self, options: dict[str, Any]) -> nn.Module:
        """Return the cross-entropy; `balanced` class weights are inversely proportional to the class frequency."""
        classes, weights = self.target.outputs, options["class_weights"]
        if weights == "balanced":
            counts = self.target.train_counts
            weights = [sum(counts) / (classes * count) for count in counts]
        if weights is not None and len(weights) != classes:
            raise UserError(f"model.class_weights has {len(weights)} values, but the data has {classes} classes")
        return CrossEntropy(options["label_smoothing"], None if weights is None else torch.tensor(weights).float())

    def example_target(self) -> Tensor:
        """Return the first and the last class."""
        return torch.tensor([0, self.target.outputs - 1])

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor, temperature: float) -> Tensor:
        """Return temperature^2 x KL(teacher || student) of the softmax with the temperature, averaged over samples."""
        student, teacher = (F.log_softmax(logits / temperature, 1) for logits in (outputs, teacher_outputs))
        divergence = F.kl_div(student, teacher, reduction="sum", log_target=True)
        return temperature**2 * divergence / max(1, len(outputs))  # Poisson sampling may give an empty batch

    def calibrated(self, outputs: Tensor) -> Tensor:
        """Return logits divided by the temperature."""
        return outputs / self.temperature

    def predict(self, outputs: Tensor) -> Tensor:
        """Return probabilities."""
        return outputs.softmax(1)

    def score(self, predictions: Tensor, target: Tensor) -> float:
        """Return the accuracy."""
        return float((predictions.argmax(1) == target).double().mean())

    def sample_losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of each sample, float (N,)."""
        return F.cross_entropy(outputs, target, reduction="none")

    def explained(self, predictions: Tensor) -> list[list[int]]:
        """Return the predicted class of each sample."""
        return [[label] for label in predictions.argmax(1).tolist()]

    def ablation_metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Return the accuracy and the mean probability of the label."""
        probability = self.predict(outputs).gather(1, target[:, None]).mean()
        return {"accuracy": self.headline_value(outputs, target), "probability": float(probability)}

    def target_text(self, target: Tensor) -> str:
        """Return the name of a class, empty for -1."""
        return self.target.class_names[int(target)] if target >= 0 else ""

    def predicted_text(self, predictions: Tensor) -> str:
        """Return the name of the predicted class."""
        return self.target.class_names[int(predictions.argmax())]

    def describe_mistake(self, predictions: Tensor, target: Tensor) -> tuple[int, str, str]:
        """Return the predicted class, and titles with the probabilities of prediction and label and the loss."""
        predicted, of_label = int(predictions.argmax()), float(predictions[target])
        label = f"label {self.target_text(target)}: {of_label:.0%}, loss {-math.log(max(of_label, 1e-12)):.2f}"
        return predicted, f"predicted {self.predicted_text(predictions)}: {float(predictions[predicted]):.0%}", label

    def rank_mistakes(self, predictions: Tensor, target: Tensor) -> Tensor:
        """Rank mistakes by the loss, which is highest where the label is least probable."""
        return torch.where(predictions.argmax(1) != target, -predictions.gather(1, target[:, None])[:, 0], -torch.inf)

    def is_wrong(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return whether each sample is misclassified, bool (N,)."""
        return outputs.argmax(1) != target

    def reset_calibration(self) -> None:
        """Set the temperature back to 1, and remove the thresholds."""
        super().reset_calibration()
        self.temperature.fill_(1)

    def training_metric(self) -> LossMetric:
        """Return counts per class; a confusion matrix of thousands of classes would make every checkpoint large."""
        return ClassCounts(self.target.outputs)

    def evaluation_metric(self) -> LossMetric:
        """Return the confusion matrix."""
        return Confusion(self.target.outputs)

    def test_metric(self) -> LossMetric:
        """Return the confusion matrix and, except for very many classes, the probabilities of all samples."""
        classes = self.target.outputs
        return ConfusionScores(classes) if classes <= RANKED else Confusion(classes)

    def test_metrics(self) -> dict[str, Metric]:
        """Return calibration error, Brier score, Cohen's kappa, that of grades, and top-5 accuracy of many classes."""
        classes = self.target.outputs
        metrics = {"calibration_error": MulticlassCalibrationError(classes, n_bins=BINS), "brier": Brier()}
        metrics["kappa"] = MulticlassCohenKappa(classes)
        if all(name.removeprefix("-").isdecimal() for name in self.target.class_names):
            metrics["quadratic_kappa"] = MulticlassCohenKappa(classes, weights="quadratic")
        if classes > 5:
            metrics["top5_acc"] = MulticlassAccuracy(classes, top_k=5, average="micro")
        return metrics

    def rank_samples(self, predictions: Tensor, target: Tensor, index: Tensor, count: int) -> dict[str, Tensor]:
        """Rank the most confident mistakes, the most uncertain samples, and the first sample of some classes."""
        probability, predicted = predictions.max(1)
        kinds = {"mistakes": (predicted != target, probability), "uncertain": (target >= 0, -probability)}
        sampled = torch.linspace(0, self.target.outputs - 1, count, dtype=torch.float64).round().int().unique()
        kinds |= {f"sample {c}": (target == c, -index) for c in sampled.tolist()}
        return {kind: torch.where(eligible, score.double(), -torch.inf) for kind, (eligible, score) in kinds.items()}

    def table(self, result: StageResult) -> list[list[str]]:
        """Return precision, recall, F1 and number of samples per class, and their macro average."""
        confusion, headings = result.details["confusion"], {"auroc": "AUROC", "average_precision": "AP"}
        support = confusion.sum(1)
        rates = precision_recall_f1(confusion.diag(), support, confusion.sum(0))
        rates |= {name: result.details[name] for name in headings if name in result.details}
        rows = [["class", *(headings.get(name, name) for name in rates), f"{self.sample}s"]]
        for i, name in enumerate(self.target.class_names):
            cells = (f"{float(values[i]):.1%}" if support[i] else "-" for values in rates.values())
            rows.append([name, *cells, f"{int(support[i]):,}"])
        means = [f"{float(result.scalars[name]):.1%}" for name in rates]
        return [*rows, ["macro average", *means, f"{int(support.sum()):,}"]]

    def describe(self, scalars: dict[str, float]) -> str:
        """Return accuracy, loss and, for a test, calibration metrics."""
        skipped = {"acc", "loss", "precision", "recall", "f1", "auroc", "average_precision"}
        labels = {"calibration_error": "calibration error", "brier": "Brier score", "top5_acc": "top-5 accuracy"}
        labels |= {"kappa": "Cohen's kappa", "quadratic_kappa": "quadratic kappa"}
        more = [f", {labels.get(name, name)} {value:.4f}" for name, value in scalars.items() if name not in skipped]
        return f"accuracy {scalars['acc']:.2%}, loss {scalars['loss']:.4f}{''.join(more)}"

    def figures(self, result: StageResult) -> dict[str, Any]:
        """Return a figure of the confusion matrix."""
        return {"confusion_matrix": confusion_figure(result.details["confusion"].cpu(), self.target.class_names)}


class ClassCounts(LossMetric):
    """Loss, accuracy (micro), precision, recall and F1 (macro) from counts per class.

    Macro averages are over the classes that occur in labels or predictions, as in torchmetrics.
    """

    counts: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(3, classes, dtype=torch.int64), "sum")

    def count(self, outputs: Tensor, target: Tensor, valid: Tensor) -> None:
        """Count correct predictions, labels and predictions per class; labels may be class probabilities."""
        label, predicted = target.argmax(1) if target.ndim == 2 else target, outputs.argmax(1)
        # Not bincount, which synchronizes with the GPU.
        ones = valid.to(label).expand_as(label)
        added = torch.stack([ones * (label == predicted), ones, ones])
        self.counts = self.counts.scatter_add(1, torch.stack([label, label, predicted]), added)

    def compute(self) -> StageResult:
        """Return the metrics."""
        return self._result(*self.counts)

    def _result(self, correct: Tensor, labels: Tensor, predicted: Tensor) -> StageResult:
        present = (labels + predicted) > 0
        rates = precision_recall_f1(correct, labels, predicted)
        scalars = {"loss": self.loss_sum / self.samples, "acc": correct.sum() / labels.sum().clamp(min=1)}
        scalars |= {name: values[present].mean() for name, values in rates.items()}
        return StageResult(scalars, int(labels.sum()))


class Confusion(ClassCounts):
    """The metrics of `ClassCounts` and the confusion matrix."""

    confusion: Tensor

    def __init__(self, classes: int) -> None:
        LossMetric.__init__(self)
        self.add_state("confusion", torch.zeros(classes, classes, dtype=torch.int64), "sum")

    def count(self, outputs: Tensor, target: Tensor, valid: Tensor) -> None:
        """Count pairs of label and prediction."""
        cell = target * len(self.confusion) + outputs.argmax(1)
        ones = valid.to(cell).expand_as(cell)
        self.confusion = self.confusion.flatten().scatter_add(0, cell, ones).view_as(self.confusion)

    def compute(self) -> StageResult:
        """Return the metrics and the confusion matrix."""
        counts = self.confusion
        return self._result(counts.diag(), counts.sum(1), counts.sum(0))._replace(details={"confusion": counts})


class ConfusionScores(Confusion, ScoreMetric):
    """The metrics of `Confusion`, and AUROC and average precision of each class against the rest, and their means."""

    def __init__(self, classes: int) -> None:
        Confusion.__init__(self, classes)
        self.keep_scores()

    def count(self, outputs: Tensor, target: Tensor, valid: Tensor) -> None:
        """Count and keep a batch."""
        Confusion.count(self, outputs, target, valid)
        ScoreMetric.count(self, outputs.softmax(1), target, valid)

    def compute(self) -> StageResult:
        """Return the metrics; means are over the classes with test samples."""
        result, (scores, label) = Confusion.compute(self), self.gathered()
        found = ranking(scores, F.one_hot(label, scores.shape[1]).double())
        return StageResult(
            result.scalars | {name: nanmean(values) for name, values in found.items()},
            result.samples,
            {**result.details, **found},
        )


class Brier(MeanMetric):
    """Brier score, averaged over samples."""

    @override
    def update(self, probabilities: Tensor, label: Tensor) -> None:  # type: ignore[override]
        super().update(brier(probabilities, label))


def brier(probabilities: Tensor, label: Tensor) -> Tensor:
    """Return the Brier score of probabilities (N, classes) and labels, int64 (N,), per sample: (N,) in [0, 2].

    Brier, Verification of Forecasts Expressed in Terms of Probability, 1950.
    """
    of_label = probabilities.gather(1, label[:, None])[:, 0]
    return probabilities.square().sum(1) - 2 * of_label + 1
