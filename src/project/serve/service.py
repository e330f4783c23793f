"""A loaded model and the requests to it."""

import asyncio
import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request

from project.deploy.load import Probabilities, load_exported
from project.deploy.square import to_square
from project.images import Pixels
from project.serve import metrics
from project.serve.batches import Batcher
from project.serve.evidence import cover, losses, overlay
from project.serve.samples import Sample, read_samples
from project.serve.upload import decode_picture, encoded_picture, is_small, limit_pixels
from project.words import legible

SHORT = 16 * 1024
"""Bytes of a body that is unpacked at once; a thread takes longer to wake."""


@dataclass(frozen=True)
class Settings:
    """What `project.serve.serve` was told; plain values, so that workers get them too."""

    model: Path
    threads: int
    samples: Path | None
    token: str | None
    limit: int
    max_bytes: int
    max_pixels: int
    seconds: float
    require_signature: Path | None


class Service:
    """A model and the requests to it."""

    def __init__(self, settings: Settings) -> None:
        if settings.require_signature is not None:
            from project.secure.sign import check_signature

            check_signature(settings.model, settings.require_signature)
        limit_pixels(settings.max_pixels)
        self.settings = settings
        self.exported = load_exported(settings.model, settings.threads)
        self.about: dict[str, Any] = self.exported.metadata["data_description"]
        self.names, self.size = self.exported.class_names, int(self.about["image_size"])
        self.sure_above: float | None = self.exported.metadata.get("sure_above")
        self.samples: list[Sample] = read_samples(settings.samples) if settings.samples else []
        self.batcher = Batcher(self.exported.probabilities, metrics.BATCH.observe)
        self.decoders = ThreadPoolExecutor(max(1, settings.threads))
        self.in_work = 0
        self.exported.probabilities(np.zeros((1, 3, self.size, self.size), np.uint8))  # the first is slow

    @contextmanager
    def admitted(self, pictures: int) -> Iterator[None]:
        """Count pictures as being in work.

        Raises:
            HTTPException: 503, there are too many.
        """
        if self.in_work + pictures > max(self.settings.limit, pictures):
            raise overloaded()
        self.in_work += pictures
        metrics.IN_WORK.inc(pictures)
        try:
            yield
        finally:
            self.in_work -= pictures
            metrics.IN_WORK.dec(pictures)

    async def body(self, request: Request) -> bytes:
        """What was sent.

        Raises:
            HTTPException: 413 if it is too long, 408 if it comes too slowly.
        """
        most = self.settings.max_bytes
        too_long = HTTPException(413, f"more than {most:,} bytes")
        if int(request.headers.get("content-length", 0)) > most:
            raise too_long
        parts, length = [], 0
        try:
            async with asyncio.timeout(self.settings.seconds):
                async for part in request.stream():
                    length += len(part)
                    if length > most:
                        raise too_long
                    parts.append(part)
        except TimeoutError:
            raise HTTPException(408, "the picture took too long to arrive", {"connection": "close"}) from None
        return b"".join(parts)

    async def answer(self, content_type: str, body: bytes, evidence: bool) -> dict[str, Any]:
        """Class and probabilities of the picture in a body; see `openapi.yaml`.

        Raises:
            HTTPException: 400 or 415, it is none.
        """
        in_thread = functools.partial(asyncio.get_running_loop().run_in_executor, self.decoders)
        short = len(body) <= SHORT
        data = encoded_picture(content_type, body) if short else await in_thread(encoded_picture, content_type, body)
        pixels, square = self._prepare(data) if short and is_small(data) else await in_thread(self._prepare, data)
        row: Probabilities = await self.batcher(square)
        best = int(row.argmax())
        shares = [round(share, 6) for share in row.tolist()]  # as in predictions.csv
        found = {"class": self.names[best], "probability": shares[best]}
        if self.sure_above is not None:
            found["sure"] = float(row[best]) >= self.sure_above
        found["probabilities"] = dict(zip(self.names, shares, strict=True))
        if evidence:
            rows = await asyncio.gather(*map(self.batcher, cover(square, self.about["mean"])))
            after = np.stack(rows)
            loss = losses(best, row, after)
            found["evidence"] = {
                "lowest_probability": float(after[:, best].min()),
                "overlay": await in_thread(overlay, pixels, loss),
            }
        metrics.CLASSES.labels(legible(self.names[best])).inc()
        return found

    def _prepare(self, data: bytes) -> tuple[Pixels, Pixels]:
        pixels = decode_picture(data)
        return pixels, to_square(pixels, self.size)


def overloaded() -> HTTPException:
    """Refuses what there is no room or no time for."""
    return HTTPException(503, "busy: try again in a second", {"retry-after": "1"})
