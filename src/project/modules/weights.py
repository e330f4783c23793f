"""Files of pretrained weights: found here, or downloaded once, and read without running their code."""

import re
import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from torch import Tensor, nn

from project.checkpoints import reason
from project.errors import UserError

PATIENCE = 4.0
"""Seconds in which the machine that has a file must answer; the libraries' own retries take most of a minute."""


def downloaded(url: str) -> Path:
    """A file that torch's hub keeps, downloaded if it is not there.

    Raises:
        UserError: it is not there, and the machine that has it cannot be reached.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        require_answer(url)
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), progress=False)
        except (OSError, RuntimeError) as error:  # of the file, the line, or a checksum
            raise _unreachable(url, error) from error
    return file


def downloaded_from_hub(repository: str) -> Path:
    """The weights of a repository on the Hugging Face hub, from its cache or downloaded into it.

    Raises:
        UserError: they are not there, and the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError

    name = "model.safetensors"
    try:
        return Path(hf_hub_download(repository, name, local_files_only=True))
    except LocalEntryNotFoundError:
        url = hf_hub_url(repository, name)
        require_answer(url)
        try:
            return Path(hf_hub_download(repository, name))
        except (OSError, RuntimeError) as error:
            raise _unreachable(url, error) from error


def require_answer(url: str) -> None:
    """See that an address answers within a few seconds, by way of a proxy if one is set.

    Raises:
        UserError: it does not.
    """
    reason: list[BaseException | str] = [f"no answer in {PATIENCE:g} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE).close()
        except urllib.error.HTTPError:
            pass  # an answer: the download will say more
        except (OSError, ValueError) as error:
            reason[0] = error
            return
        reason.clear()

    asking = Thread(target=ask, daemon=True)  # looking up a name knows no time limit
    asking.start()
    asking.join(PATIENCE)
    if reason:
        raise _unreachable(url, reason[0])


def _unreachable(url: str, reason: object) -> UserError:
    return UserError(
        f"the pretrained weights are not on this machine and cannot be downloaded ({reason}): download {url}"
        " elsewhere and give the file by --model.net.weights FILE; or train from scratch by --model.net.weights null"
    )


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name: a .safetensors file, or one of `torch.save`, itself or as `state_dict`.

    Raises:
        UserError: there is no such file, or it is something else.
    """
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


def copy_body(heads: tuple[str, ...], source: nn.Module, target: nn.Module) -> None:
    """Copy every tensor of one net into another of the same kind, but for the heads that are named: they begin at zero.

    Drawn at random, a head would disturb the layers before it. Kolesnikov et al., Big Transfer (BiT): General Visual
    Representation Learning, 2020 (section 3.3).
    """
    kept = {
        name: value
        for name, value in source.state_dict().items()
        if not any(name.startswith(f"{head}.") for head in heads)
    }
    target.load_state_dict(kept, strict=False)
    for head in heads:
        for parameter in target.get_submodule(head).parameters():
            nn.init.zeros_(parameter)
