"""The command line: `train.py fit | test | predict` and so on. Nothing else in the project reads sys.argv."""

import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

import project.trainer
from project.callbacks import (
    Calibration,
    Console,
    Findings,
    Guard,
    LastCheckpoint,
    Monitor,
    Pictures,
    PredictionTable,
    ProgressBar,
)
from project.callbacks.describe import next_lines
from project.checkpoints import DurableCheckpointIO, load_checkpoint
from project.datamodules import ImageDataModule
from project.errors import RunFinishedError, UserError, errors_as_lines, explain_failures
from project.explain import overlays
from project.interface import test_folder
from project.machine import default_precision, keep_freed_memory
from project.modules import Classifier
from project.output import print_plainly, quieten_lightning
from project.parser import Parser, flatten, in_order, named, without_empty_configs
from project.provenance import SaveRun
from project.report.page import write_report
from project.resume import (
    ORIGIN,
    last_if_any,
    model_line,
    refuse_another_kind,
    refuse_finished,
    requeued_run,
    resolve_checkpoint,
    saved_options,
)
from project.run import RunLogger, logger_of, refuse_odd_name, run_of

FINDERS = ("find_lr", "find_batch_size")
"""Commands that train, but only to find something out."""
WHERE = (
    *("--ckpt_path", "--config", "--require_signature", "--run_name"),
    *("--model", "--model.init_from", "--trainer", "--trainer.default_root_dir"),
)
"""Options that say which run is continued."""
COUNTS = (
    "accumulate_grad_batches",
    "check_val_every_n_epoch",
    "limit_train_batches",
    "log_every_n_steps",
    "max_epochs",
)
"""Options of the Trainer that zero would make meaningless."""
MISTAKES = (UserError, MisconfigurationException)
ON_A_MODEL = ("calibrate", "export", "leak_test", "prune", "robustness")
"""Commands that write beside their checkpoint."""


class TrainParser(Parser, LightningArgumentParser):
    """The parser of train.py."""


class CLI(LightningCLI):
    """LightningCLI with one precedence (command line > configs > checkpoint > defaults) and one folder a run."""

    checkpoint: Path | None = None
    from_step: int | None = None

    def __init__(self, args: list[str] | None = None, **settings: Any) -> None:
        self._args = without_empty_configs(in_order(list(sys.argv[1:] if args is None else args)))
        super().__init__(args=self._args, **settings)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options that belong to no class, and the checkpoints that every run keeps."""
        parser.add_argument("--run_name", type=str | None, default=None, help="The run's folder is ROOT/NAME/version_N")
        parser.add_argument("--test_after_fit", type=bool, default=True, help="Test the best checkpoint after fit")
        needed = "Load a checkpoint only if this public key signed it"
        parser.add_argument("--require_signature", type=str | None, default=None, help=needed)
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last")
        parser.add_lightning_class_args(Guard, "guard")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/acc",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
                "trainer.default_root_dir": "logs",
            }
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The Trainer's methods that are commands, each with the arguments that are not options."""
        loaders = {"model", "dataloaders", "datamodule", "train_dataloaders", "val_dataloaders", "weights_only"}
        ours = {"verbose", "return_predictions"}
        return dict.fromkeys(("fit", "validate", "test", "predict", "explain", *FINDERS, *ON_A_MODEL), loaders | ours)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Give options to the command that is called; those of the others would take a second."""
        if subcommand not in self._args:
            return self.init_parser(**kwargs)
        usage = f"{sys.argv[0]} {subcommand} [options]"  # all of them again would take two screens
        parser = super()._prepare_subcommand_parser(klass, subcommand, usage=usage, **kwargs)
        *groups, own = parser._action_groups
        parser._action_groups = [*groups[:2], own, *groups[2:]]  # the command's own options come first in its help
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, without the warning of LightningCLI where `main` was called from Python."""
        # Until it is known which run goes on, an option of a class that only this run's config names would be unknown.
        continues = self._args[:1] == ["fit"] and any(arg.partition("=")[0] == "--ckpt_path" for arg in self._args)
        shows = any(re.match(r"(-h|--help|--print_config.*)$", arg) for arg in self._args)
        self._looked_at = named(self._args, WHERE) if continues and not shows else self._args
        self.config = parser.parse_args(self._looked_at)

    def _parse_ckpt_path(self) -> None:
        """Put what the checkpoint says beneath the configs and the command line, and name the file it means."""
        command = self.config["subcommand"]
        config = self.config[command]
        refuse_odd_name(config.run_name)
        self._require_signature(config.model.init_from)
        if command in FINDERS:
            if config.ckpt_path:
                raise UserError(f"{command} begins anew: to begin from trained weights, give --model.init_from FILE")
            return
        fitting, root = command == "fit", Path(config.trainer.default_root_dir)
        # A job that is started again comes with its own options.
        restarted = fitting and config.ckpt_path in (None, "", "resume")
        if fitting and config.ckpt_path == "resume":
            config.ckpt_path = last_if_any(root, config.run_name)
        elif restarted:
            config.ckpt_path = requeued_run(root)
        elif fitting and any(arg.partition("=")[0] == "--model.init_from" for arg in self._args):
            raise UserError("--ckpt_path continues a run, --model.init_from begins a new one: give one of them")
        if not config.ckpt_path:
            if not fitting:
                raise UserError(f"{command} needs a trained model: give --ckpt_path FILE, or best or last")
            if self._looked_at != self._args:
                self.config = self.parser.parse_args(self._args)
                self.config[command].ckpt_path = None  # there is none to resume
            return
        self.checkpoint = path = resolve_checkpoint(str(config.ckpt_path), root, config.run_name)
        self._require_signature(path)
        saved, args = load_checkpoint(path), self._args
        if not restarted:
            elsewhere = not fitting and any(config.data[name] for name in ORIGIN)
            self._parser(command).set_defaults(saved_options(saved, elsewhere))
            run = run_of(path)
            if fitting and run and (run / "config.yaml").is_file():
                args = [args[0], "--config", str(run / "config.yaml"), *args[1:]]
        # Nobody types the data description, but a run's own config.yaml holds the null of before it was known.
        known = saved["hyper_parameters"]["data_description"]
        self.config = self.parser.parse_args([*args, "--model.data_description", json.dumps(known)])
        config = self.config[command]
        config["ckpt_path"] = str(path)
        if not fitting:
            if config.data.image_size != known["image_size"]:
                raise UserError(
                    f"{path} was trained on images of {known['image_size']} pixels, which any image is brought to:"
                    " leave --data.image_size out"
                )
            rank_zero_only(print)(model_line(path, saved))
            return
        self.from_step = saved["global_step"]
        refuse_another_kind(path, saved["hyper_parameters"], config.model)
        try:
            refuse_finished(path, saved, config.trainer)
        except RunFinishedError as finished:
            if not restarted:
                raise
            rank_zero_only(print)(finished)  # a job that is started again and again has now reached its end
            raise SystemExit(0) from None

    def _require_signature(self, checkpoint: str | Path | None) -> None:
        key = self.config[self.config["subcommand"]].require_signature
        if checkpoint and key:
            from project.secure.sign import check_signature

            check_signature(Path(checkpoint), Path(key))

    def before_instantiate_classes(self) -> None:
        """Do not build, or write down as if it was used, a data set by name beside the user's own images."""
        data = self._get(self.config, "data")
        if data.root or data.labels:
            data.source = None

    def instantiate_classes(self) -> None:
        """Build what the config says; a mistake that a class finds in its arguments is told as such."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            cause: BaseException | None = error  # it comes wrapped in what else the option might have been
            while cause and not isinstance(cause, MISTAKES):
                cause = cause.__cause__ or cause.__context__
            raise cause or UserError(str(error)) from error

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"seed_everything: {error}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer, with the settings that suit the machine where the user chose none, and the run's logger."""
        config = self._get(self.config_init, "trainer")
        for name in COUNTS:
            if config[name] is not None and (config[name] == 0 or (config[name] < 0 and name != "max_epochs")):
                raise UserError(f"trainer.{name} {config[name]}: give a number above 0, or leave it out")
        if config.precision is None:
            kwargs["precision"] = default_precision(config.accelerator)
        if config.benchmark is None and not config.deterministic:
            kwargs["benchmark"] = True  # images have one size: let cuDNN try its algorithms and keep the fastest
        if self.subcommand in ("explain", *ON_A_MODEL) and config.devices == "auto":
            kwargs["devices"] = 1
        if config.enable_progress_bar is None:
            kwargs["enable_progress_bar"] = sys.stdout.isatty()
        self.trainer_defaults["callbacks"] = [
            *(PredictionTable(), Console(), Monitor(), Pictures(), Calibration(), Findings(overlays))
        ]
        if kwargs.get("enable_progress_bar", config.enable_progress_bar):
            self.trainer_defaults["callbacks"].append(ProgressBar())
        if self.subcommand in ON_A_MODEL:
            kwargs["logger"] = False
        elif config.logger in (None, True) and not config.fast_dev_run:
            fitting = self.subcommand == "fit"
            name = (self._get(self.config, "run_name") or "run") if fitting else str(self.subcommand)
            continued = run_of(self.checkpoint) if self.checkpoint and fitting else None
            kwargs["logger"] = logger_of(Path(config.default_root_dir), name, continued, self.from_step)
        keep, kept = self._get(self.config, "checkpoint"), self._get(self.config_init, "checkpoint")
        if self.subcommand == "fit" and keep.save_top_k != 1 and keep.filename == "best":
            kept.filename = "best-{epoch}"
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except Exception as error:
            if isinstance(kwargs.get("logger"), RunLogger):
                kwargs["logger"].discard_if_empty()
            if "more than one stateful callback" not in str(error):  # with a name of its own, or the same one twice
                raise
            raise UserError(
                f"{error.args[0].partition('. ')[0]}: the config, or that of the run to continue, has one already."
                " Change that by its options alone, such as --trainer.callbacks.patience 7"
            ) from None
        # The first one is what `trainer.checkpoint_callback` gives: best is its best, and its folder the run's.
        trainer.callbacks.sort(key=lambda c: isinstance(c, ModelCheckpoint) and c is not kept)  # type: ignore[attr-defined]
        trainer.strategy.checkpoint_io = DurableCheckpointIO()
        if trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        return trainer

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        quiet = {"verbose": False}
        extra = {"validate": quiet, "test": quiet, "predict": {"return_predictions": False}}
        return {**kwargs, "weights_only": True, **extra.get(subcommand, {})}

    def _run_subcommand(self, subcommand: str) -> None:
        logger = self.trainer.logger
        try:
            with explain_failures(self.datamodule.batch_size, self.datamodule.image_size):
                super()._run_subcommand(subcommand)
        finally:
            if isinstance(logger, RunLogger) and (subcommand in FINDERS or sys.exception()):
                logger.discard_if_empty()

    def after_fit(self) -> None:
        """Test the best checkpoint, enter the results beside the hyperparameters, say what to do next."""
        trainer = self.trainer
        best = getattr(trainer.checkpoint_callback, "best_model_path", "")
        if getattr(trainer, "fast_dev_run", False) or not best:
            return
        test = self._get(self.config, "test_after_fit")
        # Left in place, it would put the weights that were not averaged back in on loading the checkpoint.
        trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, WeightAveraging)]  # type: ignore[attr-defined]
        if test:
            trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best, verbose=False, weights_only=True)
            self.after_test()
        if isinstance(trainer.logger, RunLogger):
            chosen = {key: self.config_dump[key] for key in ("model", "data", "trainer")}
            trainer.logger.enter_results(flatten(chosen))
        run = trainer.log_dir  # on every process: it is broadcast
        if trainer.is_global_zero and run:
            print("", *next_lines(Path(run), Path(best), test), sep="\n")

    def after_test(self) -> None:
        """Write report.html beside what the test has written."""
        folder = test_folder(self.trainer)
        if folder is None or not self.trainer.is_global_zero:
            return
        try:
            print(f"report    {write_report(folder)}")
        except Exception as error:  # whatever it is, it must not take the end of a long run away
            warnings.warn(f"report.html was not written: {error!r}", stacklevel=1)


def main(args: list[str] | None = None) -> None:
    """Run the command line; a user's mistake ends in one line and exit code 2."""
    print_plainly()
    quieten_lightning()
    torch.set_float32_matmul_precision("high")
    with errors_as_lines():
        CLI(
            model_class=Classifier,
            datamodule_class=ImageDataModule,
            trainer_class=project.trainer.Trainer,
            save_config_callback=SaveRun,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults={"enable_model_summary": False},
            seed_everything_default=0,
            parser_class=TrainParser,
            parser_kwargs={"allow_abbrev": False, "description": "Train an image classifier, and use it."},
            auto_configure_optimizers=False,
            args=args,
        )
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # its threads may abort the interpreter's end
