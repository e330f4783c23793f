"""Commands with a Trainer: LightningCLI instantiates model, data and Trainer, and the command's function is called."""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

from project.callbacks import (
    BestCheckpoint,
    Console,
    Figures,
    LastCheckpoint,
    Monitor,
    NonFiniteGuard,
    PredictionTable,
    ProgressBar,
    TestSummary,
)
from project.cli import commands
from project.cli.plan import Plan, check_file, make_plan
from project.cli.train_parser import TrainParser, class_of, nulls_as_configs
from project.datamodules import ImageDataModule
from project.datamodules.base import DataModule
from project.datamodules.indexed import IndexedDataModule
from project.errors import TRACKERS, Interrupted, UserError, translate_errors
from project.interface import DataDescription
from project.machine import default_precision, keep_freed_memory
from project.modules import Classifier
from project.output import silence_lightning
from project.runs.checkpoints import DurableCheckpointIO
from project.runs.folder import run_folder
from project.runs.job import Evaluation, Job, Trained, Training, Untrained
from project.runs.logger import RunLogger, create_logger
from project.runs.options import flatten
from project.runs.provenance import SaveRun
from project.runs.resume import DATA, MODULE, describe_checkpoint, is_other_dataset
from project.runs.trackers import configure_trackers

COUNTS = (
    "accumulate_grad_batches",
    "check_val_every_n_epoch",
    "limit_train_batches",
    "log_every_n_steps",
    "max_epochs",
)
"""Options of the Trainer that must not be zero."""
MISTAKES = (UserError, MisconfigurationException, ModuleNotFoundError)
CKPT_PATH = {
    Training: "Run to resume: a checkpoint file, or best or last for the newest run; resume for the newest run"
    " of this run_name, or for a new one",
    Untrained: "Not supported by this command",
    Trained: "A trained model: a file, or best or last for the newest run",
}


def run(name: str, command: Callable[..., Any], kind: type[Job], args: list[str]) -> None:
    """Instantiate what a command needs, by the type of its first parameter, and call it."""
    silence_lightning()
    torch.set_float32_matmul_precision("high")
    try:
        cli = CLI(name, command, kind, make_plan(name, kind, args))
        cli.call()
    except MisconfigurationException as error:
        raise UserError(str(error)) from error
    except Interrupted as stopped:
        if getattr(rank_zero_only, "rank", 0):
            raise SystemExit(stopped.code) from None  # the first process prints the message
        raise
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # its threads can abort the interpreter at exit


class CLI(LightningCLI):
    """LightningCLI for one command, with one order of precedence (see `Plan`) and one folder per run."""

    def __init__(self, name: str, command: Callable[..., Any], kind: type[Job], plan: Plan) -> None:
        self.name, self.command, self.kind, self.plan = name, command, kind, plan
        # --help lists the options of the chosen classes; otherwise the parser accepts any subclass.
        helping = any(arg in ("-h", "--help") for arg in plan.args)
        self.chosen = {
            key: class_of(plan.options_given.get(key) or plan.defaults.get(key, {}).get("class_path"), default)
            for key, default in (("model", Classifier), ("data", ImageDataModule))
        }
        super().__init__(
            model_class=self.chosen["model"] if helping else LightningModule,
            datamodule_class=self.chosen["data"] if helping else DataModule,
            subclass_mode_model=not helping,
            subclass_mode_data=not helping,
            save_config_callback=SaveRun,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults={"enable_model_summary": False},
            seed_everything_default=0,
            parser_class=TrainParser,
            parser_kwargs={
                "allow_abbrev": False,
                "prog": f"train.py {name}",
                "usage": f"train.py {name} [options]",
                "description": (inspect.getdoc(command) or "").partition("\n\nArgs:")[0].partition("\n\nRaises:")[0],
            },
            auto_configure_optimizers=False,
            run=False,
        )

    def call(self) -> None:
        """Call the command; remove the run's folder if nothing was written to it."""
        job = self.kind(self.trainer, self.model, self.datamodule, self.plan.checkpoint)
        own = {option: self.config_init[option] for option in list(inspect.signature(self.command).parameters)[1:]}
        data = self.datamodule
        if commands.commands()[self.name][3:] and not isinstance(data, IndexedDataModule):
            fitting = "an ImageDataModule or a DatasetModule"
            raise UserError(f"{self.name} is for {fitting}, and data is a {type(data).__name__}")
        try:
            with translate_errors(getattr(data, "batch_size", 0), str(getattr(data, "input", ""))):
                self.command(job, **own)
        finally:
            if self.logger and (issubclass(self.kind, Untrained) or sys.exception()):
                self.logger.discard_if_empty()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the command's own options and the options of every run: checkpoints, run name, non-finite losses."""
        parser.chosen = self.chosen  # type: ignore[attr-defined]
        first, groups = next(iter(inspect.signature(self.command).parameters)), list(parser._action_groups)
        parser.add_function_arguments(self.command, skip={first, "test_after_fit"})
        own = parser._action_groups[len(groups) :]
        parser._action_groups = [*groups[:2], *own, *groups[2:]]  # --help lists the command's own options first
        about = CKPT_PATH[next(kind for kind in self.kind.__mro__ if kind in CKPT_PATH)]
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=about)
        parser.add_argument(
            "--run_name", type=str | None, default=None, help="Name of the run: its folder is ROOT/NAME/version_N"
        )
        # All commands accept the config of a `fit`.
        parser.add_argument("--test_after_fit", type=bool, default=True, help="Test the best checkpoint after fit")
        for name, (_, about) in commands.options().items():
            parser.add_argument(f"--{name}", type=str | None, default=None, help=about)
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last")
        parser.add_lightning_class_args(NonFiniteGuard, "guard")
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
                "trainer.default_root_dir": "logs",
            }
        )
        if self.subclass_mode_model:
            # The chosen class, as the parser would keep the defaults of another one for arguments of the same name.
            paths = {key: f"{chosen.__module__}.{chosen.__qualname__}" for key, chosen in self.chosen.items()}
            paths |= {"model": MODULE} if self.chosen["model"] is Classifier else {}
            paths |= {"data": DATA} if self.chosen["data"] is ImageDataModule else {}
            parser.set_defaults({key: {"class_path": path} for key, path in paths.items()} | self.plan.defaults)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments, check them against the checkpoint, and print which model is used."""
        self.config = parser.parse_args(nulls_as_configs(self.plan.args) if self.subclass_mode_model else ["--help"])
        config, path = self.config, self.plan.checkpoint
        config["ckpt_path"] = None if path is None else str(path)
        for name in ("init_from",) if issubclass(self.kind, Trained) else ("init_from", "teacher"):
            if file := config.model.init_args.get(name):
                check_file(Path(file), config)
        if path is not None and issubclass(self.kind, Trained):
            rank_zero_only(print)(describe_checkpoint(path, self.plan.saved))
        elif path is not None:
            self.plan.check(config)

    def before_instantiate_classes(self) -> None:
        """Remove `source` if root or table are given, so that the saved config records the data that is used."""
        data = self.config.data.init_args
        if data.get("source") and (data.get("root") or data.get("table")):
            data.source = None

    def instantiate_classes(self) -> None:
        """Instantiate data, model and Trainer; a UserError that a class raises is not hidden by the parser's."""
        self.logger = self._run_logger()
        self.saved_config = self.config
        if self.logger:  # the names and IDs of tracker runs are not saved: a new run from config.yaml needs its own
            self.config = self.config.clone()
        try:
            if self.logger:
                configure_trackers(self.config.trainer.logger, Path(self.logger.log_dir), self._continued is not None)
            super().instantiate_classes()
        except BaseException as error:
            if self.logger:
                self.logger.discard_if_empty()
            if not isinstance(error, ValueError):
                raise
            cause: BaseException | None = error  # the parser wraps it in the errors of the types that it tried
            while cause and not (isinstance(cause, MISTAKES) or type(cause).__module__.startswith(TRACKERS)):
                cause = cause.__cause__ or cause.__context__
            raise cause or UserError(str(error)) from error
        if self.plan.checkpoint is not None:
            self.model.set_data_description(
                DataDescription.from_dict(self.plan.saved["data_description"]), restored=True
            )
        if issubclass(self.kind, Trained):
            self.datamodule.is_other |= is_other_dataset(self.datamodule.hparams, self.plan.saved)

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"seed_everything: {error}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create the Trainer with defaults for the machine, the run's logger first, and the project's callbacks."""
        self.config = self.saved_config
        config, fitting = self.config_init["trainer"], issubclass(self.kind, Training)
        for name in COUNTS:
            if config[name] is not None and (config[name] == 0 or (config[name] < 0 and name != "max_epochs")):
                raise UserError(f"trainer.{name} {config[name]}: give a number above 0, or leave it out")
        if self.config.checkpoint.mode == "max" and str(self.config.checkpoint.monitor).endswith("loss"):
            monitor = self.config.checkpoint.monitor
            raise UserError(f"checkpoint.monitor {monitor} would keep the highest loss: add --checkpoint.mode min")
        if config.precision is None:
            kwargs["precision"] = default_precision(config.accelerator)
        if config.benchmark is None and not config.deterministic:
            kwargs["benchmark"] = True  # inputs have one size: cuDNN can time its algorithms once and keep the fastest
        if config.enable_progress_bar is None:
            kwargs["enable_progress_bar"] = sys.stdout.isatty()
        self.trainer_defaults["callbacks"] = [
            PredictionTable(),
            Console(),
            Monitor(),
            Figures(),
            TestSummary(),
        ]
        self.trainer_defaults["callbacks"] += commands.callbacks()
        if kwargs.get("enable_progress_bar", config.enable_progress_bar):
            self.trainer_defaults["callbacks"].append(ProgressBar())
        if issubclass(self.kind, Trained) and not issubclass(self.kind, Evaluation):
            kwargs |= {"logger": False, "devices": 1 if config.devices == "auto" else config.devices}
        elif self.logger:
            parts = {key: self.config_dump[key] for key in ("model", "data", "trainer")}
            self.logger.hyperparameters = flatten({key: part.get("init_args", part) for key, part in parts.items()})
            trackers = [] if config.logger in (None, True) else config.logger
            kwargs["logger"] = [self.logger, *(trackers if isinstance(trackers, list) else [trackers])]
        kept = self.config_init["checkpoint"]
        if fitting and self.config.checkpoint.save_top_k != 1 and self.config.checkpoint.filename == "best":
            kept.filename = "best-{epoch}"
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except Exception as error:
            if "more than one stateful callback" not in str(error):
                raise
            raise UserError(
                f"{error.args[0].partition('. ')[0]}: the config, or the config of the run to continue, already has"
                " one; change it by its options alone, such as --trainer.callbacks.patience 7"
            ) from None
        # `trainer.checkpoint_callback` is the first ModelCheckpoint: `best` must be ours.
        trainer.callbacks.sort(key=lambda c: isinstance(c, ModelCheckpoint) and c is not kept)  # type: ignore[attr-defined]
        trainer.strategy.checkpoint_io = DurableCheckpointIO()
        if trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        return trainer

    @property
    def _continued(self) -> Path | None:
        """Folder of the run that is resumed; None for a new one."""
        continues = self.plan.checkpoint and issubclass(self.kind, Training)
        return run_folder(self.plan.checkpoint) if self.plan.checkpoint and continues else None

    def _run_logger(self) -> RunLogger | None:
        """Return the logger of a new or resumed run; None if nothing is logged."""
        trainer, fitting = self.config.trainer, issubclass(self.kind, Training)
        logs = not issubclass(self.kind, Trained) or issubclass(self.kind, Evaluation)
        if not logs or trainer.logger is False or trainer.fast_dev_run:
            return None
        name = (self.config.run_name or "run") if fitting else self.name
        step = self.plan.saved.get("global_step") if fitting else None
        return create_logger(Path(trainer.default_root_dir), name, self._continued, step)
