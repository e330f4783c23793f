"""Evaluation of a trained model: calibration, robustness, subgroups, membership inference, model card."""

CLASSES_OR_LABELS = "images or texts with classes or labels"
ALL = "images or texts with classes, labels or values"
COMMANDS: dict[str, tuple[str, ...]] = {
    "calibrate": ("project.audit.calibrate.calibrate", "evaluate", "fit temperature, thresholds", CLASSES_OR_LABELS),
    "robustness": ("project.audit.robustness.robustness", "evaluate", "evaluate corrupted, attacked samples", ALL),
    "groups": ("project.audit.groups.groups", "evaluate", "compare subgroups of the test set"),
    "leak_test": ("project.audit.leak_test.leak_test", "evaluate", "run a membership inference attack", ALL),
    "model_card": ("project.audit.model_card.model_card", "evaluate", "write a model card of a tested run"),
}
