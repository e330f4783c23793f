"""Extraction of the encoded image from a request body."""

import base64
import binascii
import json
import logging
from typing import Any

import simplejpeg
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import create_form_parser
from starlette.exceptions import HTTPException

for library in ("PIL", "python_multipart"):
    logging.getLogger(library).setLevel(logging.CRITICAL)  # errors are returned to the client


def encoded_image(content_type: str, body: bytes) -> bytes:
    """Return the image file in a request body; raise 400 or 415 if there is none."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        return body
    if media_type == "multipart/form-data":
        return _from_form(content_type, body)
    if media_type != "application/json":
        raise HTTPException(
            415, "send an image as image/*, as the field `image` of multipart/form-data, or as base64 in JSON"
        )
    try:
        return base64.b64decode(json.loads(body)["image"], validate=True)
    except binascii.Error as error:
        raise HTTPException(400, f"`image` is not valid base64: {error}") from error
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise HTTPException(400, 'the body must be JSON of the form {"image": "BASE64"}') from error


def is_small(data: bytes) -> bool:
    """Return True for a JPEG of at most 128 x 128 pixels, which decodes faster than a thread wakes up."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return False
    return bool(height * width <= 128 * 128)


def _from_form(content_type: str, body: bytes) -> bytes:
    files: list[Any] = []
    limits = {"MAX_MEMORY_FILE_SIZE": len(body) + 1, "MAX_FIELDS": 16}  # keeps files in memory
    headers = {"Content-Type": content_type.encode("latin-1")}
    try:
        parser = create_form_parser(headers, lambda _: None, files.append, limits)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError, KeyError) as error:
        raise HTTPException(400, f"cannot parse the form: {error}") from error
    for file in files:
        if file.field_name == b"image":
            file.file_object.seek(0)
            return bytes(file.file_object.read())
    raise HTTPException(400, "the form has no file field `image`")
