"""Multi-label classification."""

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
from project.runs.statistics import precision_recall_f1


class Multilabel(Task):
    """Classification with any number of labels per sample: a sigmoid and binary cross-entropy for each label.

    Labels that are unknown, NaN, contribute to neither loss nor metrics.
    """

    headline = ("f1", ".2%")
    monitor = ("val/mAP", "max")
    losses = ("BCEWithLogitsLoss", "SigmoidFocalLoss", "AsymmetricLoss")
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

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the probability of each label."""
        return outputs.sigmoid()

    def sample_losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean binary cross-entropy of the known labels of each sample, float (N,)."""
        known = ~target.isnan()
        return known_mean(F.binary_cross_entropy_with_logits(outputs, target.where(known, 0), reduction="none"), known)

    def reset_calibration(self) -> None:
        """Set the thresholds back to 0.5."""
        super().reset_calibration()
        self.thresholds.fill_(0.5)

    def training_metric(self) -> LossMetric:
        """Return counts per label."""
        return LabelCounts(self.thresholds)

    def evaluation_metric(self) -> LossMetric:
        """Return counts per label and the probabilities of all samples."""
        return LabelScores(self.thresholds)

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
        rows = [["label", "precision", "recall", "F1", "avg. precision", "AUROC", "samples"]]
        for i, name in enumerate(self.target.label_names):
            rows.append([name, *(_percent(values[i]) for values in rates), f"{int(labels[i]):,}"])
        names = ("precision", "recall", "f1", "mAP", "auroc")
        return [*rows, ["mean", *(_percent(result.scalars[name]) for name in names), f"{result.samples:,}"]]

    def describe(self, scalars: dict[str, float]) -> str:
        """Return the mean average precision, the share of samples whose labels are all right, and the loss."""
        first = f"mAP {scalars['mAP']:.2%}, F1 {scalars['f1']:.2%}, subset accuracy {scalars['subset_acc']:.2%}"
        skipped = {"mAP", "f1", "subset_acc", "precision", "recall", "loss"}
        more = [f", {name} {value:.4f}" for name, value in scalars.items() if name not in skipped]
        return f"{first}, loss {scalars['loss']:.4f}{''.join(more)}"

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
        thresholds: Probability from which each label is predicted, float (labels,).
    """

    counts: Tensor
    exact: Tensor

    def __init__(self, thresholds: Tensor) -> None:
        super().__init__()
        self.logits = thresholds.logit()
        self.add_state("counts", torch.zeros(4, len(thresholds), dtype=torch.int64), "sum")
        self.add_state("exact", torch.zeros((), dtype=torch.int64), "sum")

    def count(self, outputs: Tensor, target: Tensor, valid: Tensor) -> None:
        """Count correct positives, labels, predictions and known labels, and samples whose known labels are all right.

        Mixed labels count as present from 0.5.
        """
        self.logits = self.logits.to(outputs.device)
        known = ~target.isnan() & valid
        label, predicted = known & (target >= 0.5), known & (outputs >= self.logits)
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
    """The metrics of `LabelCounts`, the mean average precision and the AUROC, macro and per label."""

    def __init__(self, thresholds: Tensor) -> None:
        LabelCounts.__init__(self, thresholds)
        self.keep_scores()

    def count(self, outputs: Tensor, target: Tensor, valid: Tensor) -> None:
        """Count and keep a batch."""
        LabelCounts.count(self, outputs, target, valid)
        ScoreMetric.count(self, outputs, target, valid)

    def compute(self) -> StageResult:
        """Return the metrics; the means are over labels that are present in some and absent in other samples."""
        result = LabelCounts.compute(self)
        outputs, truth = self.gathered()
        found = ranking(outputs.sigmoid(), truth)
        scalars = {"mAP": nanmean(found["average_precision"]), "auroc": nanmean(found["auroc"])}
        details = {**result.details, **found, "scores": outputs.sigmoid().cpu(), "truth": truth.cpu()}
        return StageResult(result.scalars | scalars, result.samples, details)
