"""Export, quantization and pruning of trained models, and inference with exported files."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "export": ("project.deploy.export.export", "deploy", "export a trained model to ONNX, pt2 or safetensors"),
    "prune": (
        "project.deploy.prune.prune",
        "deploy",
        "remove channels from a trained network, for fine-tuning",
        "images",
    ),
    "predict_exported": ("project.deploy.predict.predict_exported", "deploy", "predict with an exported model"),
}
