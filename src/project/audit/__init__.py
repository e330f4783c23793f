"""What a trained model may be trusted with: calibration, groups, robustness, membership, model card."""

FITS = "images with classes"
COMMANDS: dict[str, tuple[str, ...]] = {
    "calibrate": ("project.audit.calibrate.calibrate", "evaluate", "fit a temperature to val probabilities", FITS),
    "robustness": ("project.audit.robustness.robustness", "evaluate", "accuracy on corrupted, attacked images", FITS),
    "groups": ("project.audit.groups.groups", "evaluate", "whether a tested run serves all groups of images alike"),
    "leak_test": ("project.audit.leak_test.leak_test", "evaluate", "whether it tells its training images", FITS),
    "model_card": ("project.audit.model_card.model_card", "evaluate", "what to know of a model before using it"),
}
