"""Files of a pretrained language model: a folder, or a repository of the Hugging Face hub, and what is in it."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from project.errors import UserError
from project.modules.networks.weights import download_errors
from project.texts import TextInput, TokenInput

FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model*.safetensors", "model.safetensors.index.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
IGNORED = ("attn_implementation", "auto_map", "dtype", "quantization_config", "torch_dtype")
"""Entries of config.json that name code to download, or that say how weights are stored."""


def find_model(name: str) -> Path:
    """Return the folder of a model; one of the hub is downloaded into the hub's cache if it is not there.

    Raises:
        UserError: There is no such folder or model, or it lacks a file.
    """
    folder = Path(name)
    if not folder.is_dir():
        if folder.is_absolute() or name.startswith(".") or not 0 < len(folder.parts) <= 2 or folder.exists():
            raise UserError(f"model.net.name: no such folder: {name}")
        folder = _find_in_hub(name)
    for names in (("config.json",), ("tokenizer.json",), WEIGHTS):
        if not any((folder / each).is_file() for each in names):
            fix = "give the folder of a language model in the format of transformers"
            if names[0] == "tokenizer.json":
                fix = "write it with AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) of transformers"
            raise UserError(f"model.net.name: {folder} has no {names[0]}: {fix}")
    return folder


def _find_in_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_url, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=[*FILES], local_files_only=True))
        if any((folder / file).is_file() for file in WEIGHTS):
            return folder
    except HFValidationError as error:
        raise UserError(f"model.net.name: {name} is neither a folder nor a name of the hub") from error
    except LocalEntryNotFoundError:
        pass
    missing = f"model.net.name: {name} is not a folder and not cached"
    with download_errors(
        hf_hub_url(name, "model.safetensors"), missing, "--model.net.name FOLDER, with tokenizer and weights"
    ):
        return Path(snapshot_download(name, allow_patterns=[*FILES]))


def read_model(name: str, inputs: TextInput, max_tokens: int) -> TokenInput:
    """Return the input of a model: its tokenizer and its config.

    Raises:
        UserError: The model or one of its files is missing, or a file is damaged.
    """
    from tokenizers import Tokenizer

    folder = find_model(name)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
        padding = json.loads(tokenizer).get("padding") or {}
        special = Tokenizer.from_str(tokenizer).num_special_tokens_to_add(False)
        pad = config.get("pad_token_id", padding.get("pad_id"))
    except Exception as error:  # tokenizers raises plain exceptions
        raise UserError(f"model.net.name: cannot read {folder}: {error}") from error
    if pad is None:
        raise UserError(
            f"model.net.name: the config.json of {folder} has no pad_token_id: add the token that pads texts"
        )
    if max_tokens <= special:
        raise UserError(f"model.net.max_tokens must be above {special}, the special tokens of a text, got {max_tokens}")
    config = {name: value for name, value in config.items() if name not in IGNORED and name[0] != "_"}
    return TokenInput(inputs.max_bytes, max_tokens, int(pad), tokenizer, config)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and advice of transformers."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def build_encoder(config: dict[str, Any]) -> Any:
    """Build an encoder with random weights from the content of a config.json; no code is downloaded.

    Raises:
        ValueError: It is not the config of an encoder that transformers knows.
    """
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as ENCODERS

    kind = str(config.get("model_type"))
    if kind not in ENCODERS or config.get("is_encoder_decoder") or config.get("is_decoder"):
        raise ValueError(f"a model of type {kind} is not an encoder: choose one such as BERT, RoBERTa or ModernBERT")
    with quiet():
        options = {"trust_remote_code": False, "dtype": torch.float32}
        encoder = AutoModel.from_config(CONFIG_MAPPING[kind].from_dict(config), **options)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # trained for pairs of sentences, and not used
    return encoder


def read_encoder(name: str) -> dict[str, Tensor]:
    """Return the weights of a pretrained encoder in float32, without calling home.

    Raises:
        UserError: They cannot be read, or are not all there.
    """
    from transformers import AutoModel

    folder = find_model(name)
    options = {"local_files_only": True, "trust_remote_code": False, "dtype": torch.float32}
    try:
        with quiet():
            encoder, found = AutoModel.from_pretrained(folder, **options, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"model.net.name: cannot load the weights in {folder}: {error}") from error
    if missing := [key for key in sorted(found["missing_keys"]) if not key.startswith("pooler.")]:
        raise UserError(f"model.net.name: the weights in {folder} lack {len(missing)} tensors, e.g. {missing[0]}")
    state: dict[str, Tensor] = encoder.state_dict()
    return state


def longest(encoder: nn.Module, config: dict[str, Any]) -> int:
    """Return the largest number of tokens that the encoder has positions for."""
    for name, table in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(table, nn.Embedding):
            return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    return int(config.get("max_position_embeddings", 2**31))
