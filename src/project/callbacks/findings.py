"""What a report needs of a test besides the table of predictions."""

import base64
import heapq
import io
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from project.checkpoints import load_checkpoint
from project.files import write_text
from project.interface import Batch, class_names, image_classifier, image_data, test_folder
from project.machine import describe_device
from project.redact import without_secrets

FINDINGS = "test.json"
SHOWN = 12
"""Pictures kept of the most confident mistakes, of the least certain images, and of one a class."""
LARGEST, PLAIN, OVERLAY = 224, 64, 160
"""Pictures are kept at no more than so many pixels; as they are up to so many, others as JPEG; evidence at so many."""

Candidate = tuple[float, int, Any]
"""How much an image deserves to be kept, its row in the index, and the image, uint8 (3, H, W), or how a page has it."""
Overlays = Callable[[Any, Tensor, Tensor, int], list[Any] | None]
"""Lays the evidence over images, for a classifier, uint8 (N, 3, H, W), classes int64 (N,), pixels."""


class Findings(L.Callback):
    """Writes test.json into the run: what was tested on what, and the pictures worth a look, as data URIs.

    Pictures are kept as the net saw them, so that a report stays whole when the images are gone or were never files.

    Args:
        overlays: Shows beside mistakes and the least certain images what the prediction goes by.
    """

    def __init__(self, overlays: Overlays | None = None) -> None:
        self._overlays = overlays
        self._started = 0.0
        self._seconds: float | None = None
        self._folder: Path | None = None
        self._kept: dict[str, list[Candidate]] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of training."""
        self._started = time.monotonic()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop it."""
        self._seconds = time.monotonic() - self._started

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin without pictures."""
        self._folder, self._kept = test_folder(trainer), {}

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the pictures of the batch that are worth it so far."""
        if self._folder is None:
            return
        probability, predicted = (column.cpu().numpy() for column in outputs.max(1))
        label, index = batch.label.cpu().numpy(), batch.index.cpu().numpy()
        sampled = np.unique(np.linspace(0, outputs.shape[1] - 1, SHOWN).round().astype(int)).tolist()
        kinds = {"mistakes": (predicted != label, probability), "uncertain": (label >= 0, -probability)}
        kinds |= {f"sample {c}": (label == c, -index) for c in sampled}
        for kind, (eligible, worth) in kinds.items():
            rows = np.flatnonzero(eligible)
            rows = rows[np.argsort(-worth[rows], kind="stable")[: _limit(kind)]]
            # Copied, as loaders use the memory of a batch again.
            new = [(float(worth[i]), int(index[i]), batch.image[i].to("cpu", copy=True)) for i in rows]
            self._kept[kind] = _worthiest(kind, self._kept.get(kind, []) + new)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Bring the pictures of all processes together and write the file."""
        if self._folder is None:
            return
        mine = {kind: self._as_text(image_classifier(trainer), kind, kept) for kind, kept in self._kept.items()}
        parts = [self._folder / f"{FINDINGS}.part{rank}" for rank in range(trainer.world_size)]
        parts[trainer.global_rank].write_text(json.dumps(mine))
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        found = [json.loads(part.read_text()) for part in parts]
        path, pictures = image_data(trainer).path, dict[str, list[dict[str, str]]]()
        for kind in {kind: None for part in found for kind in part}:
            best = _worthiest(kind, [tuple(each) for part in found for each in part.get(kind, [])])
            pictures.setdefault(kind.split()[0], []).extend({"path": path(i), **texts} for _, i, texts in best)
        write_text(self._folder / FINDINGS, json.dumps({**self._facts(trainer), "pictures": pictures}))
        for part in parts:
            part.unlink()

    def _as_text(self, model: Any, kind: str, kept: list[Candidate]) -> list[Candidate]:
        texts = [{"picture": data_uri(image)} for _, _, image in kept]
        if kept and self._overlays is not None and not kind.startswith("sample"):
            images = torch.stack([image for _, _, image in kept])
            predicted = model(images.to(model.device)).argmax(1)
            for text, picture in zip(texts, self._overlays(model, images, predicted, OVERLAY) or (), strict=False):
                text["evidence"] = _encoded(picture, "jpeg")
        return [(worth, index, text) for (worth, index, _), text in zip(kept, texts, strict=True)]

    def _facts(self, trainer: L.Trainer) -> dict[str, Any]:
        model, data = image_classifier(trainer), image_data(trainer)
        sizes = data.split_sizes()
        assert model.data_description is not None
        privacy = load_checkpoint(Path(trainer.ckpt_path)).get("privacy") if trainer.ckpt_path else None
        return {
            "privacy": privacy,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": without_secrets(shlex.join(sys.orig_argv)),
            "checkpoint": str(Path(trainer.ckpt_path).resolve()) if trainer.ckpt_path else None,
            "seconds_of_training": self._seconds,
            "split": "test" if sizes["test"] else "val",
            "loss": float(model.results["test"].scalars["loss"]),
            "folder": str(data.folder.resolve()),
            "split_sizes": sizes,
            "class_names": class_names(trainer),
            "train_counts": model.data_description.train_counts,
            "image_size": model.data_description.image_size,
            "net": type(model.net).__name__,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "device": describe_device(trainer.strategy.root_device),
            "devices": trainer.world_size,
            "precision": trainer.precision,
        }


def _limit(kind: str) -> int:
    return 1 if kind.startswith("sample") else SHOWN


def _worthiest(kind: str, candidates: list[Candidate]) -> list[Candidate]:
    return heapq.nlargest(_limit(kind), candidates, key=lambda candidate: (candidate[0], -candidate[1]))


def data_uri(image: Tensor) -> str:
    """An image, uint8 (3, H, W), as text that a page can hold; shrunk to `LARGEST` pixels if it is larger."""
    from PIL import Image

    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture.thumbnail((LARGEST, LARGEST))
    return _encoded(picture, "png" if max(picture.size) <= PLAIN else "jpeg")


def _encoded(picture: Any, form: str) -> str:
    file = io.BytesIO()
    picture.save(file, form, quality=85, optimize=True)
    return f"data:image/{form};base64,{base64.b64encode(file.getvalue()).decode()}"
