"""Steps before parsing: find the checkpoint, and use the options of its run as defaults."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from project.cli.commands import commands, options, short_options
from project.errors import RunFinishedError, UserError
from project.interface import DataDescription, import_object
from project.runs.checkpoints import load_checkpoint
from project.runs.folder import run_folder, validate_run_name
from project.runs.job import Job, Training, Untrained
from project.runs.options import configs_first, option_pairs, peek_options
from project.runs.resume import (
    DATASETS,
    ORIGIN,
    check_not_finished,
    check_same_model,
    is_other_dataset,
    last_if_any,
    requeued_run,
    resolve_checkpoint,
    saved_options,
)


@dataclass
class Plan:
    """The arguments to parse, and the checkpoint that they refer to.

    Attributes:
        args: Arguments to parse: configs first, starting with that of a resumed run.
        options_given: Options on the command line and in configs by name, read without the parser.
        defaults: `model` and `data` of the checkpoint, which configs and options override.
        checkpoint: The checkpoint to use, if any.
        saved: Content of the checkpoint.
        restarted: True if the same command was started again, e.g. after preemption, and resumes its run.
    """

    args: list[str]
    options_given: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    saved: dict[str, Any] = field(default_factory=dict)
    restarted: bool = False

    def check(self, config: Any) -> None:
        """Check that the checkpoint's run can be resumed with the parsed options.

        Raises:
            UserError: The model differs, or the run is finished.
            SystemExit: Code 0, the run of a restarted job is finished.
        """
        assert self.checkpoint is not None
        check_same_model(self.checkpoint, self.saved["hyper_parameters"], config.model.init_args)
        try:
            check_not_finished(self.checkpoint, self.saved, config.trainer)
        except RunFinishedError as finished:
            if not self.restarted:
                raise
            print(finished)
            raise SystemExit(0) from None


def make_plan(name: str, kind: type[Job], args: list[str]) -> Plan:
    """Find the checkpoint that a command uses, and read the options saved with it.

    Options take precedence in this order: command line, later config, earlier config, checkpoint, default.

    Args:
        name: The command.
        kind: Annotation of the first parameter of the command's function.
        args: The command line.
    """
    short = {f"--{name}": f"--{option}" for name, option in short_options().items()}
    args = [re.sub(r"^--\w+(?=$|=)", lambda name: short.get(name[0], name[0]), arg) for arg in configs_first(args)[1:]]
    given = peek_options(args)
    if any(arg.partition("=")[0] in ("-h", "--help", "--print_config") or arg.endswith(".help") for arg in args):
        return Plan(args, given)
    root, run_name = Path(given.get("trainer.default_root_dir") or "logs"), given.get("run_name")
    ckpt_path = None if (value := given.get("ckpt_path")) in (None, "", "null") else str(value)
    validate_run_name(run_name)
    if issubclass(kind, Untrained):
        if ckpt_path:
            raise UserError(f"{name} takes no --ckpt_path: to start from trained weights, use --model.init_from FILE")
        return Plan(args, given)
    fitting = issubclass(kind, Training)
    restarted = fitting and ckpt_path in (None, "resume")  # the same command again, with all options of the run
    if fitting and ckpt_path == "resume":
        ckpt_path = last_if_any(root, run_name)
    elif restarted:
        requeued = requeued_run(root)
        ckpt_path = str(requeued) if requeued else None
    elif fitting and any(option == "model.init_from" for option, _ in option_pairs(args)):
        raise UserError("--ckpt_path resumes a run, --model.init_from starts a new one: give one of them")
    if not ckpt_path:
        if not fitting:
            raise UserError(f"{name} needs a trained model: give --ckpt_path FILE, best or last")
        return Plan(args, given)
    path = resolve_checkpoint(ckpt_path, root, run_name)
    check_file(path, given)
    saved = load_checkpoint(path)
    supported, description = commands()[name][3:], DataDescription.from_dict(saved["data_description"])
    inputs, _, targets = supported[0].partition(" with ") if supported else ("", "", "")
    model = f"{description.input.kind}s", description.target.kind
    listed = zip(model, (inputs, targets), strict=True)
    if any(names and part not in re.split(", | or ", names) for part, names in listed):
        raise UserError(f"{name} is for {supported[0]}, but {path} is a model for {' with '.join(model)}")
    plan = Plan(args, given, {}, path, saved, restarted)
    if not restarted:
        datasets = {key for key in DATASETS if any(f"{name}.".startswith(f"data.{key}.") for name in given)}
        origin = {key: given.get(f"data.{key}") for key in ORIGIN} | dict.fromkeys(datasets, True)
        plan.defaults = saved_options(saved, not fitting and is_other_dataset(origin, saved), datasets)
        run = run_folder(path)
        if fitting and run and (run / "config.yaml").is_file():
            plan.args = ["--config", str(run / "config.yaml"), *args]
    return plan


def check_file(file: Path, config: Any) -> None:
    """Check a model file before it is loaded, by the options that packages add, e.g. `--require_signature`."""
    for name, (function, _) in options().items():
        if value := config.get(name):
            import_object(function)(file, Path(value))
