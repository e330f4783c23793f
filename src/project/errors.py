"""The one exception for what a user can mend."""

import errno
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a write to a full disk, or beyond a quota or a limit, ends in
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
"""What a folder that is read-only, or is no folder, ends in."""


class UserError(Exception):
    """A mistake in the data, the configuration or the command line: what is wrong, where, and how to mend it.

    The command line prints the message as the last line on the screen, without a traceback, and exits with code 2.

    Args:
        message: One sentence or two.
        details: Lines to print before it.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = details


class RunFinishedError(UserError):
    """There is nothing left to train of the run that was to be continued."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """A signal asked a run to stop and all is saved; `code`, the exit code, is 128 and the signal's number."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


EXTRAS = {
    "data": ("imagehash", "litdata"),
    "explain": ("captum",),
    "export": ("onnx", "onnxruntime", "onnxscript", "torch_pruning"),
    "private": ("opacus",),
    "s3": ("s3fs",),
    "search": ("optuna",),
    "secure": ("cryptography",),
    "serve": ("prometheus_client", "python_multipart", "starlette", "uvicorn"),
    "transfer": ("huggingface_hub", "safetensors", "timm"),
}
"""The packages that each extra brings."""


def missing_package_error(error: ModuleNotFoundError) -> UserError:
    """What to install, or which package of this project was taken out; any other missing package is a bug."""
    package, _, inside = (error.name or "").partition(".")
    if package == __package__ and "." not in inside:
        return UserError(f"this needs the package {error.name}, which was taken out of this project")
    for extra, packages in EXTRAS.items():
        if package in packages:
            return UserError(f"this needs the package {package}: pip install -e '.[{extra}]'")
    raise error


def exit_with_error(error: Exception, code: int = 2, label: str = "error: ") -> NoReturn:
    """End the program with the error as one line, the last on the screen."""
    for line in getattr(error, "details", ()):
        print(line, file=sys.stderr)
    # A worker's error comes wrapped in its traceback; the message is what stands behind the exception's name.
    message = str(error).rpartition("project.errors.UserError: ")[2]
    print(f"{label}{' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code) from None


@contextmanager
def report_errors() -> Iterator[None]:
    """Let a user's mistake end in one line and exit code 2, an interrupted run in one line and its signal's code."""
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
            UserError(f"{error}: the checkpoints written so far are whole; make room, then --ckpt_path last")
        )


@contextmanager
def translate_errors(batch_size: int, image_size: int) -> Iterator[None]:
    """Say what to do where memory is short, weights do not fit, or options do not suit the data or the metrics."""
    try:
        yield
    except ValueError as error:
        if "val_check_interval" not in str(error):
            raise
        raise UserError(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if "loading state_dict" in str(error):
            first = str(error).partition("\n")[2].partition("\n")[0].strip()
            raise UserError(
                f"the weights of the checkpoint do not fit this net, which must be built as it was: {first}"
            ) from error
        if "conditioned on metric" in str(error):
            raise UserError(str(error)) from error  # a callback's `monitor` that is not there
        short = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if not short and not re.search("enough memory|allocate memory", str(error)):
            raise
        raise UserError(
            f"out of memory with data.batch_size {batch_size} and images of {image_size} pixels"
            f" ({error}): try --data.batch_size {max(1, batch_size // 2)}; to keep the step as it is, add"
            " --trainer.accumulate_grad_batches 2; on a GPU also --trainer.precision bf16-mixed"
        ) from error
