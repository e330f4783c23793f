"""The command `leak_test`: a membership inference attack by the loss of each sample."""

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from project.audit.model import headline, predict_outputs
from project.errors import UserError
from project.files import write_text
from project.interface import Split
from project.runs.folder import output_folder
from project.runs.job import Trained
from project.runs.statistics import wilson_interval

LEAK_TEST = "leak_test.json"
FALSE_POSITIVE_RATE = 0.001  # at which the true positive rate is reported, as in Carlini et al., 2022


def leak_test(trained: Trained, images: int = 10_000) -> None:
    """Run a membership inference attack by the loss; writes leak_test.json into the run of the checkpoint.

    Yeom et al., Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting, 2018.

    Args:
        trained: The model and the dataset that it was trained on.
        images: Use at most this many training samples and this many unseen ones, sampled evenly.

    Raises:
        UserError: `images` is below 1, or the dataset is not the one that the model was trained on; see also
            `Trained.load`.
    """
    if images < 1:
        raise UserError(f"--images must be at least 1, got {images}")
    trained.load("test")
    data, description = trained.data, trained.module.data_description
    assert description is not None and data.index is not None
    units = f"{description.input.kind}s"
    if description.fingerprint != data.index.fingerprint():
        raise UserError(
            f"the {units} of {data.folder} or their splits are not those that the model was trained on: leak_test needs"
            f" the original dataset to tell training {units} from unseen ones"
        )
    data.sampling, data.sampler = "natural", None  # every training sample once
    unseen_split = data.test_split
    members, on_members = _losses(trained, "train", images)
    unseen, on_unseen = _losses(trained, unseen_split, images)
    metric, form = headline(trained.module.task)
    result = attack_metrics(-members, -unseen)
    result |= {"split": unseen_split, f"train_{metric}": on_members, metric: on_unseen}
    result |= {"train_loss": float(members.mean()), "loss": float(unseen.mean())}
    print(f"\n{'':<16}{units:>8}{metric:>10}{'mean loss':>11}")
    for split, loss, value in (("train split", members, on_members), (f"{unseen_split} split", unseen, on_unseen)):
        print(f"{split:<16}{len(loss):>8,}{value:>10{form}}{loss.mean():>11.4f}")
    print("\n" + "\n".join(describe(result, units)))
    file = output_folder(trained.checkpoint) / LEAK_TEST
    write_text(file, json.dumps(result, indent=2))
    print(file)


def _losses(trained: Trained, split: Split, max_images: int) -> tuple[NDArray[np.float64], float]:
    """Return the loss of each sample, without augmentation, and the headline metric of the task."""
    outputs, target, _ = predict_outputs(trained, split, max_images)
    task = trained.module.task.cpu()  # where the outputs are; the network does not use it
    outputs = task.calibrated(outputs)
    losses = task.sample_losses(outputs, target)
    known = ~losses.isnan()
    if not known.all():
        left = f"{int((~known).sum()):,} of {len(known):,} {split} {task.sample}s"
        print(f"skipping {left} without a known target")
    return losses[known].double().numpy(), task.headline_value(outputs[known], target[known])


def attack_metrics(members: NDArray[np.float64], unseen: NDArray[np.float64]) -> dict[str, Any]:
    """Return AUC and true positive rate of an attack by a score that is higher for members of the training set.

    Args:
        members: Scores of training samples, (M,).
        unseen: Scores of other samples, (N,).
    """
    m, n = len(members), len(unseen)
    ranks = rankdata(np.concatenate([members, unseen]))
    above = (ranks[:m] - rankdata(members)) / n  # fraction of unseen samples below each member, ties counted as half
    below = 1 - (ranks[m:] - rankdata(unseen)) / m
    auc = float(above.mean())
    # DeLong et al., Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves, 1988
    error = math.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n) if min(m, n) > 1 else math.nan
    false_positives = int(FALSE_POSITIVE_RATE * n)
    hits = int((members > np.sort(unseen)[::-1][false_positives]).sum())
    interval = [max(0.0, auc - 1.96 * error), min(1.0, auc + 1.96 * error)]
    rates = {"found": hits / m, "found_interval": wilson_interval(hits, m), "false_alarms": false_positives}
    return {"auc": auc, "auc_interval": interval, **rates, "trained_on": m, "new": n}


def describe(result: dict[str, Any], units: str) -> list[str]:
    """Return the result of the attack in sentences, with its limitations; `units` is the plural noun for samples."""
    (low, high), (tpr_low, tpr_high) = result["auc_interval"], result["found_interval"]
    sentences = [
        f"Membership inference attack by the loss: AUC {result['auc']:.3f} (95 % confidence interval {low:.3f} to"
        f" {high:.3f}); 0.5 is chance.",
        f"True positive rate {result['found']:.2%} (95 % confidence interval {tpr_low:.2%} to {tpr_high:.2%}) at"
        f" {result['false_alarms']:,} false positives among {result['new']:,} unseen {units}; chance is about"
        f" {result['false_alarms'] / result['new']:.2%}.",
    ]
    if result["new"] < 1 / FALSE_POSITIVE_RATE:
        sentences.append(f"{result['new']:,} unseen {units} are too few for a false positive rate of 0.1 %.")
    if result["split"] == "val":
        sentences.append(
            f"The unseen {units} are from val, which selected the checkpoint: on test the AUC may be higher."
        )
    if low > 0.5:
        leak = f"The loss separates training {units} from unseen ones, provided both have the same distribution"
        return [*sentences, f"{leak}; more {units}, augmentation or differential privacy reduce this."]
    no_leak = f"This attack does not separate training {units} from unseen ones; a stronger attack may."
    return [*sentences, f"{no_leak} Only differential privacy bounds all attacks."]
