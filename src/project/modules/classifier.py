"""The LightningModule that trains and evaluates a network."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torchmetrics import Metric
from typing_extensions import override

from project.errors import UserError
from project.interface import (
    FORMAT_VERSION,
    Batch,
    DataDescription,
    ImageInput,
    Split,
    Target,
    data_of,
)
from project.modules.distillation import TEMPERATURE, WEIGHT, Teacher, check_options
from project.modules.distributed import average_buffers, shard
from project.modules.feature_cache import FeatureCache
from project.modules.init_weights import load_description, load_initial_weights
from project.modules.inputs import TestTimeAugmentation, tta_logits
from project.modules.layers import Freezing
from project.modules.networks.convnet import ConvNet
from project.modules.optimizers.groups import make_optimizer
from project.modules.optimizers.schedule import WarmupDecay, plan_to_end
from project.modules.optimizers.schedulers import (
    SchedulerCallable,
    SchedulerInterval,
    check_schedule_length,
    make_schedule,
)
from project.modules.probe import check_network
from project.modules.stages import StageMetrics
from project.modules.tasks import Task, reject_loss_options
from project.runs.resume import check_same_data
from project.runs.spec import NetCallable, build_metric, build_net, builder, to_spec

BUILDERS = ("net", "task", "loss", "metrics", "optimizer", "scheduler")
"""Arguments that are callables: what they build depends on the data, e.g. the number of classes."""


class Classifier(L.LightningModule):
    """LightningModule for supervised training; takes raw inputs and normalizes them itself.

    The target, class names, image size and channel statistics come from the datamodule at the start of `fit` and are
    saved in the checkpoint.

    Args:
        net: Network, built with the number of classes and the input description; maps images, float NCHW, to logits.
        optimizer: Optimizer. Weight decay is not applied to biases and normalization layers.
        scheduler: Learning-rate scheduler. One with a `total_steps` argument gets the number of training steps.
        scheduler_interval: When the scheduler is stepped. By default, every step for schedulers with `total_steps`,
            CyclicLR, and CosineAnnealingWarmRestarts, whose `T_0` counts epochs; every epoch for any other, and after
            each validation for ReduceLROnPlateau. If given, all arguments count steps or epochs.
        task: Task (default loss, predictions, metrics), built with the target; by default the one that the target
            names.
        loss: Loss module that maps (outputs, target) to the mean over the batch; by default the loss of the task. E.g.
            FocalLoss or OrdinalLoss for classes, AsymmetricLoss or SigmoidFocalLoss for labels, HuberLoss or L1Loss for
            values.
        metrics: Additional torchmetrics metrics, updated with (predictions, target) in validation and test and logged
            under their class names. A required first argument, such as `num_classes`, is given by the data.
        label_smoothing: Amount of label smoothing of classes or labels, in [0, 1).
        class_weights: Weight of each class in the loss, in the order of the class names, for labels that of present
            ones; or `balanced`, inversely proportional to the class frequency: images / (classes x images of the
            class), for labels images without it / images with it.
        freeze_epochs: Number of epochs at the start in which only the head is trained and all other layers are frozen,
            including their batch norm statistics; -1 freezes them for the whole run.
        unfreeze_epochs: Gradual unfreezing: number of epochs after `freeze_epochs` over which the layers are unfrozen,
            from the head to the input; 1 unfreezes all layers at once. Howard and Ruder, Universal Language Model
            Fine-tuning for Text Classification, 2018 (section 3.3).
        layer_decay: Layer-wise learning-rate decay: factor by which the learning rate is multiplied per layer from the
            head to the input, in (0, 1]; 1 disables it.
        tta: Test-time augmentation: average the logits over the image and its horizontal flip (`flip`), or also over
            both of them translated by one pixel (`flip_translate`).
        channels_last: Whether to use the channels-last (NHWC) memory format, usually faster for convolutions.
        compile: Whether to compile the network with `torch.compile` for training: faster steps, but up to minutes of
            compilation at the start.
        init_from: Checkpoint of an earlier run to initialize the weights from, matched by name and shape; the head is
            new if the classes differ. This starts a new run; use --ckpt_path to resume one.
        teacher: Knowledge distillation: checkpoint of a trained model with the same classes or labels and input, whose
            predictions for the augmented training images are soft targets. The loss is (1 - weight) x loss + weight x
            temperature^2 x KL divergence of the softened probabilities. The file is needed to train and to resume, not
            afterwards. Hinton et al., Distilling the Knowledge in a Neural Network, 2015.
        teacher_temperature: Number above 0 by which the logits of student and teacher are divided for soft targets.
        teacher_weight: Weight of the soft targets in the loss, in [0, 1].
    """

    data_description: DataDescription
    """Description of the training data; None before the first `setup`."""
    net: nn.Module
    task: Task
    loss: nn.Module

    def __init__(
        self,
        net: NetCallable = ConvNet,
        optimizer: OptimizerCallable = torch.optim.Adam,
        scheduler: SchedulerCallable | None = None,
        scheduler_interval: SchedulerInterval | None = None,
        task: Callable[[Target], Task] | None = None,
        loss: Callable[[], nn.Module] | None = None,
        metrics: Sequence[Callable[[], Metric] | Callable[[int], Metric]] | None = None,
        label_smoothing: float = 0.0,
        class_weights: list[float] | Literal["balanced"] | None = None,
        freeze_epochs: int = 0,
        unfreeze_epochs: int = 1,
        layer_decay: float = 1.0,
        tta: TestTimeAugmentation = "none",
        channels_last: bool = True,
        compile: bool = False,
        init_from: str | None = None,
        teacher: str | None = None,
        teacher_temperature: float = TEMPERATURE,
        teacher_weight: float = WEIGHT,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        for name in BUILDERS:
            self.hparams[name] = to_spec(self.hparams[name])
        self.hparams.setdefault("_instantiator", "lightning.pytorch.cli.instantiate_module")
        self._build: dict[str, Any] = {
            **{"net": net, "optimizer": optimizer, "scheduler": scheduler},
            **{"task": task, "loss": loss, "metrics": metrics or []},
        }
        self._scheduler_interval = scheduler_interval
        self._loss_options = {"label_smoothing": label_smoothing, "class_weights": class_weights}
        self.tta = tta
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.compiled = compile
        if not 0 <= label_smoothing < 1:
            raise UserError(f"model.label_smoothing must be at least 0 and below 1, got {label_smoothing}")
        if scheduler_interval and not scheduler:
            raise UserError("model.scheduler_interval needs a model.scheduler")
        if unfreeze_epochs < 1 or not 0 < layer_decay <= 1:
            raise UserError(
                "model.unfreeze_epochs must be at least 1 and model.layer_decay in (0, 1], got"
                f" {unfreeze_epochs} and {layer_decay}"
            )
        check_options(teacher, teacher_temperature, teacher_weight)
        self.teacher: Teacher | None = None  # not a submodule: it is neither trained nor saved
        self._freezing, self._layer_decay = Freezing(freeze_epochs, unfreeze_epochs), layer_decay
        self.data_description = None  # type: ignore[assignment]
        self._init_from, self._restored = init_from, False
        self._features: FeatureCache | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the builders, which cannot be copied (weight averaging copies the module)."""
        return super().__getstate__() | {"_build": {}}

    def set_data_description(self, description: DataDescription, restored: bool = False) -> None:
        """Build the preprocessing, task, loss and metrics for the data.

        Args:
            description: Description of the training data.
            restored: Whether the weights will be loaded from a checkpoint, so that none need to be initialized.
        """
        self.data_description, self._restored = description, restored
        self.preprocess = builder(description.input.preprocess)(description.input)
        self.task = (self._build["task"] or builder(description.target.task))(description.target)
        self.task.sample = description.input.kind
        if self._build["loss"] is None:
            self.loss = self.task.build_loss(self._loss_options)
        else:
            reject_loss_options(self._loss_options, "a custom model.loss")
            self.loss = self.task.use_loss(self._build["loss"]())
        outputs = description.target.outputs
        extra = [self.task.prepare_metric(build_metric(build, outputs)) for build in self._build["metrics"]]
        self.metrics = StageMetrics(self.task, extra)
        if self.tta != "none" and not isinstance(description.input, ImageInput):
            raise UserError(f"model.tta {self.tta} is supported for images only: leave it out")

    def setup(self, stage: str) -> None:
        """Take the data description from the datamodule; when a run resumes, check that the data has not changed."""
        if stage != "fit":
            return
        data = data_of(self.trainer)
        if self.data_description is None:
            self.set_data_description(data.description)
        else:
            check_same_data(self.data_description, data.description, data.folder)
            data.use_input(self.data_description.input)

    def configure_model(self) -> None:
        """Build the network and, in a new run, initialize it from training images or pretrained weights."""
        if hasattr(self, "net"):
            return
        fitting = self._trainer is not None and self.trainer.state.fn == "fit"
        if fitting:
            self.setup("fit")  # weight averaging copies the model before `setup` is called
        if self.data_description is None:
            if self._trainer is None:
                return  # `on_load_checkpoint` sets the description
            raise UserError("the model has not been trained: train it with `train.py fit` or load a checkpoint")
        inputs = self.data_description.input
        if not self._restored and self._init_from is not None:
            inputs = inputs.adopt(load_description(self._init_from).input)
        net = build_net(self._build["net"], self.data_description.target.outputs, inputs)
        self.net = net if self.device_mesh else net.to(memory_format=self.memory_format)
        if not self._restored:
            if fitting and (init := getattr(net, "init_from_images", None)) is not None:
                init(self._normalize(data_of(self.trainer).sample(5000).inputs))
            inputs = load_initial_weights(net, self._init_from, self.data_description)
            if inputs != self.data_description.input:
                self.set_data_description(replace(self.data_description, input=inputs))
                if fitting:
                    data_of(self.trainer).use_input(inputs)
        if self._freezing.epochs < 0:
            self._freezing(net, 0)  # now, so that the optimizer and DDP ignore frozen parameters
        if self.device_mesh is not None:
            shard(net, self.device_mesh["data_parallel"])
        if fitting and self.compiled:
            # CUDA graphs overwrite the gradients of the previous step, so they do not work with accumulation.
            scheduled = any(isinstance(callback, GradientAccumulationScheduler) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
            accumulates = scheduled or self.trainer.accumulate_grad_batches != 1
            cuda_graphs = self.trainer.strategy.root_device.type == "cuda" and not accumulates
            # Compile in place, as torch.compile(net) would change the parameter names.
            net.compile(dynamic=False, mode="reduce-overhead" if cuda_graphs else None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the data description and, per process, the metric states of the current training epoch."""
        checkpoint["format_version"] = FORMAT_VERSION
        checkpoint["data_description"] = self.data_description.to_dict()
        checkpoint["counted"] = {
            name: cast(Tensor, self.all_gather(value)).reshape(-1, *value.shape)
            for name, value in self.metrics.of("train").sums().items()
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the data description, unless already set, and the metric states of an unfinished epoch."""
        if self._trainer is None:  # `load_from_checkpoint` replaced the plain hyperparameters by the built objects
            self.hparams.update({name: checkpoint["hyper_parameters"][name] for name in BUILDERS})
        if self.data_description is None:
            self.set_data_description(DataDescription.from_dict(checkpoint["data_description"]), restored=True)
            self.configure_model()
        if self._trainer is not None and "counted" in checkpoint:
            rank, world = self.trainer.global_rank, self.trainer.world_size  # may differ from the saved run
            states = {name: values[rank::world].sum(0) for name, values in checkpoint["counted"].items()}
            self.metrics.of("train").resume(states)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map raw inputs, for images uint8 in [0, 255] or float in [0, 1], (N, C, H, W), to outputs (N, outputs)."""
        return tta_logits(self.net, self._normalize(inputs), "none" if self.training else self.tta)

    def predictions(self, inputs: Tensor) -> Tensor:
        """Return calibrated predictions, e.g. probabilities, float32 (N, outputs), for raw inputs as in `forward`."""
        outputs: Tensor = self(inputs)
        return self.task.predict(self.task.calibrated(outputs.float()))

    def _normalize(self, inputs: Tensor) -> Tensor:
        x: Tensor = self.preprocess(inputs)
        return x.contiguous(memory_format=self.memory_format) if x.ndim == 4 else x

    def on_fit_start(self) -> None:
        """Check the network and load the teacher; cache the head's inputs if only the head is trained, unaugmented."""
        check_network(self.trainer, self.net, self._normalize, self.data_description.input)
        if self.hparams["teacher"]:
            self.teacher = Teacher(self)
        data = data_of(self.trainer)
        deterministic = self._freezing.epochs < 0 and self.tta == "none" and not data.augments
        if deterministic and not self.compiled and self.device_mesh is None:
            self._features = FeatureCache(self.net, data.rows)

    @override
    def on_fit_end(self) -> None:
        self._features = self.teacher = None

    @property
    def _stage(self) -> Split:
        return "test" if self.trainer.testing else "train" if self.trainer.training else "val"

    def _step(self, batch: Batch, stage: Split) -> tuple[Tensor, Tensor]:
        """Update the metric of the stage; return the mean loss and the outputs, calibrated except in training."""
        if self._features is None:
            outputs = self(batch.inputs).float()
        else:
            outputs = self._features(batch.index, lambda: self._normalize(batch.inputs)).float()
        if stage != "train":
            outputs = self.task.calibrated(outputs)
        loss = self.loss(outputs, batch.target)
        if stage == "train" and self.teacher is not None:
            loss = self.teacher.add_loss(loss, outputs, batch.inputs)
        self.metrics.update(stage, loss, outputs, batch.target)
        return loss, outputs

    def on_train_start(self) -> None:
        """Freeze layers and reset the calibration when training starts or resumes."""
        strategy = self.trainer.strategy
        plain_ddp = isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters")
        if self._freezing.epochs > 0 and plain_ddp:
            raise UserError(
                "model.freeze_epochs above 0 does not work with DDP on several devices: add --trainer.strategy"
                " ddp_find_unused_parameters_true"
            )
        check_schedule_length(self.trainer)
        self.on_train_epoch_start()
        # The calibration is valid for the previous weights only.
        self.task.reset_calibration()
        self.data_description = replace(self.data_description, target=self.task.target)

    def on_train_epoch_start(self) -> None:
        """Freeze and unfreeze layers according to the schedule."""
        if self._freezing.epochs > 0:
            self._freezing(self.net, self.current_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss, weighted by the number of samples in the batch.

        Lightning averages gradients over processes and accumulated batches regardless of their sizes. With the weight,
        the gradient is the mean over all samples of the optimizer step.
        """
        trainer, loss = self.trainer, self._step(batch, "train")[0]
        if (samples := data_of(trainer).samples_in_step(batch_idx)) is None:
            return loss
        return loss * (len(batch.index) / (samples / (trainer.world_size * trainer.accumulate_grad_batches)))

    def on_validation_start(self) -> None:
        """Average the buffers, so that all processes evaluate the network that is saved."""
        average_buffers(self.net)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Update the metrics of the stage; return predictions, float32 (N, outputs)."""
        predictions = self.task.predict(self._step(batch, self._stage)[1])
        self.metrics.update_extra(self._stage, predictions, batch.target)
        return predictions

    test_step = validation_step

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return predictions, float32 (N, outputs)."""
        return self.predictions(batch.inputs)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Stop at `max_steps` in a way that still runs validation, even in the middle of an epoch."""
        if 0 <= self.trainer.max_steps <= self.trainer.global_step:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        """Compute, log and reset the metrics of the current stage."""
        result = self.metrics.finish(self._stage, self.device)
        self.log_dict({f"{self._stage}/{name}": value for name, value in result.scalars.items()})

    on_validation_epoch_end = on_test_epoch_end = on_train_epoch_end

    def configure_optimizers(self) -> Any:
        """Return the optimizer, with parameter groups by role, and the scheduler."""
        optimizer = make_optimizer(self.hparams["optimizer"], self._build["optimizer"], self.net, self._layer_decay)
        if self._build["scheduler"] is None:
            return optimizer
        build, interval = self._build["scheduler"], self._scheduler_interval
        schedule = make_schedule(self.hparams["scheduler"], build, optimizer, self.trainer, interval)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the scheduler; if the run has a time limit, update its length estimate first."""
        if isinstance(scheduler, WarmupDecay):
            plan_to_end(scheduler, self.trainer)
        super().lr_scheduler_step(scheduler, metric)
