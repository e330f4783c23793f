"""Evaluation of a trained model: calibration, robustness, subgroups, membership inference, model card."""

FITS = "images with classes"
COMMANDS: dict[str, tuple[str, ...]] = {
    "calibrate": ("project.audit.calibrate.calibrate", "evaluate", "fit a temperature on the val split", FITS),
    "robustness": ("project.audit.robustness.robustness", "evaluate", "accuracy on corrupted, attacked images", FITS),
    "groups": ("project.audit.groups.groups", "evaluate", "compare subgroups of the test images"),
    "leak_test": ("project.audit.leak_test.leak_test", "evaluate", "run a membership inference attack", FITS),
    "model_card": ("project.audit.model_card.model_card", "evaluate", "write a model card of a tested run"),
}
