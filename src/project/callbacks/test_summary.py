"""Test results that a report needs in addition to the table of predictions."""

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
from typing_extensions import override

from project.files import write_text
from project.interface import Batch, data_of, module_of, test_folder
from project.machine import describe_device
from project.output import redact_secrets
from project.runs.checkpoints import load_checkpoint
from project.runs.folder import TEST_SUMMARY

ScoredSample = tuple[float, int, Any]
"""Score of a sample, its row in the index, and the data kept with it."""
SHOWN = 12
"""Number of most confident mistakes, of least confident predictions and of examples (one per class) to keep."""
Overlays = Callable[[Any, Tensor, Tensor, int, Tensor | None], list[Any] | None]
"""Overlays attribution maps on images, given (module, images (N, C, H, W), outputs int64 (N,), size in pixels, and
which pixels are not padding, bool (N, 1, H, W), or None). Of other samples, a list of parts with their attribution."""


class TestSummary(L.Callback):
    """Callback that writes test.json: model, dataset, metrics, and selected samples such as confident mistakes.

    Images are embedded as data URIs, as the network saw them, so that a report does not depend on the dataset.

    Attributes:
        overlays: Computes attribution overlays of mistakes and of the least confident images; None to omit them.
    """

    def __init__(self) -> None:
        self.overlays: Overlays | None = None
        self._started = 0.0
        self._training_seconds: float | None = None
        self._folder: Path | None = None
        self._kept: dict[str, TopK] = {}

    @override
    def on_train_start(self, *_: Any) -> None:
        self._started = time.monotonic()

    @override
    def on_train_end(self, *_: Any) -> None:
        self._training_seconds = time.monotonic() - self._started

    @override
    def on_test_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._folder, self._kept = test_folder(trainer), {}

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """Keep the samples with the highest scores so far."""
        if self._folder is None:
            return
        index = batch.index.cpu()
        scores = module_of(trainer).task.rank_samples(outputs.cpu(), batch.target.cpu(), index, SHOWN)
        for kind, score in scores.items():
            self._kept.setdefault(kind, TopK(_limit(kind))).offer(score.numpy(), index.numpy(), batch.inputs)

    def on_test_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Gather the samples of all processes and write test.json."""
        if self._folder is None:
            return
        local = {kind: self._serialize(trainer, kind, top.kept) for kind, top in self._kept.items()}
        parts = [self._folder / f"{TEST_SUMMARY}.part{rank}" for rank in range(trainer.world_size)]
        parts[trainer.global_rank].write_text(json.dumps(local))
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        gathered = [json.loads(part.read_text()) for part in parts]
        path, samples = data_of(trainer).path, dict[str, list[dict[str, Any]]]()
        for kind in {kind: None for part in gathered for kind in part}:
            best = top_k([tuple(sample) for part in gathered for sample in part.get(kind, [])], _limit(kind))
            samples.setdefault(kind.split()[0], []).extend({"path": path(i), **texts} for _, i, texts in best)
        write_text(self._folder / TEST_SUMMARY, json.dumps({**self._metadata(trainer), "samples": samples}))
        for part in parts:
            part.unlink()

    def _serialize(self, trainer: L.Trainer, kind: str, kept: list[ScoredSample]) -> list[ScoredSample]:
        module, render = module_of(trainer), data_of(trainer).description.input.render
        texts = [as_text(render(sample.numpy())) for _, _, sample in kept]
        if kept and self.overlays is not None and not kind.startswith("sample"):
            stacked = data_of(trainer).description.input.stack([sample.numpy() for _, _, sample in kept])
            inputs = torch.from_numpy(stacked)
            explained = [each[0] for each in module.task.explained(module.predictions(inputs.to(module.device)))]
            content = data_of(trainer).content([row for _, row, _ in kept])
            overlays = self.overlays(module, inputs, torch.tensor(explained), 160, content)
            for text, overlay, output in zip(texts, overlays or (), explained, strict=False):
                if isinstance(overlay, list):
                    text["parts"] = overlay
                else:
                    text["attribution"] = _data_uri(overlay, "jpeg")
                text["attribution_of"] = module.task.target.names[output]
        return [(score, index, text) for (score, index, _), text in zip(kept, texts, strict=True)]

    def _metadata(self, trainer: L.Trainer) -> dict[str, Any]:
        model, data = module_of(trainer), data_of(trainer)
        sizes, description = data.split_sizes(), model.data_description
        scalars = {name: float(value) for name, value in model.metrics.results["test"].scalars.items()}
        return {
            "notes": load_checkpoint(Path(trainer.ckpt_path)).get("notes", {}) if trainer.ckpt_path else {},
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": redact_secrets(shlex.join(sys.orig_argv)),
            "checkpoint": str(Path(trainer.ckpt_path).resolve()) if trainer.ckpt_path else None,
            "seconds_of_training": self._training_seconds,
            "split": "test" if sizes.get("test") else "val",
            "loss": scalars["loss"],
            "scalars": scalars,
            "folder": str(data.folder.resolve() if data.folder.exists() else data.folder),
            "split_sizes": sizes,
            "target": {"kind": description.target.kind, **asdict(description.target)},
            "headline": model.task.headline,
            "kind": description.input.kind,
            "input": str(description.input),
            "shown_bands": getattr(description.input, "shown_bands", ""),
            "net": type(model.net).__name__,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "device": describe_device(trainer.strategy.root_device),
            "devices": trainer.world_size,
            "precision": trainer.precision,
        }


def _limit(kind: str) -> int:
    return 1 if kind.startswith("sample") else SHOWN


def as_text(rendered: Any) -> dict[str, Any]:
    """Return a rendered sample for embedding in HTML: text, or an image of at most 224 pixels as a data URI."""
    if isinstance(rendered, str):
        return {"text": rendered}
    rendered.thumbnail((224, 224))
    return {"image": _data_uri(rendered, "png" if max(rendered.size) <= 64 else "jpeg")}


def _data_uri(image: Any, format: str) -> str:
    file = io.BytesIO()
    image.save(file, format, quality=85, optimize=True)
    return f"data:image/{format};base64,{base64.b64encode(file.getvalue()).decode()}"


class TopK:
    """Keeps the `count` samples with the highest scores; ties go to the lower row."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.kept: list[ScoredSample] = []

    def offer(self, scores: NDArray[Any], index: NDArray[Any], inputs: Tensor, *facts: Tensor) -> None:
        """Update with a batch.

        Args:
            scores: Scores of the samples, float (N,); -inf excludes a sample.
            index: Rows of the samples in the index, int64 (N,).
            inputs: The samples, (N, ...).
            facts: Further columns, each (N, ...); if given, a tuple of the sample and its rows is kept.
        """
        for i in np.argsort(-scores, kind="stable")[: self.count]:
            if scores[i] > -np.inf:
                sample = inputs[int(i)].to("cpu", copy=True)  # copied, because dataloaders reuse the batch buffer
                kept = (sample, *(column[int(i)].clone() for column in facts)) if facts else sample
                self.kept.append((float(scores[i]), int(index[i]), kept))
        self.kept = top_k(self.kept, self.count)


def top_k(candidates: list[ScoredSample], count: int) -> list[ScoredSample]:
    """Return the `count` candidates with the highest scores, in descending order."""
    return heapq.nlargest(count, candidates, key=lambda candidate: (candidate[0], -candidate[1]))
