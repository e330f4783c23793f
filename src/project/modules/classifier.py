"""The LightningModule: network, normalization, task, loss, optimizer, metrics."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torchmetrics import Metric

from project.errors import UserError
from project.interface import (
    FORMAT_VERSION,
    Batch,
    DataDescription,
    ImageInput,
    Input,
    Split,
    StageResult,
    Target,
    data_of,
)
from project.modules.distributed import average_buffers, shard
from project.modules.feature_cache import FeatureCache
from project.modules.init_weights import load_initial_weights
from project.modules.inputs import TestTimeAugmentation, tta_logits
from project.modules.layers import Freezing
from project.modules.networks.convnet import ConvNet
from project.modules.optimizers.groups import check_schedule_length, make_optimizer, make_schedule
from project.modules.optimizers.schedule import WarmupDecay, plan_to_end
from project.modules.tasks import LossMetric, Task, reject_loss_options
from project.runs.spec import NetCallable, build_net, builder, to_spec

BUILDERS = ("net", "task", "loss", "metrics", "optimizer", "scheduler")
"""Arguments that build something once the data is known."""


class Classifier(L.LightningModule):
    """Trains a network for a supervised task; raw inputs are all it needs, in training and ever after.

    What is predicted, the names of classes, the size of images and the channel statistics are never typed: `fit` adopts
    them from the datamodule, and the checkpoint carries them on.

    Args:
        net: The network, built with (num_classes, inputs) from the data; float NCHW in for images, logits out.
        optimizer: The optimizer; its weight decay (L2) spares biases and norms.
        scheduler: Learning-rate schedule. One that takes `total_steps` is given the length of the run and moves
            each step; any other moves each epoch (ReduceLROnPlateau on its `monitor`).
        task: What is predicted, built with the data's target; by default what the target asks for.
        loss: A module of (outputs, target) that returns the mean over the batch; by default the task's.
        metrics: Further metrics of torchmetrics, updated with (predictions, target) in validation and test and logged
            under the names of their classes.
        label_smoothing: Share of the label spread evenly over all classes, in [0, 1).
        class_weights: Weight of each class in the loss, in the order of the class names; or `balanced`, which gives
            every class the same share of it: images / (classes x images of the class).
        freeze_epochs: Epochs at the beginning in which only the head is trained, with all before it as it is outside
            training, batch norm's statistics too; -1 for all epochs.
        unfreeze_epochs: Epochs after these over which the layers are unfrozen, from the head down; 1 for all at once.
            Howard and Ruder, Universal Language Model Fine-tuning for Text Classification, 2018 (section 3.3).
        layer_decay: What each layer's learning rate is multiplied by from the head down, in (0, 1].
        views: Test-time augmentation: what the net sees of an image outside training (see `tta_logits`): the image as
            it is, also its mirror image, or both of them shifted too.
        channels_last: Keep images and weights as NHWC in memory, which convolutions prefer on CPUs and GPUs alike.
        compile: Let `torch.compile` fuse the net's operations in training: minutes at the start, for a faster step.
        init_from: A checkpoint of an earlier run to take the net's weights from, as far as names and shapes match;
            other classes get a new head. A new run begins; to continue one, give --ckpt_path.
        confidence_threshold: Predictions of at least this probability count as confident; set by `calibrate
            --target_accuracy` and, like the temperature, reset when training continues.
    """

    data_description: DataDescription
    """What it was or is trained on; None before the first `setup`."""
    net: nn.Module
    task: Task
    loss: nn.Module

    def __init__(
        self,
        net: NetCallable = ConvNet,
        optimizer: OptimizerCallable = torch.optim.Adam,
        scheduler: LRSchedulerCallable | None = None,
        task: Callable[[Target], Task] | None = None,
        loss: Callable[[], nn.Module] | None = None,
        metrics: Sequence[Callable[[], Metric]] | None = None,
        label_smoothing: float = 0.0,
        class_weights: list[float] | Literal["balanced"] | None = None,
        freeze_epochs: int = 0,
        unfreeze_epochs: int = 1,
        layer_decay: float = 1.0,
        tta: TestTimeAugmentation = "none",
        channels_last: bool = True,
        compile: bool = False,
        init_from: str | None = None,
        confidence_threshold: float | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name in BUILDERS:
            self.hparams[name] = to_spec(self.hparams[name])
        self.hparams.setdefault("_instantiator", "lightning.pytorch.cli.instantiate_module")
        self._build: dict[str, Any] = {
            **{"net": net, "optimizer": optimizer, "scheduler": scheduler},
            **{"task": task, "loss": loss, "metrics": metrics or []},
        }
        self._loss_options = {"label_smoothing": label_smoothing, "class_weights": class_weights}
        self.tta, self.confidence_threshold = tta, confidence_threshold
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.compiled = compile
        if not 0 <= label_smoothing < 1:
            raise UserError(f"model.label_smoothing must be at least 0 and below 1, got {label_smoothing}")
        if unfreeze_epochs < 1 or not 0 < layer_decay <= 1:
            raise UserError("model.unfreeze_epochs must be at least 1, and model.layer_decay above 0 and at most 1")
        self._freezing, self._layer_decay = Freezing(freeze_epochs, unfreeze_epochs), layer_decay
        self.data_description = None  # type: ignore[assignment]
        self._init_from, self._restored = init_from, False
        self._features: FeatureCache | None = None
        self.results: dict[Split, StageResult] = {}
        """The latest whole epoch of each stage."""

    def __getstate__(self) -> dict[str, Any]:
        """A copy, such as the one that averaged weights live in, does without the builders, which cannot be copied."""
        return super().__getstate__() | {"_build": {}}

    def set_data_description(self, description: DataDescription, restored: bool = False) -> None:
        """Take the data's description; `restored` where weights of a checkpoint follow, so that none are drawn."""
        self.data_description, self._restored = description, restored
        self.preprocess = builder(description.input.preprocess)(description.input)
        self.task = (self._build["task"] or builder(description.target.task))(description.target)
        if self._build["loss"] is None:
            self.loss = self.task.build_loss(self._loss_options)
        else:
            reject_loss_options(self._loss_options, "a model.loss of your own")
            self.loss = self._build["loss"]()
        made = [build_metric() for build_metric in self._build["metrics"]]
        extra = {type(metric).__name__: metric for metric in made}
        if len(extra) < len(made):
            raise UserError(f"model.metrics: two of {', '.join(type(m).__name__ for m in made)} have one name")
        metrics = {"train": {}, "val": extra, "test": {**self.task.test_metrics(), **extra}}
        self.metrics: Any = nn.ModuleDict(
            {f"{stage}_metrics": nn.ModuleDict({k: m.clone() for k, m in of.items()}) for stage, of in metrics.items()}
        )
        self.sums = nn.ModuleDict({"train_sums": self.task.training_metric()})
        if self.tta != "none" and not isinstance(description.input, ImageInput):
            raise UserError(f"model.tta {self.tta} is for images: leave it out")

    def setup(self, stage: str) -> None:
        """Adopt the data's description on the first `fit`; on a continued one, insist that it is the same."""
        if stage != "fit":
            return
        found, known = data_of(self.trainer).description, self.data_description
        if known is None:
            self.set_data_description(found)
        elif known.target != found.target or not _same_shape(known.input, found.input):
            raise UserError(
                f"the checkpoint was trained on {known.target} at {known.input} pixels, but the data has {found.target}"
                f" at {found.input} pixels, or others: continue on the same data"
            )
        elif known.fingerprint != found.fingerprint:
            raise UserError(
                f"the images in {data_of(self.trainer).folder} or their splits changed since the checkpoint was"
                " made: continue on the same images, or start a new run"
            )

    def configure_model(self) -> None:
        """Build the net once its classes are known; a new run's begins from the images or weights that it asks for."""
        if hasattr(self, "net"):
            return
        fitting = self._trainer is not None and self.trainer.state.fn == "fit"
        if fitting:
            self.setup("fit")  # a callback that averages weights wants the model before its `setup`
        if self.data_description is None:
            if self._trainer is None:
                return  # `on_load_checkpoint` brings the description
            raise UserError("this model was never trained: train it with `fit`, or give a checkpoint")
        net = build_net(self._build["net"], self.data_description.target.outputs, self.data_description.input)
        self.net = net if self.device_mesh else net.to(memory_format=self.memory_format)
        if not self._restored:
            if fitting and (init := getattr(net, "init_from_images", None)) is not None:
                init(self._normalize(data_of(self.trainer).sample(5000).inputs))
            if (known := load_initial_weights(net, self._init_from, self.data_description)) is not None:
                self.set_data_description(replace(self.data_description, input=known))
        if self._freezing.epochs < 0:
            self._freezing(net, 0)  # for good: neither the optimizer nor other processes need to know of them
        if self.device_mesh is not None:
            shard(net, self.device_mesh["data_parallel"])
        if fitting and self.compiled:
            # CUDA graphs write gradients over those of the step before, so that none can be accumulated.
            sums = any(isinstance(callback, GradientAccumulationScheduler) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
            graphs = self.trainer.strategy.root_device.type == "cuda" and self.trainer.accumulate_grad_batches == 1
            # The module's own method keeps the names of the weights.
            net.compile(dynamic=False, mode="reduce-overhead" if graphs and not sums else None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the data's description, and what an unfinished epoch has counted so far, on each process."""
        checkpoint["format_version"] = FORMAT_VERSION
        checkpoint["data_description"] = self.data_description.to_dict()
        checkpoint["counted"] = {
            name: cast(Tensor, self.all_gather(value)).reshape(-1, *value.shape)
            for name, value in self._sums("train").sums().items()
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the description, unless the command line brought it, and the sums of an unfinished epoch.

        `load_from_checkpoint` has put what it built in the place of plain hyperparameters: they are taken back.
        """
        if self._trainer is None:
            self.hparams.update({name: checkpoint["hyper_parameters"][name] for name in BUILDERS})
        if self.data_description is None:
            self.set_data_description(DataDescription.from_dict(checkpoint["data_description"]), restored=True)
            self.configure_model()
        if self._trainer is not None and "counted" in checkpoint:
            rank, world = self.trainer.global_rank, self.trainer.world_size  # which may be another than it was
            mine = {name: values[rank::world].sum(0) for name, values in checkpoint["counted"].items()}
            self._sums("train").resume(mine)

    def forward(self, inputs: Tensor) -> Tensor:
        """Raw inputs, of images uint8 in [0, 255] or float in [0, 1], (N, 3, H, W), to outputs (N, outputs)."""
        return tta_logits(self.net, self._normalize(inputs), "none" if self.training else self.tta)

    def predictions(self, inputs: Tensor) -> Tensor:
        """Raw inputs as in `forward` to what every use gives, such as probabilities, float32 (N, outputs)."""
        outputs: Tensor = self(inputs)
        return self.task.predict(self.task.calibrated(outputs.float()))

    def _normalize(self, inputs: Tensor) -> Tensor:
        x: Tensor = self.preprocess(inputs)
        return x.contiguous(memory_format=self.memory_format) if x.ndim == 4 else x

    def on_fit_start(self) -> None:
        """Where the head alone is trained, on images that are the same each time, keep what comes before it."""
        data = data_of(self.trainer)
        constant = self._freezing.epochs < 0 and self.tta == "none" and not data.augments
        if constant and not self.compiled and self.device_mesh is None:
            self._features = FeatureCache(self.net, data.size)

    def on_fit_end(self) -> None:
        """Let go of them."""
        self._features = None

    @property
    def _stage(self) -> Split:
        return "test" if self.trainer.testing else "train" if self.trainer.training else "val"

    def _sums(self, stage: Split) -> LossMetric:
        """What counts a stage; that of an evaluation is made when it is needed."""
        if f"{stage}_sums" not in self.sums:
            self.sums[f"{stage}_sums"] = self.task.evaluation_metric().to(self.device)
        return cast(LossMetric, self.sums[f"{stage}_sums"])

    def _step(self, batch: Batch, stage: Split) -> tuple[Tensor, Tensor]:
        """Count a batch; its mean loss and its outputs, calibrated outside training."""
        if self._features is None:
            outputs = self(batch.inputs).float()
        else:
            outputs = self._features(batch.index, lambda: self._normalize(batch.inputs)).float()
        if stage != "train":
            outputs = self.task.calibrated(outputs)
        loss = self.loss(outputs, batch.target)
        # In training such a loss stops the run, or its batch is skipped and does not count.
        self._sums(stage).update(loss, outputs, batch.target, only_finite=stage == "train")
        return loss, outputs

    def on_train_start(self) -> None:
        """Freeze layers where a run begins or goes on."""
        strategy = self.trainer.strategy
        several = isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters")
        if self._freezing.epochs > 0 and several:
            raise UserError(
                "model.freeze_epochs on several devices: add --trainer.strategy ddp_find_unused_parameters_true"
            )
        check_schedule_length(self.trainer)
        self.on_train_epoch_start()
        # What `calibrate` found holds for the weights as they were.
        self.task.reset_calibration()
        self.confidence_threshold = self.hparams["confidence_threshold"] = None

    def on_train_epoch_start(self) -> None:
        """Freeze what this epoch freezes."""
        if self._freezing.epochs > 0:
            self._freezing(self.net, self.current_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss of the batch, times the batch's part in its optimizer step.

        Lightning takes the plain mean of the gradients of processes and accumulated batches, however many images each
        had. Weighed, they add up to the mean over all images of the step, as one process would see them in one batch.
        """
        trainer, loss = self.trainer, self._step(batch, "train")[0]
        if (images := data_of(trainer).samples_in_step(batch_idx)) is None:
            return loss
        return loss * (len(batch.index) / (images / (trainer.world_size * trainer.accumulate_grad_batches)))

    def on_validation_start(self) -> None:
        """Let all processes judge, and the checkpoint hold, the same net."""
        average_buffers(self.net)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Count one batch of the test or val split; predictions, float32 (N, outputs)."""
        found = self.task.predict(self._step(batch, self._stage)[1])
        for metric in self.metrics[f"{self._stage}_metrics"].values():
            metric.update(found, batch.target)
        return found

    validation_step = test_step

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Predictions, float32 (N, outputs)."""
        return self.predictions(batch.inputs)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Have a run that ends in the middle of an epoch, by `max_steps`, validated as any other."""
        if 0 <= self.trainer.max_steps <= self.trainer.global_step:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        """Log loss, acc and so on of the stage that ends."""
        stage = self._stage
        result = self._sums(stage).compute()
        self.results[stage] = result
        self._sums(stage).reset()
        for name, metric in self.metrics[f"{stage}_metrics"].items():
            result.scalars[name] = metric.compute()
            metric.reset()
        self.log_dict({f"{stage}/{name}": value for name, value in result.scalars.items()})

    on_validation_epoch_end = on_train_epoch_end
    on_test_epoch_end = on_train_epoch_end

    def configure_optimizers(self) -> Any:
        """The optimizer, over groups of parameters by role, and the schedule."""
        optimizer = make_optimizer(self.hparams["optimizer"], self._build["optimizer"], self.net, self._layer_decay)
        if self._build["scheduler"] is None:
            return optimizer
        schedule = make_schedule(self.hparams["scheduler"], self._build["scheduler"], optimizer, self.trainer)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Move the schedule on; where the run has a time limit, after planning it anew now and then."""
        if isinstance(scheduler, WarmupDecay):
            plan_to_end(scheduler, self.trainer)
        super().lr_scheduler_step(scheduler, metric)


def _same_shape(known: Input, found: Input) -> bool:
    """Whether two inputs are the same, but for the statistics: a pretrained network has its own."""
    if isinstance(known, ImageInput) and isinstance(found, ImageInput):
        found = replace(found, mean=known.mean, std=known.std)
    return known == found
