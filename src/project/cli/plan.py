"""What must be known before options are parsed: which run is meant, and what it says of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from project.cli.commands import commands, options
from project.errors import RunFinishedError, UserError
from project.interface import DataDescription, import_object
from project.runs.checkpoints import load_checkpoint
from project.runs.folder import run_folder, validate_run_name
from project.runs.job import Job, Training, Untrained
from project.runs.options import configs_first, option_pairs, peek_options
from project.runs.resume import (
    ORIGIN,
    check_not_finished,
    check_same_model,
    last_if_any,
    requeued_run,
    resolve_checkpoint,
    saved_options,
)


@dataclass
class Plan:
    """How a command line is to be parsed, once.

    Attributes:
        args: What is parsed: configs first, that of a continued run before all others.
        said: Options by their plain names, as far as they can be told without parsing.
        defaults: `model` and `data` of the checkpoint, beneath all configs.
        checkpoint: The file that is meant; None for none.
        saved: What it holds.
        restarted: Whether a job that was started again continues its run, by options of its own.
    """

    args: list[str]
    said: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    saved: dict[str, Any] = field(default_factory=dict)
    restarted: bool = False

    def check(self, config: Any) -> None:
        """See that the run of the checkpoint can go on with what was parsed; end where a restarted job has finished."""
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
    """Find the run that a command means, from arguments and plain YAML alone.

    Precedence is then that of the parser: command line, later config, earlier config, checkpoint, default.
    """
    given = configs_first(args)[1:]
    said = peek_options(given)
    if any(arg.partition("=")[0] in ("-h", "--help", "--print_config") or arg.endswith(".help") for arg in given):
        return Plan(given, said)
    root, run_name = Path(said.get("trainer.default_root_dir") or "logs"), said.get("run_name")
    wanted = None if (found := said.get("ckpt_path")) in (None, "", "null") else str(found)
    validate_run_name(run_name)
    if issubclass(kind, Untrained):
        if wanted:
            raise UserError(f"{name} begins anew: to begin from trained weights, give --model.init_from FILE")
        return Plan(given, said)
    fitting = issubclass(kind, Training)
    restarted = fitting and wanted in (None, "resume")  # such a job comes with its own options
    if fitting and wanted == "resume":
        wanted = last_if_any(root, run_name)
    elif restarted:
        requeued = requeued_run(root)
        wanted = str(requeued) if requeued else None
    elif fitting and any(plain == "model.init_from" for plain, _ in option_pairs(given)):
        raise UserError("--ckpt_path continues a run, --model.init_from begins a new one: give one of them")
    if not wanted:
        if not fitting:
            raise UserError(f"{name} needs a trained model: give --ckpt_path FILE, or best or last")
        return Plan(given, said)
    path = resolve_checkpoint(wanted, root, run_name)
    check_file(path, said)
    saved = load_checkpoint(path)
    served, description = commands()[name][3:], DataDescription.from_dict(saved["data_description"])
    if served and (model := f"{description.input.kind}s with {description.target.kind}") != served[0]:
        raise UserError(f"{name} is for {served[0]}, and {path} is a model for {model}")
    plan = Plan(given, said, {}, path, saved, restarted)
    if not restarted:
        plan.defaults = saved_options(saved, elsewhere=not fitting and any(said.get(f"data.{key}") for key in ORIGIN))
        run = run_folder(path)
        if fitting and run and (run / "config.yaml").is_file():
            plan.args = ["--config", str(run / "config.yaml"), *given]
    return plan


def check_file(file: Path, given: Any) -> None:
    """Let the options that packages add, such as one that requires a signature, check a file before it is read."""
    for name, (function, _) in options().items():
        if value := given.get(name):
            import_object(function)(file, Path(value))
