"""The model behind the server: request limits, decoding, prediction and attribution."""

import asyncio
import functools
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from project.deploy.load import load_exported
from project.errors import UserError
from project.images import Pixels, UnreadableImageError, decode, find_images, fit_pixels, to_dtype
from project.output import printable
from project.serve import metrics
from project.serve.batcher import Batcher
from project.serve.occlusion import log_odds_drop, occlude, overlay
from project.serve.upload import encoded_image, is_small

MEDIA_TYPES = {
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
"""Media types of the formats that all browsers display, by file extension."""


@dataclass(frozen=True)
class Settings:
    """Arguments of `project.serve.serve`, picklable for worker processes."""

    model: Path
    threads: int
    samples: Path | None
    token: str | None
    max_concurrency: int
    max_bytes: int
    max_pixels: int
    timeout: float
    require_signature: Path | None


class Service:
    """An exported model with its batcher, decoding threads and concurrency limit."""

    def __init__(self, settings: Settings) -> None:
        Image.MAX_IMAGE_PIXELS = settings.max_pixels  # for the whole process; checked before decoding
        warnings.simplefilter("ignore", UserWarning)  # Pillow's, about images that it decodes all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # by default an error only at twice the limit
        self.settings = settings
        exported = load_exported(settings.model, settings.threads, settings.require_signature)
        self.target = exported.description.target
        self.input = exported.description.image
        self.samples = load_samples(settings.samples) if settings.samples else []
        self.batcher = Batcher(exported.scores, metrics.BATCH_SIZE.observe)
        self.decoders = ThreadPoolExecutor(settings.threads)
        self.in_flight = 0
        exported.scores(np.zeros((1, self.input.channels, *self.input.size), self.input.dtype))  # warm-up

    @contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Count images as in flight, or raise 503 if this would exceed the limit."""
        if self.in_flight + images > max(self.settings.max_concurrency, images):
            raise overloaded()
        self.in_flight += images
        metrics.IN_FLIGHT.inc(images)
        try:
            yield
        finally:
            self.in_flight -= images
            metrics.IN_FLIGHT.dec(images)

    async def read_body(self, request: Request) -> bytes:
        """Return the body of a request; raise 413 if it is too large, 408 if it arrives too slowly."""
        max_bytes = self.settings.max_bytes
        too_large = HTTPException(413, f"the request body exceeds {max_bytes:,} bytes")
        if int(request.headers.get("content-length", 0)) > max_bytes:
            raise too_large
        parts, length = [], 0
        try:
            async with asyncio.timeout(self.settings.timeout):
                async for part in request.stream():
                    length += len(part)
                    if length > max_bytes:
                        raise too_large
                    parts.append(part)
        except TimeoutError:
            raise HTTPException(408, "the upload timed out", {"connection": "close"}) from None
        return b"".join(parts)

    async def predict(self, content_type: str, body: bytes, attribution: bool) -> dict[str, Any]:
        """Return the prediction for the image in a request body, as specified in `openapi.yaml`."""
        in_thread = functools.partial(asyncio.get_running_loop().run_in_executor, self.decoders)
        small = len(body) <= 16 * 1024  # parsed here: waking a thread takes longer
        data = encoded_image(content_type, body) if small else await in_thread(encoded_image, content_type, body)
        pixels, image = self._preprocess(data) if small and is_small(data) else await in_thread(self._preprocess, data)
        scores = await self.batcher(image)
        result = self.target.to_json(scores)
        predicted = self.target.predicted(scores)
        if attribution:
            names = self.target.names
            output = max(map(names.index, predicted or names), key=scores.__getitem__)
            copies = occlude(image, pixels.shape[:2], self.input)
            occluded = np.stack(await asyncio.gather(*map(self.batcher, copies)))
            drop = log_odds_drop(output, scores, occluded, exclusive=self.target.kind == "classes")
            result["attribution"] = {
                "name": names[output],
                "lowest_probability": float(occluded[:, output].min()),
                "overlay": await in_thread(overlay, pixels, self.input, drop),
            }
        for name in predicted:
            metrics.PREDICTIONS.labels(printable(name)).inc()
        return result

    def _preprocess(self, data: bytes) -> tuple[Pixels, Pixels]:
        try:
            pixels = to_dtype(decode(data, self.input.channels).pixels, self.input.dtype)
        except UnreadableImageError as error:
            raise HTTPException(400, f"cannot read the file: {error}") from error
        return pixels, fit_pixels(pixels, self.input.size, self.input.fit)


def overloaded() -> HTTPException:
    """Return the error for requests beyond the concurrency limit or the timeout."""
    return HTTPException(503, "the server is busy: try again in a second", {"retry-after": "1"})


def load_samples(folder: Path) -> list[tuple[str, Response]]:
    """Return names and files of up to six images, evenly spaced over a folder and its subfolders."""
    if not folder.is_dir():
        raise UserError(f"no such folder: --samples {folder}")
    paths = [path for path in sorted(find_images(folder)) if Path(path).suffix.lower() in MEDIA_TYPES]
    if not paths:
        raise UserError(f"--samples {folder} has no images that browsers can display ({', '.join(MEDIA_TYPES)})")
    count = min(6, len(paths))
    chosen = [folder / paths[(2 * number + 1) * len(paths) // (2 * count)] for number in range(count)]
    try:
        return [
            (file.stem, Response(file.read_bytes(), media_type=MEDIA_TYPES[file.suffix.lower()])) for file in chosen
        ]
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
