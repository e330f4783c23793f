"""Multi-label classification."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from project.errors import UserError
from project.interface import MultilabelTarget, StageResult, Target
from project.modules.losses import MaskedLoss
from project.modules.tasks.figures import precision_recall_figure
from project.modules.tasks.scores import ScoreMetric, known_mean, nanmean, ranking
from project.modules.tasks.task import LossMetric, Task
from project.output import SEPARATOR
from project.runs.statistics import precision_recall_f1


class Multilabel(Task):
    """Classification with any number of labels per sample: a sigmoid and binary cross-entropy for each label.

    Labels that are unknown, NaN, contribute to neither loss nor metrics.
    """

    headline = ("f1", ".2%")
    score_name = "F1"
    monitor = ("val/mAP", "max")
    losses = ("BCEWithLogitsLoss", "SigmoidFocalLoss", "AsymmetricLoss")
    explained_columns = ("labels", "label", "probability")
    score_format = ".1%"
    signed = False
    target: MultilabelTarget
    thresholds: Tensor

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        limits = self.target.thresholds or [0.5] * target.outputs
        self.register_buffer("thresholds", torch.tensor(limits), persistent=False)

    def build_loss(self, options: dict[str, Any]) -> nn.Module:
        """Return the binary cross-entropy; `balanced` weights present labels by absent / present samples."""
        labels, weights = self.target.outputs, options["class_weights"]
        if weights == "balanced":
            counts = zip(self.target.train_counts, self.target.train_known, strict=True)
            weights = [(known - count) / count if 0 < count < known else 1.0 for count, known in counts]
        if weights is not None and len(weights) != labels:
            raise UserError(f"model.class_weights has {len(weights)} values, but the data has {labels} labels")
        positive = None if weights is None else torch.tensor(weights).float()
        loss = nn.BCEWithLogitsLoss(reduction="none", pos_weight=positive)
        return MaskedLoss(loss, torch.zeros(labels), torch.ones(labels), options["label_smoothing"])

    def example_target(self) -> Tensor:
        """Return the labels of a sample without and a sample with all labels."""
        return torch.tensor([[0.0], [1.0]]).expand(2, self.target.outputs)

    def wrap_loss(self, loss: nn.Module) -> nn.Module:
        """Return the loss with unknown labels masked."""
        return MaskedLoss(loss, torch.zeros(self.target.outputs), torch.ones(self.target.outputs))

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor, temperature: float) -> Tensor:
        """Return temperature^2 x the mean binary cross-entropy of the softened probabilities."""
        soft = (teacher_outputs / temperature).sigmoid()
        total = F.binary_cross_entropy_with_logits(outputs / temperature, soft, reduction="sum")
        return temperature**2 * total / max(1, outputs.numel())

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the probability of each label."""
        return outputs.sigmoid()

    def decide(self, outputs: Tensor) -> Tensor:
        """Return which labels are predicted, bool (N, labels)."""
        return self.predict(outputs) >= self.thresholds

    def score(self, predictions: Tensor, target: Tensor) -> float:
        """Return the macro-averaged F1."""
        metric = LabelCounts(lambda scores: scores >= self.thresholds.to(scores.device), self.target.outputs)
        metric.update(predictions.new_zeros(()), predictions, target)
        return float(metric.compute().scalars["f1"])

    def sample_losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean binary cross-entropy of the known labels of each sample, float (N,)."""
        known = ~target.isnan()
        return known_mean(F.binary_cross_entropy_with_logits(outputs, target.where(known, 0), reduction="none"), known)

    def explained(self, predictions: Tensor) -> list[list[int]]:
        """Return the predicted labels of each sample, the most probable first; that alone if none is predicted."""
        chosen = predictions >= self.thresholds.to(predictions.device)
        order = (predictions + chosen.float()).argsort(dim=1, descending=True, stable=True).tolist()
        counts = chosen.sum(1).clamp(min=1).tolist()
        return [labels[:count] for labels, count in zip(order, counts, strict=True)]

    def ablation_metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Return the F1 and the mean probability of the truth, present or absent, over known labels."""
        scores = self.predict(outputs)
        probability = torch.where(target == 1, scores, 1 - scores)[~target.isnan()].mean()
        return {"f1": self.headline_value(outputs, target), "probability": float(probability)}

    def target_text(self, target: Tensor) -> str:
        """Return the names of the labels of one sample."""
        return SEPARATOR.join(self.target.names[label] for label in (target == 1).nonzero().flatten().tolist())

    def predicted_text(self, predictions: Tensor) -> str:
        """Return the names of the predicted labels."""
        return SEPARATOR.join(self.target.predicted(predictions.cpu().numpy()))

    def describe_mistake(self, predictions: Tensor, target: Tensor) -> tuple[int, str, str]:
        """Return the label that is most wrong, and titles with all labels and with its probability."""
        wrong = (predictions >= self.thresholds.to(predictions.device)) != (target == 1)
        worst = int(((predictions - target).abs() + wrong.float()).nan_to_num(-1).argmax())
        labels, predicted = self.target_text(target) or "none", self.predicted_text(predictions) or "none"
        title = f"labels {labels}, predicted {predicted}"
        return worst, title, f"map of {self.target.names[worst]}: {float(predictions[worst]):.0%}"

    def reset_calibration(self) -> None:
        """Set the thresholds back to 0.5."""
        super().reset_calibration()
        self.thresholds.fill_(0.5)

    def training_metric(self) -> LossMetric:
        """Return counts per label."""
        return LabelCounts(self.decide, self.target.outputs)

    def evaluation_metric(self) -> LossMetric:
        """Return counts per label and the probabilities of all samples."""
        return LabelScores(self.decide, self.predict, self.target.outputs)

    def prepare_metric(self, metric: Metric) -> Metric:
        """Return a metric that ignores unknown labels, if it can."""
        if getattr(metric, "ignore_index", -1) is None:
            metric.ignore_index = -1
        return metric

    def metric_inputs(self, predictions: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities, and labels as int64 (N, labels) with -1 if unknown."""
        return predictions, target.nan_to_num(-1).long()

    def rank_samples(self, predictions: Tensor, target: Tensor, index: Tensor, count: int) -> dict[str, Tensor]:
        """Rank the samples with the largest error of a label, the most uncertain ones, and one of each label."""
        error = (predictions - target).abs().nan_to_num(0)
        wrong = ((predictions >= self.thresholds.cpu()) != (target == 1)) & ~target.isnan()
        doubt = (predictions - self.thresholds.cpu()).abs().min(1).values
        kinds = {"mistakes": (wrong.any(1), (error * wrong).max(1).values)}
        kinds["uncertain"] = (torch.ones_like(wrong[:, 0]), -doubt)
        shown = torch.linspace(0, self.target.outputs - 1, count, dtype=torch.float64).round().int().unique()
        kinds |= {f"sample {label}": (target[:, label] == 1, -index) for label in shown.tolist()}
        return {kind: torch.where(eligible, score.double(), -torch.inf) for kind, (eligible, score) in kinds.items()}

    def table(self, result: StageResult) -> list[list[str]]:
        """Return precision, recall, F1, average precision, AUROC and number of samples per label, and their mean."""
        details = result.details
        correct, labels, predicted, _ = details["counts"]
        rates = [*precision_recall_f1(correct, labels, predicted).values()]
        rates += [details["average_precision"], details["auroc"]]
        rows = [["label", "precision", "recall", "F1", "AP", "AUROC", "samples"]]
        for i, name in enumerate(self.target.label_names):
            rows.append([name, *(_percent(values[i]) for values in rates), f"{int(labels[i]):,}"])
        names = ("precision", "recall", "f1", "mAP", "auroc")
        return [*rows, ["mean", *(_percent(result.scalars[name]) for name in names), f"{result.samples:,}"]]

    def describe(self, scalars: dict[str, float]) -> str:
        """Return the mean average precision, the share of samples whose labels are all right, and the loss."""
        first = f"mAP {scalars['mAP']:.2%}, F1 {scalars['f1']:.2%}, subset accuracy {scalars['subset_acc']:.2%}"
        skipped = {"mAP", "f1", "subset_acc", "precision", "recall", "loss", "auroc"}
        more = [f", {name} {value:.4f}" for name, value in scalars.items() if name not in skipped]
        return f"{first}, AUROC {scalars['auroc']:.2%}, loss {scalars['loss']:.4f}{''.join(more)}"

    def figures(self, result: StageResult) -> dict[str, Any]:
        """Return the precision-recall curves."""
        details = result.details
        figure = precision_recall_figure(details["scores"], details["truth"], self.target.label_names)
        return {"precision_recall": figure}


def _percent(value: Tensor) -> str:
    return "-" if value.isnan() else f"{float(value):.1%}"


class LabelCounts(LossMetric):
    """Loss, subset accuracy and macro-averaged precision, recall and F1 from counts per label.

    Args:
        decide: Function from outputs to the labels that are predicted, bool (N, labels).
        labels: Number of labels.
    """

    counts: Tensor
    exact: Tensor

    def __init__(self, decide: Callable[[Tensor], Tensor], labels: int) -> None:
        super().__init__()
        self.decide = decide
        self.add_state("counts", torch.zeros(4, labels, dtype=torch.int64), "sum")
        self.add_state("exact", torch.zeros((), dtype=torch.int64), "sum")

    def count(self, outputs: Tensor, target: Tensor, valid: Tensor) -> None:
        """Count correct positives, labels, predictions and known labels, and samples whose known labels are all right.

        Mixed labels count as present from 0.5.
        """
        known = ~target.isnan() & valid
        label, predicted = known & (target >= 0.5), known & self.decide(outputs)
        self.counts = self.counts + torch.stack([label & predicted, label, predicted, known]).sum(1)
        self.exact = self.exact + ((label == predicted).all(1) & valid).sum()

    def compute(self) -> StageResult:
        """Return the metrics; macro averages are over labels that occur in targets or predictions."""
        correct, labels, predicted, _ = self.counts
        present = labels + predicted > 0
        scalars = {"loss": self.loss_sum / self.samples, "subset_acc": self.exact / self.samples}
        for name, rate in precision_recall_f1(correct, labels, predicted).items():
            scalars[name] = rate[present].mean() if present.any() else rate.sum()
        return StageResult(scalars, int(self.samples), {"counts": self.counts})


class LabelScores(LabelCounts, ScoreMetric):
    """The metrics of `LabelCounts`, the mean average precision and the AUROC, macro and per label.

    Args:
        decide: Function from outputs to the labels that are predicted, bool (N, labels).
        predict: Function from outputs to probabilities.
        labels: Number of labels.
    """

    def __init__(self, decide: Callable[[Tensor], Tensor], predict: Callable[[Tensor], Tensor], labels: int) -> None:
        LabelCounts.__init__(self, decide, labels)
        self.predict = predict
        self.keep_scores()

    def count(self, outputs: Tensor, target: Tensor, valid: Tensor) -> None:
        """Count and keep a batch."""
        LabelCounts.count(self, outputs, target, valid)
        ScoreMetric.count(self, self.predict(outputs), target, valid)

    def compute(self) -> StageResult:
        """Return the metrics; the means are over labels that are present in some and absent in other samples."""
        result = LabelCounts.compute(self)
        scores, truth = self.gathered()
        found = ranking(scores, truth)
        scalars = {"mAP": nanmean(found["average_precision"]), "auroc": nanmean(found["auroc"])}
        details = {**result.details, **found, "scores": scores.cpu(), "truth": truth.cpu()}
        return StageResult(result.scalars | scalars, result.samples, details)
