"""Files of pretrained weights: found here, or downloaded once, and read without running their code."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from torch import Tensor

from project.errors import UserError
from project.runs.checkpoints import reason

PATIENCE = 4.0
"""Seconds in which the machine that has a file must answer; the libraries' own retries take most of a minute."""


def downloaded(url: str) -> Path:
    """Return a file that torch's hub keeps, downloaded if it is not there."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        with _answering(url):
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), progress=False)
    return file


def downloaded_from_hub(repository: str) -> Path:
    """Return the weights of a repository on the Hugging Face hub, from its cache or downloaded into it."""
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError

    name = "model.safetensors"
    try:
        return Path(hf_hub_download(repository, name, local_files_only=True))
    except LocalEntryNotFoundError:
        with _answering(hf_hub_url(repository, name)):
            return Path(hf_hub_download(repository, name))


@contextmanager
def _answering(url: str) -> Iterator[None]:
    """See that an address answers within a few seconds, by way of a proxy if one is set; say so if a download fails."""
    problem: list[BaseException] = [TimeoutError(f"no answer in {PATIENCE:g} s")]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE).close()
        except urllib.error.HTTPError:
            pass  # an answer: the download will say more
        except (OSError, ValueError) as error:
            problem[0] = error
            return
        problem.clear()

    asking = Thread(target=ask, daemon=True)  # looking up a name knows no time limit
    asking.start()
    asking.join(PATIENCE)
    try:
        if problem:
            raise problem[0]
        yield
    except (OSError, ValueError, RuntimeError) as error:  # of the line, the file, or a checksum
        raise UserError(
            f"the pretrained weights are not on this machine and cannot be downloaded ({error}): download {url}"
            " elsewhere and give the file by --model.net.weights FILE; or train from scratch by --model.net.weights"
            " null"
        ) from error


def read_weights(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict by name: of a .safetensors file or `torch.save`, itself or `state_dict`."""
    if not file.is_file():
        raise UserError(f"model.net.weights: no such file: {file}")
    saved: Any
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            saved = load_file(file)
        else:
            saved = torch.load(file, map_location="cpu", weights_only=True)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # safetensors has an exception of its own
        raise UserError(
            f"model.net.weights: {file} is no file of weights, or it is damaged ({reason(error)})"
        ) from error
    if isinstance(saved, dict) and "hyper_parameters" in saved:
        raise UserError(f"{file} is a checkpoint of this project: give it by --model.init_from {file}")
    for key in ("state_dict", "model"):
        saved = saved[key] if isinstance(saved, dict) and isinstance(saved.get(key), dict) else saved
    if not isinstance(saved, dict) or not any(isinstance(value, Tensor) for value in saved.values()):
        raise UserError(f"model.net.weights: {file} holds no weights by name")
    return {name.removeprefix("module."): value for name, value in saved.items()}


def misfit(file: Path, net: str, error: Exception) -> UserError:
    """What does not fit, from torch's complaint about a state dict."""
    names = re.findall(r"size mismatch for ([^:]+):|\"([^\"]+)\"", str(error))
    keys = [one or other for one, other in names] or [str(error)]
    shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    return UserError(f"model.net.weights: {file} does not fit {net}: missing, unknown or of another shape are {shown}")
