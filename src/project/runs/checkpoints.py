"""Checkpoint files: written whole or not at all, read without running their code."""

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
    """Writes a checkpoint under another name, flushes it to the disk, then renames it: whole at every moment.

    Lightning's own renames too, but does not flush, passes over a folder that it may not write to without a word, and
    holds three copies in memory.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; what stood at the path stays until the new one is whole."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as stream:
                sink = _Sink(stream)
                try:
                    torch.save(checkpoint, cast(IO[bytes], sink))
                except RuntimeError as error:  # what torch makes of a write that failed
                    raise sink.error or error from error
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise UserError(
                f"cannot write checkpoint {path}: {error.strerror or error}. The checkpoints before it are whole"
                f" ({', '.join(sorted(file.name for file in path.parent.glob('*.ckpt'))) or 'there is none'}):"
                f" make room or permit writing, then continue by --ckpt_path {path.parent / LAST}"
            ) from error


class _Sink:
    """A file that remembers why a write failed."""

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
    """Read a checkpoint; only plain types and tensors are let in, so that no file can run code."""
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        checkpoint["hyper_parameters"], checkpoint["state_dict"]
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a checkpoint of this project, or it is damaged ({reason(error)})") from error
    if checkpoint.get("format_version") != FORMAT_VERSION:
        ours = "data_description" in {*checkpoint, *checkpoint["hyper_parameters"]}
        what = "was written by another version of this project" if ours else "is not a checkpoint of this project"
        raise UserError(f"{path} {what}: train again, or use it with the version that wrote it")
    return checkpoint


def reason(error: Exception) -> str:
    """Why torch would not read a file, without its advice to let the file run its code."""
    if not isinstance(error, pickle.UnpicklingError):
        return "it is no archive of torch.save" if str(error).startswith("mmap can only be used") else str(error)
    wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it holds {wanted[1] if wanted else 'more than plain data'}, which may run code when read, so it was not"


def find_damage(path: Path) -> str:
    """What is wrong with a checkpoint file, by the checksums within it; empty if nothing is."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        return f"{bad} does not match its checksum" if bad else ""
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        return str(error)
