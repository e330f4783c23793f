"""Atomic writing and safe loading of checkpoint files."""

import os
import pickle
import re
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from project.errors import UserError
from project.files import sync_folder
from project.interface import FORMAT_VERSION

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class DurableCheckpointIO(TorchCheckpointIO):
    """Checkpoint IO that writes atomically: to a temporary file, flushed to disk, then renamed.

    Lightning's own also renames, but does not flush, ignores folders without write permission silently, and holds
    three copies in memory.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; an existing file is replaced only when the new one is complete."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as stream:
                file = _ErrorRecordingFile(stream)
                try:
                    torch.save(checkpoint, cast(IO[bytes], file))
                except RuntimeError as error:  # torch hides the OSError of a failed write
                    raise file.error or error from error
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise UserError(
                f"cannot write checkpoint {path}: {error.strerror or error}. Earlier checkpoints are intact"
                f" ({', '.join(sorted(file.name for file in path.parent.glob('*.ckpt'))) or 'none'}):"
                f" free disk space or fix permissions, then resume with --ckpt_path {path.parent / LAST}"
            ) from error


class _ErrorRecordingFile:
    """A file that stores the error of a failed write."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return int(self._stream.write(data))
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._stream.flush()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint with `weights_only=True`, so that the file cannot execute code."""
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        checkpoint["hyper_parameters"], checkpoint["state_dict"]
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a checkpoint of this project or is corrupted ({reason(error)})") from error
    if checkpoint.get("format_version") != FORMAT_VERSION:
        ours = "data_description" in {*checkpoint, *checkpoint["hyper_parameters"]}
        what = "was written by another version of this project" if ours else "is not a checkpoint of this project"
        raise UserError(f"{path} {what}: train again or use the version that wrote it")
    return checkpoint


def reason(error: Exception) -> str:
    """Return why torch cannot load a file, without its advice to disable `weights_only`."""
    if not isinstance(error, pickle.UnpicklingError):
        return "not a file written by torch.save" if str(error).startswith("mmap can only be used") else str(error)
    match = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it contains {match[1] if match else 'more than plain data'}, which may execute code when loaded"


def find_damage(path: Path) -> str:
    """Verify the checksums of a checkpoint file; return the problem, or an empty string if it is intact."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        return f"{bad} does not match its checksum" if bad else ""
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        return str(error)
