"""From the body of a request to a picture."""

import base64
import binascii
import json
import logging
import warnings
from typing import Any

import simplejpeg
from PIL import Image
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import create_form_parser
from starlette.exceptions import HTTPException

from project.images import Pixels, UnreadableImageError, decode_pixels

FIELDS = 16
"""Parts of a form, at most."""
FEW = 128 * 128
"""Pixels."""

for library in ("PIL", "python_multipart"):
    logging.getLogger(library).setLevel(logging.CRITICAL)  # whoever sent it is told


def limit_pixels(pixels: int) -> None:
    """Refuse pictures of more pixels, from their header, before any is decoded; for the whole process."""
    Image.MAX_IMAGE_PIXELS = pixels
    warnings.simplefilter("ignore", UserWarning)  # of what is odd in pictures that are read all the same
    warnings.simplefilter("error", Image.DecompressionBombWarning)  # what Pillow only warns of up to twice as many


def encoded_picture(content_type: str, body: bytes) -> bytes:
    """The file of a picture that a body holds.

    Raises:
        HTTPException: 400 where the body is not what it should be, 415 for another content type.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        return _from_json(body)
    if kind == "multipart/form-data":
        return _from_form(content_type, body)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return body
    raise HTTPException(
        415, "send a picture as image/*, as the field `image` of multipart/form-data, or in base64 in JSON"
    )


def is_small(data: bytes) -> bool:
    """Whether a picture is a JPEG of so few pixels that decoding it takes less time than handing it to a thread."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return False
    return bool(height * width <= FEW)


def decode_picture(data: bytes) -> Pixels:
    """Decode it as training does: upright RGB, uint8 (H, W, 3).

    Raises:
        HTTPException: 400, it is no picture, or too large a one.
    """
    try:
        return decode_pixels(data)
    except UnreadableImageError as error:
        raise HTTPException(400, f"cannot read the picture: {error}") from error


def _from_json(body: bytes) -> bytes:
    try:
        content = json.loads(body)
        return base64.b64decode(content["image"], validate=True)
    except binascii.Error as error:
        raise HTTPException(400, f"`image` is not base64: {error}") from error
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise HTTPException(400, 'the body is not {"image": "a picture in base64"}') from error


def _from_form(content_type: str, body: bytes) -> bytes:
    files: list[Any] = []
    limits = {"MAX_MEMORY_FILE_SIZE": len(body) + 1, "MAX_FIELDS": FIELDS}  # nothing goes to the disk
    try:
        parser = create_form_parser(
            {"Content-Type": content_type.encode("latin-1")}, lambda _: None, files.append, limits
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError, KeyError) as error:
        raise HTTPException(400, f"cannot read the form: {error}") from error
    for file in files:
        if file.field_name == b"image":
            file.file_object.seek(0)
            return bytes(file.file_object.read())
    raise HTTPException(400, "the form has no file in a field named `image`")
