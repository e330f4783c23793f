"""Download, cache and load pretrained weights, without unpickling code."""

import math
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

TIMEOUT = 4.0
"""Seconds to wait for the server before a download; the libraries' own retries take most of a minute."""

NOT_CACHED = "the pretrained weights are not cached"
FILE = "--model.net.weights FILE, or train from scratch with --model.net.weights null"


def download_from_url(url: str) -> Path:
    """Return the path of a file in the torch hub cache, downloading it if necessary."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        with download_errors(url):
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), progress=False)
    return file


def download_from_hub(repository: str) -> Path:
    """Return the path of a Hugging Face repository's weights in the hub cache, downloading them if necessary."""
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError

    name = "model.safetensors"
    try:
        return Path(hf_hub_download(repository, name, local_files_only=True))
    except LocalEntryNotFoundError:
        with download_errors(hf_hub_url(repository, name)):
            return Path(hf_hub_download(repository, name))


@contextmanager
def download_errors(url: str, missing: str = NOT_CACHED, option: str = FILE) -> Iterator[None]:
    """Check that a server responds, through a proxy if one is set, and explain failed downloads.

    Args:
        url: The first file to download.
        missing: What is not there yet.
        option: The option that takes what was downloaded on another machine.
    """
    errors: list[BaseException] = [TimeoutError(f"no response in {TIMEOUT:g} s")]

    def check() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT).close()
        except urllib.error.HTTPError:
            pass  # the server responds; the download gives a better error
        except (OSError, ValueError) as error:
            errors[0] = error
            return
        errors.clear()

    thread = Thread(target=check, daemon=True)  # as DNS lookups have no timeout
    thread.start()
    thread.join(TIMEOUT)
    try:
        if errors:
            raise errors[0]
        yield
    except (OSError, ValueError, RuntimeError) as error:  # network, file system or checksum
        raise UserError(
            f"{missing} and cannot be downloaded ({error}): download {url} on another machine and pass {option}"
        ) from error


def read_weights(file: Path) -> dict[str, Tensor]:
    """Load a state dict from a .safetensors or `torch.save` file, where it may be under `state_dict` or `model`."""
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
    except Exception as error:  # safetensors raises its own exception type
        raise UserError(f"model.net.weights: {file} is not a weights file or is corrupt ({reason(error)})") from error
    if isinstance(saved, dict) and "hyper_parameters" in saved:
        raise UserError(f"{file} is a checkpoint of this project: use --model.init_from {file}")
    for key in ("state_dict", "model"):
        saved = saved[key] if isinstance(saved, dict) and isinstance(saved.get(key), dict) else saved
    if not isinstance(saved, dict) or not any(isinstance(value, Tensor) for value in saved.values()):
        raise UserError(f"model.net.weights: {file} contains no state dict")
    return {name.removeprefix("module."): value for name, value in saved.items()}


def adapt_to_channels(weight: Tensor, channels: int) -> Tensor:
    """Return the weights of a first convolution, (outputs, inputs, h, w), for another number of input channels.

    Filters are summed for one channel, else repeated and scaled by inputs / channels, so that the response to images
    with equal channels stays about the same. Wightman, PyTorch Image Models, 2019 (`timm.models.adapt_input_conv`).
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)
    inputs = weight.shape[1]
    return weight.repeat(1, math.ceil(channels / inputs), 1, 1)[:, :channels] * (inputs / channels)


def mismatch_error(file: Path, net: str, error: Exception) -> UserError:
    """Return an error that lists the mismatched keys in an exception of `load_state_dict`."""
    names = re.findall(r"size mismatch for ([^:]+):|\"([^\"]+)\"", str(error))
    keys = [one or other for one, other in names] or [str(error)]
    shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    return UserError(
        f"model.net.weights: {file} does not match {net}: missing, unexpected or of another shape: {shown}"
    )
