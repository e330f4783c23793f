"""What a report needs of a test besides the table of predictions."""

import base64
import heapq
import io
import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from project.files import write_text
from project.interface import Batch, data_of, module_of, test_folder
from project.machine import describe_device
from project.output import redact_secrets
from project.runs.checkpoints import load_checkpoint
from project.runs.folder import TEST_SUMMARY

ScoredSample = tuple[float, int, Any]
"""How much a sample is worth a look, its row in the index, and whatever is kept of it."""
SHOWN = 12
"""Samples kept of the most confident mistakes, of the least certain, and of one a class."""
Overlays = Callable[[Any, Tensor, Tensor, int], list[Any] | None]
"""Lays the evidence over images, for a module, uint8 (N, 3, H, W), classes int64 (N,), pixels."""


class TestSummary(L.Callback):
    """Writes test.json into the run: what was tested on what, and the samples worth a look.

    Images are kept as the net saw them, as data URIs, so that a report stays whole when they are gone or were never
    files.

    Attributes:
        overlays: Shows beside mistakes and the least certain images what the prediction goes by; None for nothing.
    """

    def __init__(self) -> None:
        self.overlays: Overlays | None = None
        self._started = 0.0
        self._seconds: float | None = None
        self._folder: Path | None = None
        self._kept: dict[str, TopK] = {}

    def on_train_start(self, *_: Any) -> None:
        """Start the clock of training."""
        self._started = time.monotonic()

    def on_train_end(self, *_: Any) -> None:
        """Stop it."""
        self._seconds = time.monotonic() - self._started

    def on_test_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Begin without samples."""
        self._folder, self._kept = test_folder(trainer), {}

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """Keep the samples of the batch that are worth it so far."""
        if self._folder is None:
            return
        index = batch.index.cpu()
        for kind, worth in (
            module_of(trainer).task.rank_samples(outputs.cpu(), batch.target.cpu(), index, SHOWN).items()
        ):
            shortlist = self._kept.setdefault(kind, TopK(_limit(kind)))
            shortlist.offer(worth.numpy(), index.numpy(), batch.inputs)

    def on_test_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Bring the samples of all processes together and write the file."""
        if self._folder is None:
            return
        mine = {kind: self._as_text(trainer, kind, kept.kept) for kind, kept in self._kept.items()}
        parts = [self._folder / f"{TEST_SUMMARY}.part{rank}" for rank in range(trainer.world_size)]
        parts[trainer.global_rank].write_text(json.dumps(mine))
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        found = [json.loads(part.read_text()) for part in parts]
        path, samples = data_of(trainer).path, dict[str, list[dict[str, str]]]()
        for kind in {kind: None for part in found for kind in part}:
            best = top_k([tuple(each) for part in found for each in part.get(kind, [])], _limit(kind))
            samples.setdefault(kind.split()[0], []).extend({"path": path(i), **texts} for _, i, texts in best)
        write_text(self._folder / TEST_SUMMARY, json.dumps({**self._facts(trainer), "samples": samples}))
        for part in parts:
            part.unlink()

    def _as_text(self, trainer: L.Trainer, kind: str, kept: list[ScoredSample]) -> list[ScoredSample]:
        module, render = module_of(trainer), data_of(trainer).description.input.render
        texts = [as_text(render(sample.numpy())) for _, _, sample in kept]
        if kept and self.overlays is not None and not kind.startswith("sample"):
            inputs = torch.stack([sample for _, _, sample in kept])
            predicted = module(inputs.to(module.device)).argmax(1)
            for text, picture in zip(texts, self.overlays(module, inputs, predicted, 160) or (), strict=False):
                text["attribution"] = _encoded(picture, "jpeg")
        return [(worth, index, text) for (worth, index, _), text in zip(kept, texts, strict=True)]

    def _facts(self, trainer: L.Trainer) -> dict[str, Any]:
        model, data = module_of(trainer), data_of(trainer)
        sizes, description = data.split_sizes(), model.data_description
        scalars = {name: float(value) for name, value in model.results["test"].scalars.items()}
        return {
            "notes": load_checkpoint(Path(trainer.ckpt_path)).get("notes", {}) if trainer.ckpt_path else {},
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": redact_secrets(shlex.join(sys.orig_argv)),
            "checkpoint": str(Path(trainer.ckpt_path).resolve()) if trainer.ckpt_path else None,
            "seconds_of_training": self._seconds,
            "split": "test" if sizes.get("test") else "val",
            "loss": scalars["loss"],
            "scalars": scalars,
            "folder": str(data.folder.resolve()),
            "split_sizes": sizes,
            **asdict(description.target),
            "kind": description.input.kind,
            "image_size": getattr(description.input, "height", None),
            "net": type(model.net).__name__,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "device": describe_device(trainer.strategy.root_device),
            "devices": trainer.world_size,
            "precision": trainer.precision,
        }


def _limit(kind: str) -> int:
    return 1 if kind.startswith("sample") else SHOWN


def as_text(rendered: Any) -> dict[str, str]:
    """Return a rendered sample as a page can hold it: an image as a data URI, of at most 224 pixels, or text."""
    if isinstance(rendered, str):
        return {"text": rendered}
    rendered.thumbnail((224, 224))
    return {"image": _encoded(rendered, "png" if max(rendered.size) <= 64 else "jpeg")}


def _encoded(picture: Any, form: str) -> str:
    file = io.BytesIO()
    picture.save(file, form, quality=85, optimize=True)
    return f"data:image/{form};base64,{base64.b64encode(file.getvalue()).decode()}"


class TopK:
    """Keeps the best `count` candidates seen so far, of equals the one with the lower row."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.kept: list[ScoredSample] = []

    def offer(self, worth: NDArray[Any], index: NDArray[Any], inputs: Tensor, *facts: NDArray[Any]) -> None:
        """Consider a batch: what each sample is worth, float (N,), -inf for nothing; its row, int64 (N,); the sample.

        What is kept is the sample, or a tuple of it and of further columns, (N,) each.
        """
        for i in np.argsort(-worth, kind="stable")[: self.count]:
            if worth[i] > -np.inf:
                sample = inputs[int(i)].to("cpu", copy=True)  # copied, as loaders use the memory of a batch again
                kept = (sample, *(column[i].item() for column in facts)) if facts else sample
                self.kept.append((float(worth[i]), int(index[i]), kept))
        self.kept = top_k(self.kept, self.count)


def top_k(candidates: list[ScoredSample], count: int) -> list[ScoredSample]:
    """Return the best, best first."""
    return heapq.nlargest(count, candidates, key=lambda candidate: (candidate[0], -candidate[1]))
