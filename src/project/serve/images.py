"""Requests with images: decoding, limits, occlusion maps and examples."""

import asyncio
import functools
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.responses import Response
from typing_extensions import override

from project.errors import UserError
from project.images import Pixels, UnreadableImageError, decode, find_images, fit_pixels, to_dtype
from project.interface import ImageInput
from project.serve.handler import PAGE, Handler, Parsed, spread
from project.serve.occlusion import occlude, overlay
from project.serve.upload import encoded_image, is_small

if TYPE_CHECKING:
    from project.serve.service import Settings

MEDIA_TYPES = {
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
"""Media types of the formats that all browsers display, by file extension."""


class ImageHandler(Handler):
    """Decodes images, large ones in threads."""

    specification = PAGE / "image.yaml"
    inputs: ImageInput

    def __init__(self, inputs: ImageInput, settings: "Settings") -> None:
        super().__init__(inputs, settings)
        Image.MAX_IMAGE_PIXELS = settings.max_pixels  # for the whole process; checked before decoding
        warnings.simplefilter("ignore", UserWarning)  # Pillow's, about images that it decodes all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # by default an error only at twice the limit
        self.decoders = ThreadPoolExecutor(settings.threads)
        self.info = {"image_size": inputs.size}
        if settings.samples:
            self.samples = load_samples(settings.samples)

    @override
    async def parse(self, content_type: str, body: bytes) -> Parsed:
        small = len(body) <= 16 * 1024  # parsed here: waking a thread takes longer
        data = encoded_image(content_type, body) if small else await self._thread(encoded_image, content_type, body)
        pixels, image = (
            self._preprocess(data) if small and is_small(data) else await self._thread(self._preprocess, data)
        )
        return Parsed([image], [pixels], [{}])

    @override
    def occlude(self, parsed: Parsed) -> list[Pixels]:
        return occlude(parsed.inputs[0], parsed.originals[0].shape[:2], self.inputs)

    @override
    async def show(self, parsed: Parsed, drop: NDArray[np.float64]) -> dict[str, Any]:
        return {"overlay": await self._thread(overlay, parsed.originals[0], self.inputs, drop)}

    @property
    def _thread(self) -> Any:
        return functools.partial(asyncio.get_running_loop().run_in_executor, self.decoders)

    def _preprocess(self, data: bytes) -> tuple[Pixels, Pixels]:
        try:
            pixels = to_dtype(decode(data, self.inputs.channels).pixels, self.inputs.dtype)
        except UnreadableImageError as error:
            raise HTTPException(400, f"cannot read the file: {error}") from error
        return pixels, fit_pixels(pixels, self.inputs.size, self.inputs.fit)


def load_samples(folder: Path) -> list[tuple[str, Response]]:
    """Return names and files of up to six images, evenly spaced over a folder and its subfolders."""
    if not folder.is_dir():
        raise UserError(f"no such folder: --samples {folder}")
    paths = [path for path in sorted(find_images(folder)) if Path(path).suffix.lower() in MEDIA_TYPES]
    if not paths:
        raise UserError(f"--samples {folder} has no images that browsers can display ({', '.join(MEDIA_TYPES)})")
    try:
        return [
            (file.stem, Response(file.read_bytes(), media_type=MEDIA_TYPES[file.suffix.lower()]))
            for file in (folder / path for path in spread(paths))
        ]
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
