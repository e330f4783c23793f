"""Exceptions for mistakes that a user can fix, and how the command line reports them."""

import errno
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a write to a full disk, or beyond a quota or a file size limit."""
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
"""Error numbers of a path that is read-only, not accessible, or not a folder."""


class UserError(Exception):
    """A mistake in the data, the configuration or the command line that the user can fix.

    The command line prints the message as the last line, without a traceback, and exits with code 2.

    Args:
        message: What is wrong, where, and how to fix it, in one or two sentences.
        details: Lines to print before the message.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = details


class RunFinishedError(UserError):
    """The run to resume has already finished training."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """A run was stopped by a signal after saving a checkpoint.

    Args:
        message: The line to print.
        code: Exit code, 128 plus the signal number.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


EXTRAS = {
    "data": ("imagehash", "litdata", "pyarrow"),
    "dicom": ("pydicom",),
    "explain": ("captum",),
    "export": ("onnx", "onnxruntime", "onnxscript", "torch_pruning"),
    "heic": ("pillow_heif",),
    "huggingface": ("datasets",),
    "language": ("peft", "tokenizers", "transformers"),
    "mlflow": ("mlflow",),
    "private": ("opacus",),
    "s3": ("s3fs",),
    "search": ("optuna",),
    "secure": ("cryptography",),
    "serve": ("prometheus_client", "python_multipart", "starlette", "uvicorn"),
    "text": ("home_assistant_intents",),
    "transfer": ("huggingface_hub", "safetensors", "timm"),
    "wandb": ("wandb",),
}
"""Optional dependencies by the extra that installs them."""
TRACKERS = ("mlflow", "wandb")
"""Packages whose errors concern a server, an account or an address, not this program."""


def missing_package_error(error: ModuleNotFoundError) -> UserError:
    """Return an error that names the extra to install, or the removed package of this project.

    Raises:
        ModuleNotFoundError: The missing package is neither an optional dependency nor part of this project.
    """
    unmet = re.search(r"[Mm]odule not found: '?([\w-]+)|equirement '([\w-]+)", str(error))  # by a logger of Lightning
    package, _, submodule = (error.name or (unmet[1] or unmet[2] if unmet else "")).partition(".")
    if package == __package__ and "." not in submodule:
        return UserError(f"this needs the package {error.name}, which was removed from this project")
    for extra, packages in EXTRAS.items():
        if package in packages:
            return UserError(f"this needs the package {package}: pip install -e '.[{extra}]'")
    if unmet:
        return UserError(f"this needs the package {package}: pip install {package}")
    raise error


def exit_with_error(error: Exception, code: int = 2, label: str = "error: ") -> NoReturn:
    """Print the error as one line, the last on the screen, and exit."""
    for line in getattr(error, "details", ()):
        print(line, file=sys.stderr)
    # A dataloader worker wraps its error in a traceback: keep the message after the exception's name.
    message = str(error).rpartition("project.errors.UserError: ")[2]
    print(f"{label}{' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code) from None


@contextmanager
def report_errors() -> Iterator[None]:
    """Report user errors and interrupted runs as one line, with exit code 2 or that of the signal."""
    try:
        yield
    except ModuleNotFoundError as error:
        exit_with_error(missing_package_error(error))
    except Interrupted as stopped:
        exit_with_error(stopped, code=stopped.code, label="")
    except UserError as error:
        exit_with_error(error)
    except OSError as error:
        if error.errno in DENIED and error.filename is not None:
            exit_with_error(UserError(f"cannot use {os.fsdecode(error.filename)}: {error.strerror}"))
        if error.errno not in FULL:
            raise
        exit_with_error(
            UserError(f"{error}: existing checkpoints are intact; free disk space, then resume with --ckpt_path last")
        )
    except Exception as error:
        if (tracker := type(error).__module__.partition(".")[0]) not in TRACKERS:
            raise
        message = (str(error).strip() or type(error).__name__).partition("\n")[0]
        exit_with_error(UserError(f"{tracker}: {message} (to train without it, leave trainer.logger out)"))


@contextmanager
def translate_errors(batch_size: int, inputs: str) -> Iterator[None]:
    """Turn out-of-memory errors, mismatched weights and unsuitable Trainer options into user errors.

    Args:
        batch_size: Named in the out-of-memory message.
        inputs: Likewise, e.g. the size of the images.
    """
    try:
        yield
    except ValueError as error:
        if "val_check_interval" not in str(error):
            raise
        raise UserError(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if "loading state_dict" in str(error):
            reason = str(error).partition("\n")[2].partition("\n")[0].strip()
            raise UserError(
                f"the checkpoint's weights do not fit this network, which must be built with the same options: {reason}"
            ) from error
        if "conditioned on metric" in str(error):
            raise UserError(str(error)) from error  # a callback's `monitor` names a metric that is not logged
        out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not out_of_memory and not re.search("enough memory|allocate memory", str(error)):
            raise
        raise UserError(
            f"out of memory with data.batch_size {batch_size} and inputs of {inputs}"
            f" ({error}): try --data.batch_size {max(1, batch_size // 2)}; to keep the effective batch size,"
            " add --trainer.accumulate_grad_batches 2; on a GPU, also try --trainer.precision bf16-mixed"
        ) from error
