"""A loaded model and the requests to it."""

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

from project.deploy.crop import center_crop_resize
from project.deploy.load import load_exported
from project.errors import UserError
from project.images import Pixels, UnreadableImageError, decode_pixels, find_images
from project.output import printable
from project.serve import metrics
from project.serve.batcher import Batcher
from project.serve.occlusion import cover, losses, overlay
from project.serve.upload import encoded_image, is_small

SHOWN = {".gif": "image/gif", ".jpeg": "image/jpeg", ".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
"""Media types of what browsers show."""


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
        Image.MAX_IMAGE_PIXELS = settings.max_pixels  # of the whole process; larger ones are refused by their header
        warnings.simplefilter("ignore", UserWarning)  # of what is odd in pictures that are read all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # what Pillow only warns of up to twice as many
        self.settings = settings
        exported = load_exported(settings.model, settings.threads, settings.require_signature)
        self.description = exported.description
        self.size = self.description.image.height
        self.confidence_threshold: float | None = exported.metadata.get("confidence_threshold")
        self.samples = samples(settings.samples) if settings.samples else []
        self.batcher = Batcher(exported.probabilities, metrics.BATCH.observe)
        self.decoders = ThreadPoolExecutor(settings.threads)
        self.in_work = 0
        exported.probabilities(np.zeros((1, 3, self.size, self.size), np.uint8))  # the first is slow

    @contextmanager
    def admitted(self, pictures: int) -> Iterator[None]:
        """Count pictures as being in work, or refuse them where there are too many."""
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
        """Return what was sent, unless it is too long or comes too slowly."""
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

    async def answer(self, content_type: str, body: bytes, attribution: bool) -> dict[str, Any]:
        """Return class and probabilities of the picture in a body; see `openapi.yaml`."""
        in_thread = functools.partial(asyncio.get_running_loop().run_in_executor, self.decoders)
        short = len(body) <= 16 * 1024  # is unpacked at once: a thread takes longer to wake
        data = encoded_image(content_type, body) if short else await in_thread(encoded_image, content_type, body)
        pixels, square = self._prepare(data) if short and is_small(data) else await in_thread(self._prepare, data)
        row = await self.batcher(square)
        found = self.description.target.to_json(row, self.confidence_threshold)
        if attribution:
            best = int(row.argmax())
            covered = cover(square, self.description.image.mean)
            after = np.stack(await asyncio.gather(*map(self.batcher, covered)))
            drawn = await in_thread(overlay, pixels, losses(best, row, after))
            found["attribution"] = {"lowest_probability": float(after[:, best].min()), "overlay": drawn}
        metrics.CLASSES.labels(printable(found["class"])).inc()
        return found

    def _prepare(self, data: bytes) -> tuple[Pixels, Pixels]:
        try:
            pixels = decode_pixels(data)
        except UnreadableImageError as error:
            raise HTTPException(400, f"cannot read the picture: {error}") from error
        return pixels, center_crop_resize(pixels, self.size)


def overloaded() -> HTTPException:
    """Return the refusal of what there is no room or no time for."""
    return HTTPException(503, "busy: try again in a second", {"retry-after": "1"})


def samples(folder: Path) -> list[tuple[str, Response]]:
    """Return up to six pictures, evenly spaced over the folder with all below it: their names, and their files."""
    if not folder.is_dir():
        raise UserError(f"no such folder: --samples {folder}")
    paths = [path for path in sorted(find_images(folder)) if Path(path).suffix.lower() in SHOWN]
    if not paths:
        raise UserError(f"--samples {folder} has no pictures that browsers show ({', '.join(SHOWN)})")
    count = min(6, len(paths))
    chosen = [folder / paths[(2 * number + 1) * len(paths) // (2 * count)] for number in range(count)]
    try:
        return [(file.stem, Response(file.read_bytes(), media_type=SHOWN[file.suffix.lower()])) for file in chosen]
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
