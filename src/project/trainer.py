"""Lightning's Trainer, and the commands of train.py beyond Lightning's."""

from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, cast

import lightning as L

if TYPE_CHECKING:
    from project.datamodules import ImageDataModule
    from project.interface import ImageData
    from project.modules import Classifier

Format = Literal["onnx", "pt2", "safetensors"]
Method = Literal["gradcam", "integrated_gradients", "occlusion"]


def _with_help(method: Callable[..., Any], summary: str, ckpt_path: str) -> Any:
    """The same method under a docstring for the command line; Lightning's speaks to who writes Python."""
    known = cast(FunctionType, method)
    same = FunctionType(known.__code__, known.__globals__, known.__name__, known.__defaults__, known.__closure__)
    same.__annotations__, same.__kwdefaults__ = known.__annotations__, known.__kwdefaults__
    same.__doc__ = f"{summary}\n\nArgs:\n    ckpt_path: {ckpt_path}"
    return same


TRAINED = "A trained model: a file, or best or last for the newest run."
CONTINUED = (
    "A run to continue: a file, or best or last for the newest run; resume for the newest of this run_name,"
    " or a new one where there is none."
)


class Trainer(L.Trainer):
    """Devices, precision, the length of a run; as Lightning has them.

    A method here is a command of train.py, and its arguments are the command's options.
    """

    fit = _with_help(L.Trainer.fit, "Train a net, and test its best checkpoint.", CONTINUED)
    validate = _with_help(L.Trainer.validate, "Judge a trained model on the val split.", TRAINED)
    test = _with_help(L.Trainer.test, "Judge a trained model on the test split.", TRAINED)
    predict = _with_help(L.Trainer.predict, "Tell the class of each image of a folder, or of a single one.", TRAINED)

    def explain(
        self,
        model: "Classifier",
        datamodule: "ImageData",
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        images: int = 16,
        methods: Method | list[Method] = "gradcam",
        class_name: str | None = None,
        ablation: bool = False,
    ) -> None:
        """Show where in images the evidence for a class lies, and what in the net matters.

        Args:
            model: The classifier.
            datamodule: The images.
            ckpt_path: A trained model: a file, or best or last for the newest run.
            weights_only: As Lightning has it; checkpoints are always read so.
            images: Explain at most this many, evenly spread over those found.
            methods: One, or several as a list: [gradcam, occlusion]. Those but gradcam need the extra `explain`.
            class_name: Also show the evidence for this class, whatever was predicted.
            ablation: Also measure what accuracy is lost without each layer, and without the most telling channels;
                needs images in folders named as their classes.
        """
        from project.explain.run import explain

        assert ckpt_path is not None  # the command line insists on one
        explain(self, model, datamodule, Path(ckpt_path), images, methods, class_name, ablation)

    def find_lr(
        self,
        model: "Classifier",
        datamodule: "ImageData",
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        lowest: float = 1e-6,
        highest: float = 1.0,
        steps: int = 100,
    ) -> None:
        """Try rising learning rates for some steps, draw the loss and suggest one; nothing that is trained is kept.

        Args:
            model: The classifier.
            datamodule: The images.
            ckpt_path: Not for this command.
            weights_only: Not for this command.
            lowest: The first learning rate.
            highest: The last one, unless the loss has left all bounds before.
            steps: From one to the other.
        """
        from project.search.find_lr import find_lr

        find_lr(self, model, datamodule, lowest, highest, steps)

    def find_batch_size(
        self,
        model: "Classifier",
        datamodule: "ImageData",
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        smallest: int = 16,
    ) -> None:
        """Train some steps with ever larger batches until no more fits or speed grows no more, and suggest a size.

        Args:
            model: The classifier.
            datamodule: The images.
            ckpt_path: Not for this command.
            weights_only: Not for this command.
            smallest: Images of a step to begin with, over all devices together; doubled each time.
        """
        from project.search.find_batch_size import find_batch_size

        find_batch_size(self, model, datamodule, smallest)

    def calibrate(
        self,
        model: "Classifier",
        datamodule: "ImageDataModule",
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        target_accuracy: float | None = None,
    ) -> None:
        """Fit a temperature on val that makes probabilities mean what they say, and write it into the checkpoint.

        Args:
            model: The classifier.
            datamodule: The images.
            ckpt_path: A trained model: a file, or best or last for the newest run.
            weights_only: As Lightning has it; checkpoints are always read so.
            target_accuracy: Also find the probability from which val images are right so often, in (0, 1); `predict`
                then says of each image whether it reaches it.
        """
        from project.audit.calibrate import calibrate

        assert ckpt_path is not None  # the command line insists on one
        calibrate(self, model, datamodule, Path(ckpt_path), target_accuracy)

    def robustness(
        self,
        model: "Classifier",
        datamodule: "ImageDataModule",
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        images: int = 1000,
    ) -> None:
        """Measure accuracy on corrupted, shifted, rotated and attacked test images; robustness.csv in the model's run.

        Args:
            model: The classifier.
            datamodule: The images.
            ckpt_path: A trained model: a file, or best or last for the newest run.
            weights_only: As Lightning has it; checkpoints are always read so.
            images: Use at most this many, evenly mixed.
        """
        from project.audit.robustness import robustness

        assert ckpt_path is not None  # the command line insists on one
        robustness(self, model, datamodule, Path(ckpt_path), images)

    def leak_test(
        self,
        model: "Classifier",
        datamodule: "ImageDataModule",
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        images: int = 10_000,
    ) -> None:
        """Try to tell by the loss which images the model was trained on; leak_test.json in the model's run.

        Args:
            model: The classifier.
            datamodule: The images that it was trained on, and a split that it was not.
            ckpt_path: A trained model: a file, or best or last for the newest run.
            weights_only: As Lightning has it; checkpoints are always read so.
            images: Use at most this many of either kind, evenly mixed.
        """
        from project.audit.leak_test import leak_test

        assert ckpt_path is not None  # the command line insists on one
        leak_test(self, model, datamodule, Path(ckpt_path), images)

    def export(
        self,
        model: "Classifier",
        datamodule: "ImageDataModule",
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        format: Format = "onnx",
        int8: bool = False,
        output: Path | None = None,
    ) -> None:
        """Write a trained model as one file, from pixels to probabilities, and see that it answers as it did.

        Args:
            model: The classifier.
            datamodule: Images to compare the answers on; by default the test split that the model was trained with.
            ckpt_path: A trained model: a file, or best or last for the newest run.
            weights_only: As Lightning has it; checkpoints are always read so.
            format: onnx runs everywhere, without torch; pt2 runs in torch; safetensors holds weights, for this project.
            int8: Count in eight bits, by ranges of the training images; a little less exact, and onnx only.
            output: The file to write; by default model.FORMAT, or model_int8.onnx, in the run's folder.
        """
        from project.deploy.export import export

        assert ckpt_path is not None  # the command line insists on one
        export(self, model, datamodule, Path(ckpt_path), format, int8, output)

    def prune(
        self,
        model: "Classifier",
        datamodule: "ImageDataModule",
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
        ratio: float = 0.5,
        output: Path | None = None,
    ) -> None:
        """Take the channels out of a trained net that weigh least; the smaller net is then trained on by `fit`.

        Args:
            model: The classifier.
            datamodule: Not for this command.
            ckpt_path: A trained model: a file, or best or last for the newest run.
            weights_only: As Lightning has it; checkpoints are always read so.
            ratio: Share of the channels of each layer to take out, above 0 and below 1; weights go with its square.
            output: The checkpoint to write; by default pruned.ckpt in the run's folder. A config lies beside it.
        """
        from project.deploy.prune import prune

        assert ckpt_path is not None  # the command line insists on one
        prune(model, Path(ckpt_path), ratio, output)
