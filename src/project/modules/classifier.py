"""The LightningModule: net, input normalisation, loss, optimizer, metrics."""

from dataclasses import asdict, replace
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from project.errors import UserError
from project.interface import Batch, DataDescription, ImageClassifier, Split, StageResult, image_data
from project.modules.convnet import ConvNet
from project.modules.distributed import average_statistics, shard
from project.modules.features import FeatureStore
from project.modules.freezing import Freezing
from project.modules.initialise import take_weights
from project.modules.optimization import make_optimizer, make_schedule, refuse_another_length
from project.modules.schedule import WarmupDecay, plan_to_end
from project.modules.scores import Scores
from project.modules.spec import NetCallable, build_net, plain
from project.modules.views import Views, mean_logits


class Classifier(ImageClassifier):
    """Trains a net to classify images; a raw uint8 RGB image is all it needs, in training and ever after.

    The number of classes, their names, the image size and the channel statistics are never typed: `fit` adopts them
    from the datamodule, and the checkpoint carries them on.

    Args:
        net: The network, built with (num_classes, image_size) from the data; float NCHW in, logits out.
        optimizer: The optimizer; its weight decay (L2) spares biases and norms.
        scheduler: Learning-rate schedule. One that takes `total_steps` is given the length of the run and moves
            each step; any other moves each epoch (ReduceLROnPlateau on its `monitor`).
        label_smoothing: Share of the label spread evenly over all classes, in [0, 1).
        class_weights: Weight of each class in the loss, in the order of the class names; or `balanced`, which gives
            every class the same share of it: images / (classes x images of the class).
        freeze_epochs: Epochs at the beginning in which only the head is trained, with all before it as it is outside
            training, batch norm's statistics too; -1 for all epochs.
        unfreeze_epochs: Epochs after these over which the layers are unfrozen, from the head down; 1 for all at once.
            Howard and Ruder, Universal Language Model Fine-tuning for Text Classification, 2018 (section 3.3).
        layer_decay: What each layer's learning rate is multiplied by from the head down, in (0, 1].
        views: Test-time augmentation: what the net sees of an image outside training (see `mean_logits`): the image as
            it is, also its mirror image, or both of them shifted too.
        channels_last: Keep images and weights as NHWC in memory, which convolutions prefer on CPUs and GPUs alike.
        compile: Let `torch.compile` fuse the net's operations in training: minutes at the start, for a faster step.
        init_from: A checkpoint of an earlier run to take the net's weights from, as far as names and shapes match;
            other classes get a new head. A new run begins; to continue one, give --ckpt_path.
        sure_above: The probability from which `predict` calls an image sure; found by `calibrate --target_accuracy`
            and, as the temperature is, forgotten where training goes on.
        data_description: Found in the data on `fit` and read from the checkpoint afterwards; leave it out.
    """

    mean: Tensor
    std: Tensor
    temperature: Tensor
    class_weights: Tensor | None

    def __init__(
        self,
        net: NetCallable = ConvNet,
        optimizer: OptimizerCallable = torch.optim.Adam,
        scheduler: LRSchedulerCallable | None = None,
        label_smoothing: float = 0.0,
        class_weights: list[float] | Literal["balanced"] | None = None,
        freeze_epochs: int = 0,
        unfreeze_epochs: int = 1,
        layer_decay: float = 1.0,
        views: Views = "one",
        channels_last: bool = True,
        compile: bool = False,
        init_from: str | None = None,
        sure_above: float | None = None,
        data_description: DataDescription | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name in ("net", "optimizer", "scheduler"):
            self.hparams[name] = plain(self.hparams[name])
        self.hparams.setdefault("_instantiator", "lightning.pytorch.cli.instantiate_module")
        self._build_net, self._build_optimizer, self._build_scheduler = net, optimizer, scheduler
        self.label_smoothing, self.views, self.sure_above = label_smoothing, views, sure_above
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._compile = compile
        if not 0 <= label_smoothing < 1:
            raise UserError(f"model.label_smoothing must be at least 0 and below 1, got {label_smoothing}")
        if unfreeze_epochs < 1 or not 0 < layer_decay <= 1:
            raise UserError("model.unfreeze_epochs must be at least 1, and model.layer_decay above 0 and at most 1")
        self._freezing, self._layer_decay = Freezing(freeze_epochs, unfreeze_epochs), layer_decay
        self.data_description = None
        self._init_from = init_from
        self._restored = data_description is not None  # such a model comes from a checkpoint, which has its weights
        self.net: nn.Module | None = None
        self._features: FeatureStore | None = None
        self.results: dict[Split, StageResult] = {}
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("std", torch.ones(1, 3, 1, 1))
        self.register_buffer("temperature", torch.ones(()))
        self._wanted_weights = class_weights
        self.register_buffer("class_weights", None, persistent=False)
        if data_description is not None:
            self._adopt(data_description)

    def __getstate__(self) -> dict[str, Any]:
        """A copy, such as the one that averaged weights live in, does without the builders, which cannot be copied."""
        return super().__getstate__() | dict.fromkeys(("_build_net", "_build_optimizer", "_build_scheduler"))

    def _adopt(self, description: DataDescription) -> None:
        self.data_description = description
        self.hparams["data_description"] = asdict(description)
        self.mean = torch.tensor(description.mean).view(1, 3, 1, 1)
        self.std = torch.tensor(description.std).view(1, 3, 1, 1)
        classes = len(description.class_names)
        self.scores = nn.ModuleDict({f"{stage}_scores": Scores(classes) for stage in ("train", "val", "test")})
        weights = self._wanted_weights
        if weights == "balanced":
            weights = [sum(description.train_counts) / (classes * count) for count in description.train_counts]
        if weights is not None:
            if len(weights) != classes:
                raise UserError(f"model.class_weights has {len(weights)} values, but the data has {classes} classes")
            self.class_weights = torch.tensor(weights, dtype=torch.float32)

    def setup(self, stage: str) -> None:
        """Adopt the data's description on the first `fit`; on a continued one, insist that it is the same."""
        if stage != "fit":
            return
        found, known = image_data(self.trainer).description, self.data_description
        if known is None:
            self._adopt(found)
        elif known.class_names != found.class_names or known.image_size != found.image_size:
            raise UserError(
                f"the checkpoint was trained on classes {known.class_names} at {known.image_size} pixels, but the data "
                f"has classes {found.class_names} at {found.image_size} pixels: continue on the same data"
            )
        elif known.fingerprint != found.fingerprint:
            raise UserError(
                f"the images in {image_data(self.trainer).folder} or their splits changed since the checkpoint was"
                " made: continue on the same images, or start a new run"
            )

    def configure_model(self) -> None:
        """Build the net once its classes are known."""
        if self.net is None:
            if self._trainer is not None and self.trainer.state.fn == "fit":
                self.setup("fit")  # a callback that averages weights wants the model before its `setup`
            if self.data_description is None:
                raise UserError("this model was never trained: train it with `fit`, or give a checkpoint")
            classes, size = len(self.data_description.class_names), self.data_description.image_size
            net = build_net(self._build_net, classes, size)
            self.net = net if self.device_mesh else net.to(memory_format=self.memory_format)
            self._prepare_net(self.net)

    def _prepare_net(self, net: nn.Module) -> None:
        fitting = self._trainer is not None and self.trainer.state.fn == "fit"
        if not self._restored:
            if fitting and (init := getattr(net, "init_from_images", None)) is not None:
                init(self._normalise(image_data(self.trainer).sample(5000).image))
            assert self.data_description is not None
            if (known := take_weights(net, self._init_from, self.data_description.class_names)) is not None:
                self._adopt(replace(self.data_description, mean=known[0], std=known[1]))
        if self._freezing.epochs < 0:
            self._freezing(net, 0)  # for good: neither the optimizer nor other processes need to know of them
        if self.device_mesh is not None:
            shard(net, self.device_mesh["data_parallel"])
        if fitting and self._compile:
            # CUDA graphs write gradients over those of the step before, so that none can be accumulated.
            sums = any(isinstance(callback, GradientAccumulationScheduler) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
            graphs = self.trainer.strategy.root_device.type == "cuda" and self.trainer.accumulate_grad_batches == 1
            # The module's own method keeps the names of the weights.
            net.compile(dynamic=False, mode="reduce-overhead" if graphs and not sums else None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the metrics of an unfinished epoch have counted so far, on each process."""
        counted = cast(Scores, self.scores["train_scores"]).counted()
        checkpoint["counted"] = {
            name: cast(Tensor, self.all_gather(value)).reshape(-1, *value.shape) for name, value in counted.items()
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back the plain hyperparameters where `load_from_checkpoint` has put what it built from them."""
        for name in ("net", "optimizer", "scheduler"):
            if callable(self.hparams[name]):
                self.hparams[name] = checkpoint["hyper_parameters"][name]
        if self._trainer is not None and "counted" in checkpoint:
            rank, world = self.trainer.global_rank, self.trainer.world_size  # which may be another than it was
            mine = {name: values[rank::world].sum(0) for name, values in checkpoint["counted"].items()}
            cast(Scores, self.scores["train_scores"]).count_on(mine)

    def forward(self, image: Tensor) -> Tensor:
        """Images, uint8 in [0, 255] or float in [0, 1], (N, 3, H, W), to logits (N, classes)."""
        net = cast(nn.Module, self.net)
        return mean_logits(net, self._normalise(image), "one" if self.training else self.views)

    def probabilities(self, image: Tensor) -> Tensor:
        """Images as in `forward` to calibrated probabilities, float32 (N, classes): what every use of a model gives."""
        logits: Tensor = self(image)
        return (logits.float() / self.temperature).softmax(1)

    def _normalise(self, image: Tensor) -> Tensor:
        x = image.to(self.mean.dtype, memory_format=self.memory_format)
        if not image.is_floating_point():
            x = x / 255
        return (x - self.mean) / self.std

    def on_fit_start(self) -> None:
        """Where the head alone is trained, on images that are the same each time, keep what comes before it."""
        data = image_data(self.trainer)
        constant = self._freezing.epochs < 0 and self.views == "one" and not data.augments
        if constant and not self._compile and self.device_mesh is None:
            self._features = FeatureStore(cast(nn.Module, self.net), data.size)

    def on_fit_end(self) -> None:
        """Let go of them."""
        self._features = None

    def _step(self, batch: Batch, stage: Split) -> tuple[Tensor, Tensor]:
        """Count a batch; its mean loss and its logits, calibrated outside training."""
        if self._features is None:
            logits = self(batch.image).float()
        else:
            logits = self._features(batch.index, lambda: self._normalise(batch.image)).float()
        if stage != "train":
            logits = logits / self.temperature
        smoothing = self.label_smoothing if stage == "train" else 0.0
        # Divided by the number of images, not by their weights: batches and processes then add up to the whole.
        total = F.cross_entropy(
            logits, batch.label, weight=self.class_weights, label_smoothing=smoothing, reduction="sum"
        )
        loss = total / max(1, len(logits))  # by chance, private training may draw no image
        # In training such a loss stops the run, or its batch is skipped and does not count.
        cast(Scores, self.scores[f"{stage}_scores"]).update(loss, logits, batch.label, only_finite=stage == "train")
        return loss, logits

    def _finish(self, stage: Split) -> None:
        scores = cast(Scores, self.scores[f"{stage}_scores"])
        self.results[stage] = result = scores.compute()
        scores.reset()
        self.log_dict({f"{stage}/{name}": value for name, value in result.scalars.items()})

    def on_train_start(self) -> None:
        """Freeze layers where a run begins or goes on."""
        strategy = self.trainer.strategy
        several = isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters")
        if self._freezing.epochs > 0 and several:
            raise UserError(
                "model.freeze_epochs on several devices: add --trainer.strategy ddp_find_unused_parameters_true"
            )
        refuse_another_length(self.trainer)
        self.on_train_epoch_start()
        # What `calibrate` found holds for the weights as they were.
        self.temperature.fill_(1)
        self.sure_above = self.hparams["sure_above"] = None

    def on_train_epoch_start(self) -> None:
        """Freeze what this epoch freezes."""
        if self._freezing.epochs > 0:
            self._freezing(cast(nn.Module, self.net), self.current_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy of the batch, times the batch's part in its optimizer step.

        Lightning takes the plain mean of the gradients of processes and accumulated batches, however many images each
        had. Weighed, they add up to the mean over all images of the step, as one process would see them in one batch.
        """
        trainer = self.trainer
        even = image_data(trainer).images_in_step(batch_idx) / (trainer.world_size * trainer.accumulate_grad_batches)
        return self._step(batch, "train")[0] * (len(batch.index) / even)

    def on_validation_start(self) -> None:
        """Let all processes judge, and the checkpoint hold, the same net."""
        average_statistics(cast(nn.Module, self.net))

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Count one batch of the val split; probabilities, float32 (N, classes)."""
        return self._step(batch, "val")[1].softmax(1)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Count one batch of the test split; probabilities, float32 (N, classes)."""
        return self._step(batch, "test")[1].softmax(1)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities, float32 (N, classes)."""
        return self.probabilities(batch.image)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Have a run that ends in the middle of an epoch, by `max_steps`, validated as any other."""
        if 0 <= self.trainer.max_steps <= self.trainer.global_step:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        """Log train/loss, train/acc and so on."""
        self._finish("train")

    def on_validation_epoch_end(self) -> None:
        """Log val/loss, val/acc and so on."""
        self._finish("val")

    def on_test_epoch_end(self) -> None:
        """Log test/loss, test/acc and so on."""
        self._finish("test")

    @property
    def settings(self) -> list[str]:
        """What was chosen for speed, in words."""
        layout = "channels last" if self.memory_format == torch.channels_last else "channels first"
        return [layout, *(["compiled"] if self._compile else [])]

    def configure_optimizers(self) -> Any:
        """The optimizer, over groups of parameters by role, and the schedule."""
        net = cast(nn.Module, self.net)
        optimizer = make_optimizer(self.hparams["optimizer"], self._build_optimizer, net, self._layer_decay)
        if self._build_scheduler is None:
            return optimizer
        schedule = make_schedule(self.hparams["scheduler"], self._build_scheduler, optimizer, self.trainer)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Move the schedule on; where the run has a time limit, after planning it anew now and then."""
        if isinstance(scheduler, WarmupDecay):
            plan_to_end(scheduler, self.trainer)
        super().lr_scheduler_step(scheduler, metric)
