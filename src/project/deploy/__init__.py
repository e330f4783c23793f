"""A trained model as one file that gives the same answer everywhere."""

FITS = "images with classes"
COMMANDS: dict[str, tuple[str, ...]] = {
    "export": ("project.deploy.export.export", "deploy", "write a trained model as one file: onnx, pt2, ...", FITS),
    "prune": ("project.deploy.prune.prune", "deploy", "take channels out of a trained network, to train on", FITS),
    "predict_exported": ("project.deploy.predict.predict_exported", "deploy", "predict by an exported model"),
}
